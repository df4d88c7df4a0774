"""Pages hold no code of the package, and none of their commands is overlooked."""

from __future__ import annotations

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
