"""The tally: when a run has failed too much."""

from __future__ import annotations

import pytest
from tokenloom.pipeline.corpus.units import Unit
from tokenloom.pipeline.dataset.standing import LabelCount
from tokenloom.pipeline.engine.stream import UnitResult
from tokenloom.pipeline.engine.tally import Tally, TooManyFailuresError, judge


def tally_of(samples: int, failed: int = 0, rejected: int = 0, modalities: tuple[str, ...] = ("depth",)) -> Tally:
    tally = Tally("out", {})
    done = dict.fromkeys(modalities, (samples, failed))
    tally.add(UnitResult(Unit("shard-0123456789ab", 0, None, samples), done, 0, rejected, 0))
    return tally


@pytest.mark.parametrize("failed", [1, 12])
def test_a_small_run_is_judged_at_its_end(failed):
    tally_of(12, failed).check(0.0, views=1)
    with pytest.raises(TooManyFailuresError, match=rf"{failed} of 12 labels failed.*most of them depth"):
        judge({"depth": LabelCount(12, failed, 0)}, 0.0, "out")


@pytest.mark.parametrize("failed", [26, 100])
def test_what_one_modality_lacks_others_do_not_make_good(failed):
    others = {name: LabelCount(100, 0, 0) for name in "abcdefgh"}
    judge({**others, "depth": LabelCount(100, 25, 0)}, 0.25, "out")
    with pytest.raises(TooManyFailuresError, match=rf"{failed} of 100 labels of depth failed, .* of them depth;"):
        judge({**others, "depth": LabelCount(100, failed, 0)}, 0.25, "out")


def test_a_large_run_is_stopped_on_the_way():
    tally_of(100, 25).check(0.25, views=1)
    with pytest.raises(TooManyFailuresError, match="26 of 100 labels failed"):
        tally_of(100, 26).check(0.25, views=1)


def test_what_the_reader_refused_has_failed_in_every_modality():
    tally = tally_of(10, rejected=90, modalities=("depth", "caption"))
    tally.check(0.9, views=1)
    with pytest.raises(TooManyFailuresError, match=r"180 of 200 labels failed.*what the corpus reader refused"):
        tally.check(0.89, views=1)


@pytest.mark.parametrize("views", [2, 5])
def test_a_sample_that_was_refused_has_failed_for_each_of_its_views(views):
    tally = tally_of(60 * views, rejected=60)
    tally.check(0.5, views)
    with pytest.raises(TooManyFailuresError, match=rf"{60 * views} of {120 * views} labels failed"):
        tally.check(0.49, views)


@pytest.mark.parametrize("most", [0.0, 0.25, 1.0])
def test_nothing_failed_is_never_too_much(most):
    tally_of(300).check(most, views=1)
    judge({"depth": LabelCount(3, 0, 0)}, most, "out")
    judge({}, most, "out")
