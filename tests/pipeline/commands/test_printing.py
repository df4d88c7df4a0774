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
