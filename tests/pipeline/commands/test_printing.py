"""What commands print is what was meant: paths whole, brackets and colons as they are."""

from __future__ import annotations

import sys

import pytest
import yaml
from in_process import without_ray
from tokenloom.pipeline.cli import main


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
