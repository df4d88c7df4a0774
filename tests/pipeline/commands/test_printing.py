"""What commands print is what was meant: paths whole, brackets and colons as they are."""

from __future__ import annotations

import io
import sys

import pytest
import yaml
from in_process import without_ray
from rich.console import Console
from tokenloom.pipeline import run as running
from tokenloom.pipeline.cli import main
from tokenloom.pipeline.commands import progress
from tokenloom.pipeline.commands.progress import RunProgress
from tokenloom.pipeline.corpus.units import Unit
from tokenloom.pipeline.engine.stream import UnitResult
from tokenloom.pipeline.engine.tally import Tally


@pytest.mark.parametrize("output", ["of [v1] :star:", "[bold]x[/bold]", "[/]", f"long {'and so on ' * 20}end"])
def test_a_path_is_printed_as_it_is(corpus, tmp_path, monkeypatch, capsys, output):
    content = {"corpus": str(corpus), "output": output, "modalities": {"color_palette": {"keep": "labels"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tokenloom", "run", "./mine.yaml"])
    for said in (
        f"6 samples in 1 units, 1 modalities -> {tmp_path / output}\n",
        f"nothing to do: {tmp_path / output} is",
    ):
        with without_ray(), pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
        assert said in capsys.readouterr().out


def test_a_plan_breaks_no_name_at_80_columns(corpus, tmp_path, monkeypatch, capsys):
    weights = tmp_path / "a-folder-of-some-length" / "weights"
    weights.parent.mkdir()
    weights.write_bytes(b"!")
    modalities = {
        "mean_colour": {"labeler": "odd_labelers:Weighty", "weights": str(weights)},
        "color_palette": {},
        "canny_edge": {"tokenizer": "patch_codebook"},
    }
    content = {"corpus": str(corpus), "output": str(tmp_path / "out"), "modalities": modalities}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["tokenloom", "run", str(tmp_path / "mine.yaml"), "--dry-run"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for name in modalities:
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        assert len(line.rstrip()) <= 80
    assert any("odd_labelers:Weighty" in line and "product_codebook" in line and "/weights" in line for line in lines)


class Clock:
    """What a run prints when it goes on at these moments: seconds, as its units are done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.printed = 100.0, io.StringIO()
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)

    def run(self, units: int, at: list[float], samples: int = 10) -> list[str]:
        console, tally = Console(file=self.printed, width=200), Tally("out", {})
        shown, began = RunProgress(console, units * 1000), self.now
        shown.say("labelling")
        for index, moment in enumerate(at):
            self.now = began + moment
            tally.add(UnitResult(Unit("a-0123456789ab", index, None, samples), {"rgb": (samples, 0, 1.0)}, 1000, 0, 0))
            shown.labelled(tally)
        return self.printed.getvalue().splitlines()[1:]


def test_the_start_of_workers_is_no_work(monkeypatch):
    """A minute until the first of 20 units is there, then one every four seconds."""
    lines = Clock(monkeypatch).run(20, [60 + 4 * n for n in range(20)])
    assert lines[0] == "10 samples, 0 quarantined"
    assert lines[1] == "40 samples, 2.5/s, 1 min 4 s left, 0 quarantined"
    assert lines[-1] == "190 samples, 2.5/s, 4 s left, 0 quarantined"


def test_nothing_is_said_of_what_is_left_while_that_is_a_guess(monkeypatch):
    """Eight workers end their first units at once."""
    lines = Clock(monkeypatch).run(80, [50 + 0.1 * n for n in range(8)] + [62 + 0.1 * n for n in range(8)])
    assert lines == ["10 samples, 0 quarantined", "90 samples, 6.7/s, 1 min 46 s left, 0 quarantined"]


def test_a_round_whose_end_is_not_known_says_nothing_of_it(monkeypatch):
    clock = Clock(monkeypatch)
    shown = RunProgress(Console(file=clock.printed, width=200), 0)
    for done in range(3):
        shown.fitting("rgb", done, 6)
        clock.now += 20
    assert clock.printed.getvalue().splitlines() == [
        "fitting rgb, round 1 of 6",
        "fitting rgb, round 2 of 6, left 1 min 40 s",
        "fitting rgb, round 3 of 6, left 1 min 20 s",
    ]


def test_a_run_that_only_hands_over_says_so(corpus, tmp_path, monkeypatch, capsys):
    """What died between the last shard and the manifest."""
    for name in ("one", "two"):
        (tmp_path / name).touch()
    made = {"labeler": "odd_labelers:WaitsFor", "params": {"file": str(tmp_path / "one")}, "keep": "labels"}
    content = {"corpus": str(corpus), "output": str(tmp_path / "out"), "modalities": {"mean_colour": made}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))

    def said(*words: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["tokenloom", *words])
        with without_ray(), pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == code
        return capsys.readouterr().out

    mine = str(tmp_path / "mine.yaml")
    said("run", mine)
    anew = (mine, "--set", f"modalities.mean_colour.params.file={tmp_path / 'two'}")
    with monkeypatch.context() as patch:
        patch.setattr(running, "_handed_over", lambda *_: sys.exit(3))
        said("run", *anew, "--replace", "mean_colour", code=3)
    told = said("run", *anew, "--dry-run")
    assert "made anew, and all there: a run of this recipe has readers get it: mean_colour" in told
    told = said("run", *anew)
    assert "beside" not in told
    assert f"readers get mean_colour as made anew: {tmp_path / 'out'} is complete" in told
    assert f"nothing to do: {tmp_path / 'out'} is complete" in said("run", *anew)
