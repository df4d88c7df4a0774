"""`check-labeler` and `new-labeler` with plugins that misbehave: what the user sees."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tokenloom.pipeline.cli import main

CHECKS = [
    "declares what it makes",
    "loads",
    "labels",
    "leaves its input alone",
    "is deterministic",
    "doesn't depend on the batch",
]

PLUGIN = '''
import os, signal, sys
import numpy as np
from tokenloom import Labeler, Modality, Vector


class Odd(Labeler):
    """Odd."""

    makes = (Modality("{name}", Vector(1)),)

    def load(self, device):
        {load}

    def label(self, batch):
        labels = [np.ones(1, np.float32) for _ in batch.keys]
        {label}
        return {{"{name}": labels}}
'''


@pytest.fixture
def check(tmp_path: Path, monkeypatch, capfd):
    """Writes a plugin and checks it; the exit code and what was printed, of errors too."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, text: str = "", **parts: str) -> tuple[object, str, str]:
        plugin = text or PLUGIN.format(**{"name": "odd", "load": "pass", "label": "pass", **parts})
        (tmp_path / "odd_plugin.py").write_text(plugin)
        monkeypatch.setattr(sys, "argv", ["tokenloom", *(words or ("check-labeler", "odd_plugin:Odd"))])
        with pytest.raises(SystemExit) as end:
            main()
        printed, errors = capfd.readouterr()
        return end.value.code, printed, errors

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "last"),
    [
        ({"load": "sys.exit(0)"}, "FAILED loads: its process died: it ended itself with exit code 0"),
        ({"label": "os.kill(os.getpid(), signal.SIGSEGV)"}, "FAILED labels: its process died: SIGSEGV"),
        (
            {"label": "labels = iter(labels)"},
            "FAILED labels: Odd.label returned a list_iterator for odd, not a list",
        ),
        ({"label": "len(batch) == 1 and os._exit(3)"}, "FAILED doesn't depend on the batch: its process died: it end"),
        ({"name": "retries"}, "FAILED declares what it makes: 'retries' can't be a modality's name; "),
    ],
)
def test_the_check_that_a_labeler_fails_is_the_last_that_is_told(check, parts, last):
    code, printed, errors = check(**parts)
    header, *passed, failed = printed.splitlines()
    assert (code, header, errors) == (1, "Odd", "")
    assert all(line.startswith("ok     ") for line in passed)
    assert len(passed) == CHECKS.index(last.split(":")[0].removeprefix("FAILED "))
    assert failed.startswith(last)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class Odd(:\n", "importing odd_plugin failed: SyntaxError: invalid syntax (.*odd_plugin.py, line 1)"),
        ("\n1 / 0\n", "importing odd_plugin failed: ZeroDivisionError: division by zero (.*odd_plugin.py, line 2)"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_a_line(check, text, says):
    code, printed, errors = check(text=text)
    assert (code, printed) == (2, "")
    before, after = says.split(".*")
    (line,) = errors.splitlines()
    assert line.startswith(f"tokenloom: odd_plugin:Odd: {before}")
    assert line.endswith(after)


@pytest.mark.slow
def test_a_plugin_that_ends_its_process_when_it_is_imported_is_told(check):
    code, printed, _ = check(text="import os\nos._exit(0)\n")
    assert (code, printed) == (1, "FAILED can be found: its process died: it ended itself with exit code 0\n")


@pytest.mark.parametrize("name", ["rgb", "my-lab", "manifests", "corpus", "json"])
def test_a_name_that_a_new_labeler_cannot_have_is_a_line(check, name):
    code, printed, errors = check("new-labeler", name)
    assert (code, printed, len(errors.splitlines())) == (2, "", 1)
    assert name in errors
