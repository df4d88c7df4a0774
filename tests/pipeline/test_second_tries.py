"""What a second try has mended stays so, whatever is kept, made anew or damaged afterwards."""

from __future__ import annotations

import pytest
from in_process import weave
from test_retry import MORE, again, flower_of, grid
from tokenloom.pipeline.checks.quarantine import list_failures
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.storage.store import Store
from weaving import missing, odd, recipe

pytestmark = pytest.mark.slow


def test_what_was_mended_stays_so_in_a_replacement_that_had_been_begun(corpus, tmp_path):
    old, new = (recipe(corpus, tmp_path / "out", grid(tmp_path, size), **MORE) for size in (4, 3))
    weave(old)
    weave(new, ["grid"], limit=6)
    (tmp_path / "now").touch()
    again(tmp_path / "out")
    weave(new)
    assert flower_of(tmp_path / "out") is not None
    assert verify(tmp_path / "out", deep=True).faults == []


def test_what_was_mended_stays_so_where_labels_are_kept_later(corpus, tmp_path):
    weave(recipe(corpus, tmp_path / "out", grid(tmp_path, 4, "tokens"), **MORE))
    (tmp_path / "now").touch()
    again(tmp_path / "out")
    weave(recipe(corpus, tmp_path / "out", grid(tmp_path, 4, "both"), **MORE))
    assert flower_of(tmp_path / "out") is not None
    assert flower_of(tmp_path / "out", labels=True) is not None
    assert verify(tmp_path / "out", deep=True).faults == []


@pytest.mark.parametrize("way", ["kept once", "begun before"])
def test_what_was_mended_stays_so_where_labels_of_the_first_try_lie_there(way, corpus, tmp_path):
    """Be it that they were kept once and are kept again, or that keeping them had been begun before the second try."""
    output, alone = tmp_path / "out", {**MORE, "units": {"samples": 1}}
    both, tokens = (recipe(corpus, output, grid(tmp_path, 4, keep), **alone) for keep in ("both", "tokens"))
    if way == "kept once":
        weave(both)
        weave(tokens, ["grid"])
    else:
        weave(tokens)
        weave(both, limit=5)
    assert flower_of(output) is None
    (tmp_path / "now").touch()
    assert sum(again(output).failed.values()) == 0
    weave(recipe(corpus, output, {**grid(tmp_path, 4, "tokens"), "grid_mean": odd("GridMean")}, **alone))
    weave(both)
    assert flower_of(output) is not None
    assert (missing(output, "grid"), missing(output, "grid_mean")) == (set(), set())
    assert list(list_failures(Store(output))) == []
    assert verify(output, deep=True).faults == []


@pytest.mark.parametrize("keep", ["tokens", "labels", "both"])
def test_a_damaged_second_try_is_made_again_as_verify_says(keep, corpus, tmp_path):
    made = recipe(corpus, tmp_path / "out", grid(tmp_path, 4, keep), **MORE)
    weave(made)
    (tmp_path / "now").touch()
    again(tmp_path / "out")
    shard = next((tmp_path / "out" / "grid").rglob("*-r1.*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    (fault,) = verify(tmp_path / "out").faults
    assert fault.way_out.startswith("delete it and run the recipe again")
    assert "then `tokenloom quarantine DATASET --retry`" in fault.way_out
    shard.unlink()
    weave(made)
    again(tmp_path / "out")
    assert flower_of(tmp_path / "out", labels=keep == "labels") is not None
    assert verify(tmp_path / "out", deep=True).faults == []
