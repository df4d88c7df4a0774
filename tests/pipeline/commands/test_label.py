"""`tokenloom label`: labels of a few files, each under a name of its own."""

from __future__ import annotations

import sys

import pytest
from tokenloom.pipeline.cli import main


def test_files_of_one_name_and_broken_ones_cost_nobody_else(photos, tmp_path, monkeypatch, capsys):
    for name in ("one/cat.jpg", "two/cat.jpg", "broken.jpg", "dog.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(photos["coffee"])
    (tmp_path / "broken.jpg").write_bytes(b"<html>not here</html>")
    (tmp_path / "dog.txt").write_bytes("ein Hündchen".encode("latin-1"))
    monkeypatch.chdir(tmp_path)
    words = ["label", "one/cat.jpg", "two/cat.jpg", "broken.jpg", "dog.jpg", "dog.jpg", "-m", "canny_edge"]
    monkeypatch.setattr(sys, "argv", ["tokenloom", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    written = sorted(path.name for path in (tmp_path / "labels").iterdir())
    assert written == ["dog.canny_edge.png", "one_cat.jpg.canny_edge.png", "two_cat.jpg.canny_edge.png"]
    printed = capsys.readouterr().out
    assert "dog.txt isn't UTF-8: dog.jpg goes without" in printed
    assert printed.count("failed: ") == 1
    assert printed.split("broken\n")[1].strip().startswith("canny_edge         failed: ")
