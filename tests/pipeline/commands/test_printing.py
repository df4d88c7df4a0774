"""What commands print is what was meant: paths whole, brackets and colons as they are."""

from __future__ import annotations

import io
import sys

import pytest
import yaml
from in_process import weave, without_ray
from rich.console import Console
from tokenloom.pipeline import run as running
from tokenloom.pipeline.cli import main
from tokenloom.pipeline.cluster.size import ClusterSize, Node
from tokenloom.pipeline.commands import progress
from tokenloom.pipeline.commands import run as commands
from tokenloom.pipeline.commands.progress import RunProgress
from tokenloom.pipeline.corpus.units import Unit
from tokenloom.pipeline.engine.estimate import Estimate
from tokenloom.pipeline.engine.stream import UnitResult
from tokenloom.pipeline.engine.tally import Tally
from tokenloom.pipeline.plan.plan import Plan
from tokenloom.pipeline.plan.recipe import Recipe


@pytest.mark.parametrize("output", ["of [v1] :star:", "[bold]x[/bold]", "[/]", f"long {'and so on ' * 20}end"])
def test_a_path_is_printed_as_it_is(corpus, tmp_path, monkeypatch, capsys, output):
    content = {"corpus": str(corpus), "output": output, "modalities": {"color_palette": {"keep": "labels"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tokenloom", "run", "./mine.yaml"])
    for said in (
        f"6 samples in 1 unit, 1 modality -> {tmp_path / output}\n",
        f"nothing to do: {tmp_path / output} is",
    ):
        with without_ray(), pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
        assert said in capsys.readouterr().out


def test_an_output_is_printed_without_its_password(small_corpus, tmp_path, monkeypatch, capsys):
    output = "memory://me:SECRET@box/out"
    content = {"corpus": str(small_corpus), "output": output, "modalities": {"color_palette": {"keep": "labels"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    for words, said in (
        (["run", "./mine.yaml"], "1 modality -> memory://***@box/out\n"),
        (["run", "./mine.yaml"], "nothing to do: memory://***@box/out is"),
        (["plan", "./mine.yaml"], "color_palette"),
        (["compact", output], "memory://***@box/out are as large"),
        *(([name, output], "") for name in ("status", "verify", "gc", "history", "quarantine")),
    ):
        monkeypatch.setattr(sys, "argv", ["tokenloom", *words])
        with without_ray(), pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert end.value.code == 0
        assert said in printed.out
        assert "SECRET" not in printed.out + printed.err


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
            tally.add(UnitResult(Unit("a-0123456789ab", index, None, samples), {"rgb": (samples, 0)}, 1000, 0, 0))
            shown.labelled(tally)
        return self.printed.getvalue().splitlines()[1:]


def test_the_start_of_workers_is_no_work(monkeypatch):
    """A minute until the first of 20 units is there, then one every four seconds."""
    lines = Clock(monkeypatch).run(20, [60 + 4 * n for n in range(20)])
    assert lines[0] == "so far 10 samples, 0 quarantined"
    assert lines[1] == "so far 40 samples, 2.5/s, 1 min 4 s left, 0 quarantined"
    assert lines[-1] == "so far 190 samples, 2.5/s, 4 s left, 0 quarantined"


def test_nothing_is_said_of_what_is_left_while_that_is_a_guess(monkeypatch):
    """Eight workers end their first units at once."""
    lines = Clock(monkeypatch).run(80, [50 + 0.1 * n for n in range(8)] + [62 + 0.1 * n for n in range(8)])
    assert lines == ["so far 10 samples, 0 quarantined", "so far 90 samples, 6.7/s, 1 min 46 s left, 0 quarantined"]


def test_what_happens_meanwhile_is_no_phase_of_the_run(monkeypatch):
    """As a node that goes."""
    clock = Clock(monkeypatch)
    shown = RunProgress(Console(file=clock.printed, width=200), 0)
    shown.say("labelling")
    clock.now += 20
    shown.note("a node is about to go")
    clock.now += 20
    assert [name for name, _ in shown.phases()] == ["starting", "labelling"]
    assert clock.printed.getvalue().splitlines() == ["labelling ...", "a node is about to go"]


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


@pytest.mark.parametrize(("limit", "told"), [(4, "4 s of one worker, 2 s with 2 workers"), (5, "2 s of one worker, ")])
@pytest.mark.parametrize("more", [{}, {"canny_edge": {"keep": "labels"}}])
def test_of_a_shard_that_was_begun_only_the_rest_takes_time(limit, told, more, corpus, tmp_path, monkeypatch, capsys):
    """12 s for all six samples; another modality may have been made of all of them before."""
    content = {"corpus": str(corpus), "output": str(tmp_path / "out"), "units": {"samples": 1}, "modalities": more}
    own = {"mean_colour": {"labeler": "odd_labelers:MeanColour", "keep": "labels"}}
    if more:
        weave(Recipe.model_validate(content))
    content["modalities"] = {**more, **own}
    weave(Recipe.model_validate(content), limit=limit)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))

    def tried(plan: Plan, count: int) -> Estimate:
        return Estimate(6, {}, 6, 1, plan.bytes, {"mean_colour": 12.0}, 0.0, [], {}, [], [], [])

    monkeypatch.setattr(commands, "calibrate", tried)
    monkeypatch.setattr(commands, "cluster_size", lambda: ClusterSize((Node(8),)))
    commands.plan(str(tmp_path / "mine.yaml"), [], [], None, [], False, 6)
    assert f"for what is left about {told}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("size", "resources", "told"),
    [
        (Node(4), {}, "15 s of one worker, 4 s with 4 workers, "),
        (Node(8), {}, "15 s of one worker, 3 s with 6 workers, "),
        (Node(2), {"workers": 5}, "15 s of one worker, 8 s with 2 workers, "),
        (Node(8), {"stages": [{"modalities": ["mean_colour"], "max_workers": 2}]}, "20 s of one worker, 8 s with "),
        (Node(8, 1), {"stages": [{"modalities": ["mean_colour"], "num_gpus": 1}]}, "20 s of one worker, 15 s with "),
        (Node(8, 1), {"stages": [{"modalities": ["mean_colour"], "num_gpus": 0.5}]}, "20 s of one worker, 8 s with "),
    ],
)
def test_what_is_left_takes_as_long_as_its_longest_stage(corpus, tmp_path, monkeypatch, capsys, size, resources, told):
    """Ten seconds for one modality, none for the other, and five to decode, in either stage; of six units."""
    content = {"corpus": str(corpus), "output": str(tmp_path / "out"), "resources": resources, "units": {"samples": 1}}
    content["modalities"] = {"mean_colour": {"labeler": "odd_labelers:MeanColour"}, "canny_edge": {"keep": "labels"}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    seconds = {"mean_colour": 10.0, "canny_edge": 0.001}

    def tried(plan: Plan, count: int) -> Estimate:
        return Estimate(6, {}, 6, 1, plan.bytes, seconds, 5.0, [], {}, [], [], [])

    monkeypatch.setattr(commands, "calibrate", tried)
    monkeypatch.setattr(commands, "cluster_size", lambda: ClusterSize((size,)))
    commands.plan(str(tmp_path / "mine.yaml"), [], [], None, [], False, 6, price=2400.0)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"for what is left about {told}" in printed
    share = resources.get("stages", [{}])[0].get("num_gpus")  # of one GPU, for 15 s of one worker or half of it of two
    money = (
        f"at $2,400.00 a GPU hour ${10 * share:.2f}, and ${10 * share:.2f} where all" if share else "no stage has a GPU"
    )
    assert money in printed
    if "stages" in resources:
        counts = "1 in stage 1, 2 in stage 2" if "8 s" in told else "1 in stage 1, 1 in stage 2"
        assert f"workers for which there is room at once ({counts}), without" in printed
