"""Masking: what holds for every draw, and the distributions of ml-4m's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.tokenizers.contract.special_tokens import SENTINELS
from tokenloom.training.data.budgets import share_out
from tokenloom.training.data.draws import keys_of
from tokenloom.training.data.masking import IGNORED, NOTHING, Column, Masked, Scheme, Texts, mask
from tokenloom.training.data.spans import Ragged, keep_tokens, span_input, span_target

GOLDEN = Path(__file__).parents[3] / "../shared/golden/masking_stats.json"
SENTINEL = 4


def rows_of(ragged: Ragged) -> list[list[int]]:
    return [part.tolist() for part in np.split(ragged.values, np.cumsum(ragged.counts)[:-1])]


# --- budgets ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.lists(st.sampled_from([np.nan, 0, 0.01, 1, 1000]), min_size=1, max_size=6), st.data())
def test_all_tokens_are_shared_out_among_what_is_there(seed: int, alphas: list[float], data: st.DataObject):
    there = np.array(data.draw(st.lists(st.booleans(), min_size=len(alphas), max_size=len(alphas))))
    total = data.draw(st.integers(0, 300))
    counts = share_out(
        keys_of(seed, np.arange(1)), np.array([alphas]), there[None], np.array([total]), np.full((1, len(alphas)), 999)
    )[0]
    there &= ~np.isnan(alphas)
    assert counts.sum() == (total if there.any() else 0)
    assert (counts >= 0).all()
    assert not counts[~there].any()
    some = there & (np.array(alphas) > 0)
    if some.any():
        assert not counts[~some].any()


def test_what_a_modality_cannot_hold_is_lost():
    given_out = share_out(
        keys_of(0, np.arange(100)),
        np.full((100, 2), 1.0),
        np.full((100, 2), True),
        np.full(100, 50),
        np.full((100, 2), 10),
    )
    assert given_out.max() == 10
    assert given_out.sum(axis=1).max() <= 20


# --- spans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("longest", "budget"), [(1025, 512), (1025, 1024), (600, 599), (397, 397)])
def test_there_are_sentinels_enough_for_any_text(longest: int, budget: int):
    keys, each = keys_of(0, np.arange(60)), np.ones(60, int)
    ids, share = np.full((60, longest), 900), np.random.default_rng(0).random(60)
    kept = keep_tokens(keys, None, longest * each, longest, share, budget * each)
    for text in (
        span_input(ids, longest * each, kept, SENTINEL, budget * each),
        span_target(keys, ids, longest * each, kept, SENTINEL, 9999 * each),
    ):
        sentinels = text.values[text.values < 900]
        assert sentinels.max() < SENTINEL + SENTINELS
        assert (sentinels > SENTINEL).all()


def put_together(shown: list[int], said: list[int], known: int) -> list[int]:
    """The text of which a model saw the one and said the other."""
    runs: dict[int, list[int]] = {}
    for token in said:
        if token < known:
            runs[token] = []
        else:
            runs[next(reversed(runs))].append(token)
    return [token for seen in shown for token in (runs[seen] if seen < known else [seen])]


@pytest.mark.slow
@given(st.integers(0, 10**6), st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 60), st.data())
def test_input_and_target_are_the_text(seed: int, lengths: list[int], budget: int, data: st.DataObject):
    count, longest = len(lengths), max(lengths)
    ids = np.random.default_rng(seed).integers(500, 900, (count, longest))
    keys, long = keys_of(seed, np.arange(count)), np.array(lengths)
    share = np.array(data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count)))
    budgets = np.full(count, budget)
    width = data.draw(st.integers(1, 3))
    chunks = np.broadcast_to(np.arange(longest) // width, ids.shape)
    kept = keep_tokens(keys, chunks, long, longest, share, budgets)
    shown = rows_of(span_input(ids, long, kept, SENTINEL, budgets))
    said = rows_of(span_target(keys, ids, long, kept, SENTINEL, np.full(count, 999)))
    for row in range(count):
        assert len(shown[row]) <= budget
        assert put_together(shown[row], said[row], 500) == ids[row, : long[row]].tolist()
        runs = [token for token in said[row] if token < 500]
        assert runs == list(range(SENTINEL + 1, SENTINEL + 1 + len(runs)))
        assert said[row][-1] == runs[-1]
        for chunk in range(-(-int(long[row]) // width)):
            assert len(set(kept[row, chunk * width : min((chunk + 1) * width, long[row])].tolist())) == 1


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(0, 30), st.floats(0, 1))
def test_a_target_that_is_too_long_is_a_part_that_begins_with_a_sentinel(
    seed: int, length: int, budget: int, share: float
):
    ids, keys, long = np.arange(500, 500 + length)[None], keys_of(seed, np.arange(1)), np.array([length])
    kept = keep_tokens(keys, None, long, length, np.array([share]), np.array([length]))
    (whole,) = rows_of(span_target(keys, ids, long, kept, SENTINEL, np.array([999])))
    (part,) = rows_of(span_target(keys, ids, long, kept, SENTINEL, np.array([budget])))
    assert len(part) == min(budget, len(whole)) or (part and len(part) < budget)
    if not part:
        return
    start = whole.index(part[0])
    assert whole[start : start + len(part)] == part
    assert part[0] < 500
    if len(part) < budget < len(whole):  # the first sentinel whose tail fits
        assert start + len(part) == len(whole)
        earlier = [at for at in range(start) if whole[at] < 500]
        assert all(len(whole) - at > budget for at in earlier)


def test_nothing_stays_of_a_text_without_a_budget():
    ids, keys, long = np.arange(500, 505)[None], keys_of(0, np.arange(1)), np.array([5])
    kept = keep_tokens(keys, None, long, 5, np.array([1.0]), np.array([0]))
    assert rows_of(span_input(ids, long, kept, SENTINEL, np.array([0]))) == [[]]
    assert rows_of(span_target(keys, ids, long, kept, SENTINEL, np.array([99]))) == [[5, 500, 501, 502, 503, 504, 6]]


# --- whole batches ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """A modality of n samples, all of it. ids: int32 (n, longest); lengths: int (n,); chunks: as of Texts."""

    name: str
    form: Any
    present: np.ndarray
    ids: np.ndarray
    lengths: np.ndarray
    chunks: np.ndarray | None = None

    def column(self) -> Column:
        is_grid, is_text = self.form == "grid", self.form in ("text", "embeddings")
        return Column(
            self.name,
            self.form,
            self.present,
            self.ids.shape[1],
            at=(lambda rows, places: self.ids[rows, places]) if is_grid else None,
            texts=self.texts if is_text else None,
        )

    def texts(self, rows: np.ndarray) -> Texts:
        return Texts(self.ids[rows], self.lengths[rows], None if self.chunks is None else self.chunks[rows])

    def some(self, rows: np.ndarray) -> Held:
        chunks = None if self.chunks is None else self.chunks[rows]
        return replace(self, present=self.present[rows], ids=self.ids[rows], lengths=self.lengths[rows], chunks=chunks)


def columns_of(held: list[Held]) -> list[Column]:
    return [one.column() for one in held]


def a_batch(seed: int, count: int) -> tuple[np.ndarray, list[Held]]:
    rng = np.random.default_rng(seed)

    def held(name: str, form: Any, length: int, chunks: np.ndarray | None = None) -> Held:
        there = rng.random(count) < 0.7
        lengths = np.full(count, length) if form in ("grid", "pixels") else rng.integers(1, length + 1, count)
        ids = rng.integers(1000, 2000, (count, length)).astype(np.int32)
        return Held(name, form, there, ids, lengths, chunks)

    columns = [
        held("rgb", "pixels", 9),
        held("depth", "grid", 16),
        held("caption", "text", 12),
        held("metadata", "text", 8, np.broadcast_to(np.arange(8) // 2, (count, 8))),
        held("t5", "embeddings", 7),
    ]
    return keys_of(seed, np.arange(count)), columns


ALL = Scheme(1, dict.fromkeys(("rgb", "depth", "caption", "metadata", "t5"), 1.0), {"depth": 1.0, "caption": 1.0})
SOME = Scheme(2, {"rgb": 10.0, "t5": 0.1}, {"metadata": 0.5, "depth": 0.5}, {"caption": "all", "metadata": "binary"})


def said_of(columns: list[Held], inputs: Masked, targets: Masked) -> Iterator[tuple[int, int, list[Any], list[Any]]]:
    for place in range(len(columns)):
        for row in range(len(inputs.ids)):
            sides = []
            for side in (inputs, targets):
                here = side.used[row] & (side.modality[row] == place)
                labels = side.labels[row][here] if side.labels is not None else []
                sides.append([side.ids[row][here], side.position[row][here], labels])
            yield place, row, *sides


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 40), st.integers(0, 40))
def test_batches_hold_what_samples_have(seed: int, count: int, most_in: int, most_out: int):
    keys, columns = a_batch(seed, count)
    inputs, targets = mask(keys, columns_of(columns), [ALL, SOME], (0, most_in), (most_out, most_out), SENTINEL)
    assert inputs.ids.shape == (count, most_in)
    assert targets.ids.shape == (count, most_out)
    for side in (inputs, targets):
        assert (side.used == (side.modality >= 0)).all()
        assert (np.diff(side.used.astype(int), axis=1) <= 0).all()  # from the left
    for place, row, (ids, position, _), (guessed, asked, labels) in said_of(columns, inputs, targets):
        column = columns[place]
        if not column.present[row]:
            assert len(ids) == len(guessed) == 0
        elif column.form == "grid":
            assert ids.tolist() == column.ids[row, position].tolist()
            assert labels.tolist() == column.ids[row, asked].tolist()
            assert set(guessed.tolist()) <= {NOTHING}
            assert len({*position.tolist(), *asked.tolist()}) == len(ids) + len(guessed)
        elif column.form == "text":
            assert position.tolist() == list(range(len(ids)))
            assert labels.tolist() == [*guessed.tolist()[1:], IGNORED][: len(guessed)]
            assert set(ids[ids >= 1000].tolist()) <= set(column.ids[row, : column.lengths[row]].tolist())
        else:
            assert len(guessed) == 0
            shown = ids[ids != NOTHING].tolist()
            assert shown == sorted(set(shown))
            assert all(at < column.lengths[row] for at in shown)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([ALL, SOME]))
def test_what_a_scheme_does_not_name_gets_nothing_whatever_a_sample_lacks(seed: int, scheme: Scheme):
    keys, columns = a_batch(seed, 30)
    for named, side in zip(
        (scheme.inputs, scheme.targets), mask(keys, columns_of(columns), [scheme], (9, 9), (9, 9), 4), strict=True
    ):
        assert {columns[place].name for place in side.modality[side.used]} <= named.keys()


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 10), st.data())
def test_a_sample_is_masked_alike_in_any_batch(seed: int, count: int, data: st.DataObject):
    keys, columns = a_batch(seed, count)
    chosen = np.array(data.draw(st.permutations(range(count))))[: data.draw(st.integers(1, count))]

    some = [one.some(chosen) for one in columns]
    whole = mask(keys, columns_of(columns), [ALL, SOME], (5, 20), (20, 20), SENTINEL)
    parts = mask(keys[chosen], columns_of(some), [ALL, SOME], (5, 20), (20, 20), SENTINEL)
    for one, other in zip(whole, parts, strict=True):
        for name in ("ids", "modality", "position", "used", "labels"):
            if getattr(one, name) is not None:
                np.testing.assert_array_equal(getattr(one, name)[chosen], getattr(other, name))


# --- ml-4m's distributions --------------------------------------------------------------------------------------------


def golden_columns(golden: dict[str, Any], count: int) -> Iterator[Held]:
    """The one sample of which the reference masking was drawn, over and over."""
    for name in golden["modality_order"]:
        facts = golden["modalities"][name]
        most, there = facts["max_tokens"], np.ones(count, bool)
        length = facts["sample_length_without_eos"] or most
        form: Any = {"seq": "text", "seq_emb": "embeddings"}.get(facts["type"], "grid" if "tok" in name else "pixels")
        if form == "text":
            length = min(length + 1, most)
        ids = np.broadcast_to(np.arange(1000, 1000 + length, dtype=np.int32), (count, length))
        pairs = np.broadcast_to(np.arange(length) // 2, ids.shape) if name == "metadata" else None
        yield Held(name, form, there, ids, np.full(count, length), pairs)


@pytest.mark.slow
@pytest.mark.skipif(not GOLDEN.exists(), reason="../shared/golden isn't here")
def test_distributions_are_those_of_the_reference():
    """Counts of tokens by modality and scheme against 4,000 draws of ml-4m's masking: means and shares of zeros."""
    golden, count = json.loads(GOLDEN.read_text()), 8000
    facts, weights = golden["modalities"], golden["sampling_weights"]
    schemes = [
        Scheme(
            weight,
            {name: one["input_alphas"][place] for name, one in facts.items()},
            {name: one["target_alphas"][place] for name, one in facts.items()},
            {name: one["keep"][place] for name, one in facts.items() if one["keep"]},
        )
        for place, weight in enumerate(weights)
    ]
    columns, keys, scores = list(golden_columns(golden, count)), keys_of(5, np.arange(count)), {}
    both = (golden["num_input_tokens"],) * 2, (golden["num_target_tokens"],) * 2
    drawn = [("overall", np.arange(count), schemes, golden["overall"], golden["draws"])]
    for place, scheme in enumerate(schemes):
        told = golden["per_scheme"][str(place)]
        drawn.append((f"scheme {place}", keys_of(place, np.arange(1500)), [scheme], told["modalities"], told["draws"]))
    for what, chosen, those, expected, number in drawn:
        these = keys if what == "overall" else chosen
        inputs, targets = mask(
            these,
            [replace(one.some(np.arange(len(these))).column(), most=facts[one.name]["max_tokens"]) for one in columns],
            those,
            *both,
            SENTINEL,
        )
        assert targets.labels is not None
        for place, name in enumerate(golden["modality_order"]):
            counts = {
                "input": (inputs.modality == place).sum(axis=1),
                "target": (targets.modality == place).sum(axis=1),
                "predicted": ((targets.modality == place) & (targets.labels != IGNORED)).sum(axis=1),
            }
            for side, told in expected[name].items():
                if side in counts:
                    scores[what, name, side] = worst_score(counts[side], told, number)
    assert len(scores) > 300
    assert {place: score for place, score in scores.items() if score >= 4.5} == {}


def worst_score(counts: np.ndarray, told: dict[str, float], number: int) -> float:
    """The larger z of two: of the means, and of the shares of zeros."""
    count, zeros = len(counts), float((counts == 0).mean())
    mean = (counts.mean() - told["mean"]) / np.sqrt(counts.var() / count + told["var"] / number + 1e-12)
    pooled = (zeros * count + told["p_zero"] * number) / (count + number)
    share = (zeros - told["p_zero"]) / np.sqrt(pooled * (1 - pooled) * (1 / count + 1 / number) + 1e-12)
    return max(abs(mean), abs(share))
