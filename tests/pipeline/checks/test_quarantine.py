"""The quarantine's list: every line, in order, put together for people, harmless on a terminal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_dataset import repair_palette, rewrite_tokens, write_dataset
from tokenloom.pipeline.checks.quarantine import Case, cases, list_failures
from tokenloom.pipeline.cli import app
from tokenloom.pipeline.commands.printable import printable
from tokenloom.pipeline.dataset.layout import ledger_path, stem_of, token_path
from tokenloom.pipeline.dataset.ledger import Failure, digest_of, write_ledger
from tokenloom.pipeline.dataset.manifest import DatasetError
from typer.testing import CliRunner


@pytest.fixture
def small(tmp_path):
    """Two failures from the start: the reader refused a sample of the first unit, and a palette of it failed."""
    return write_dataset(tmp_path)


def ledger_of(modality: str, unit, *failures: tuple[str, str]) -> bytes:
    return write_ledger(Failure(key, modality, reason, "ValueError", unit.name) for key, reason in failures)


def store_ledger(small, modality: str, unit, data: bytes, revision: int = 0) -> str:
    generation = small.manifest.modalities[modality].tokens_generation
    path = ledger_path(modality, generation, stem_of(unit, revision), digest_of(data))
    small.store.create(path, data)
    return path


def add(small, modality: str, unit, *failures: tuple[str, str]) -> str:
    """A ledger, and a shard of tokens that refers to it."""
    data = ledger_of(modality, unit, *failures)
    rewrite_tokens(small, modality, unit, ledger=digest_of(data))
    return store_ledger(small, modality, unit, data)


def test_failures_come_by_unit_then_modality(small):
    first, _, third, _ = sorted(small.units)
    add(small, "dinov2", third, ("c/1", "out of memory"))
    add(small, "caption", third, ("c/1", "no text"), ("c/2", "no text"))
    add(small, "dinov2", first, ("a/1", "out of memory"))
    found = [(failure.unit, failure.modality, failure.key) for failure in list_failures(small.store)]
    assert found == [
        (first.name, "corpus", "broken\x1b[31m.jpg"),
        (first.name, "color_palette", small.keys[first][0]),
        (first.name, "dinov2", "a/1"),
        (third.name, "caption", "c/1"),
        (third.name, "caption", "c/2"),
        (third.name, "dinov2", "c/1"),
    ]
    assert [f.key for f in list_failures(small.store, ["dinov2"])] == ["a/1", "c/1"]
    assert [f.reason for f in list_failures(small.store, ["corpus"])] == ["the JPEG is truncated"]


def test_a_modality_that_is_not_there_is_a_mistake(small):
    with pytest.raises(DatasetError, match="no modality 'depth'; it has caption, "):
        list(list_failures(small.store, ["depth"]))


def test_a_ledger_that_cannot_be_read_is_named(small):
    rewrite_tokens(small, "dinov2", small.units[0], ledger=digest_of(b"{}\n"))
    path = store_ledger(small, "dinov2", small.units[0], b"{}\n")
    with pytest.raises(DatasetError, match=f"{path}: line 1: it can't be read"):
        list(list_failures(small.store))


def test_ledgers_that_no_shard_refers_to_are_not_listed(small):
    """Of a writer that died or was outrun, of a revision that isn't complete, and of a generation that isn't read."""
    before, unit = list(list_failures(small.store)), small.units[1]
    data = ledger_of("dinov2", unit, ("c/1", "out of memory"))
    for revision in (0, 1):
        store_ledger(small, "dinov2", unit, data, revision)
    small.store.create(ledger_path("dinov2", "0" * 16, unit.name, digest_of(data)), data)
    assert list(list_failures(small.store)) == before
    add(small, "dinov2", unit, ("c/1", "out of memory"))
    assert [failure.key for failure in list_failures(small.store, ["dinov2"])] == ["c/1"]


def test_what_succeeded_when_it_was_tried_again_is_not_listed(small):
    unit = small.units[0]
    repair_palette(small, unit)
    assert [failure.modality for failure in list_failures(small.store)] == ["corpus"]
    small.store.delete(
        token_path("color_palette", small.manifest.modalities["color_palette"].tokens_generation, unit, 1)
    )
    assert [failure.modality for failure in list_failures(small.store)] == ["corpus", "color_palette"]


def test_one_case_per_sample_and_reason():
    failures = [
        Failure("a", "depth", "too dark", "ValueError", "u1"),
        Failure("b", "depth", "too dark", "ValueError", "u1"),
        Failure("a", "normal", "too dark", "ValueError", "u1", 1),
        Failure("a", "caption", "no text", "ValueError", "u1"),
        Failure("a", "depth", "too dark", "ValueError", "u2"),
    ]
    assert list(cases(failures)) == [
        Case("a", (("depth", None), ("normal", 1)), "too dark", "ValueError", "u1"),
        Case("b", (("depth", None),), "too dark", "ValueError", "u1"),
        Case("a", (("caption", None),), "no text", "ValueError", "u1"),
        Case("a", (("depth", None),), "too dark", "ValueError", "u2"),
    ]


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "100"})


def test_the_command_prints_keys_whole_and_under_them_what_failed(small):
    long = "photos/" + "of-a-long-name" * 10
    reason = "the model says [bold]no[/bold]\r\n" + "and goes on and on " * 20
    add(small, "dinov2", small.units[3], (long, reason), ("photos/y", reason))
    output = run("quarantine", small.store.url).stdout
    lines = [line.rstrip() for line in output.splitlines()]
    assert lines[0] == r"  broken\x1b[31m.jpg"
    assert lines[1].startswith("    all: refused: ")
    assert lines[3] == "    color_palette (view 1): the palette is empty (ValueError)"
    assert lines[4:6] == [f"  {long}", "  photos/y"]
    assert lines[6].startswith(r"    dinov2: the model says [bold]no[/bold]\r\nand goes on")
    assert output.count("goes") == 20
    assert max(map(len, lines[6:])) <= 100
    assert lines[-1] == "4 cases, 1 sample refused by the corpus reader"


def test_the_command_prints_json(small):
    failures = json.loads(run("quarantine", small.store.url, "--json").stdout)
    assert [Failure(**failure) for failure in failures] == list(list_failures(small.store))
    assert json.loads(run("quarantine", small.store.url, "--modality", "caption", "--json").stdout) == []
    assert run("quarantine", small.store.url, "--modality", "caption").stdout == "nothing is in quarantine\n"


def test_long_lists_are_cut_and_counted(small, monkeypatch):
    from tokenloom.pipeline.commands import dataset as inspect_commands

    monkeypatch.setattr(inspect_commands, "_MOST_CASES", 2)
    add(small, "dinov2", small.units[3], *((f"x/{number}", "too dark") for number in range(10)))
    assert "and 10 more cases; --json lists all" in run("quarantine", small.store.url).stdout


@given(st.text())
def test_printable_text_steers_no_terminal(text):
    shown = printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


def test_printable_escapes():
    assert printable("a\x1b[2J\u202eb\ud800é 日本") == r"a\x1b[2J\u202eb\ud800é 日本"
