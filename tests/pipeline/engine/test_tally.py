"""The tally: when a run has failed too much."""

from __future__ import annotations

import pytest
from tokenloom.pipeline.corpus.units import Unit
from tokenloom.pipeline.engine.stream import UnitResult
from tokenloom.pipeline.engine.tally import Tally, TooManyFailuresError


def tally_of(samples: int, failed: int = 0, rejected: int = 0, modalities: tuple[str, ...] = ("depth",)) -> Tally:
    tally = Tally("out", {})
    done = dict.fromkeys(modalities, (samples, failed, 1.0))
    tally.add(UnitResult(Unit("shard-0123456789ab", 0, None, samples), done, 0, rejected, 0))
    return tally


@pytest.mark.parametrize("failed", [1, 12])
def test_a_small_run_is_judged_at_its_end(failed):
    tally = tally_of(12, failed)
    tally.check(0.0)
    with pytest.raises(TooManyFailuresError, match=rf"{failed} of 12 labels failed.*most of them depth"):
        tally.check(0.0, ended=True)


def test_a_large_run_is_stopped_on_the_way():
    tally_of(100, 25).check(0.25)
    with pytest.raises(TooManyFailuresError, match="26 of 100 labels failed"):
        tally_of(100, 26).check(0.25)


def test_what_the_reader_refused_has_failed_in_every_modality():
    tally = tally_of(10, rejected=90, modalities=("depth", "caption"))
    tally.check(0.9, ended=True)
    with pytest.raises(TooManyFailuresError, match=r"180 of 200 labels failed.*samples refused by the corpus reader"):
        tally.check(0.89)


@pytest.mark.parametrize("most", [0.0, 0.25, 1.0])
def test_nothing_failed_is_never_too_much(most):
    tally_of(3).check(most, ended=True)
    Tally("out", {}).check(most, ended=True)
