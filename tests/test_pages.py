"""Pages hold no code of the package, and none of their commands is overlooked."""

from __future__ import annotations

import re

from pages import ROOT, commands, program_of
from test_docs import PROGRAMS


def test_pages_are_no_part_of_the_package():
    assert '"tokenloom.docs"' not in (ROOT / "pyproject.toml").read_text()
    assert not any((ROOT / "docs").rglob("*.py"))


def test_a_new_command_without_a_test_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Try `python tests/new.py --quick`:\n\n```sh\nmake all   # everything\n```\n")
    assert commands(page) == ["make all", "python tests/new.py --quick"]
    assert [program_of(command) in PROGRAMS for command in commands(page)] == [False, True]


def test_pages_that_are_written_load_nothing_from_elsewhere_and_run_no_script_in_their_text():
    folders = ("pipeline/preview/gallery", *(f"training/{wing}/page" for wing in ("prompt", "retrieval", "show")))
    written = [ROOT / folder / "index.html" for folder in folders]
    assert sorted(written) == sorted(
        path for room in ("pipeline", "training") for path in (ROOT / room).rglob("*.html")
    )
    for page in written:
        text = page.read_text()
        policy = re.search(r'http-equiv="Content-Security-Policy"\s+content="([^"]*)"', text)
        assert policy, page
        assert policy[1].startswith("default-src 'none'; ")
        assert set(re.findall(r"\s([a-z'][^\s;]*)", policy[1].partition(";")[2])) <= {
            *("script-src", "style-src", "img-src", "base-uri", "form-action", "'self'", "file:", "'none'")
        }
        assert all(re.findall(r"<script([^>]*)>", text)), page
        assert not re.search(r"<script[^>]*>[^<]|\son\w+=|https?://", text), page
