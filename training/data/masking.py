"""Masking by the 4M scheme, a whole batch at a time: which tokens a model sees, and which it is to say.

Mizrahi et al. 2023, arXiv 2312.06647; Bachmann et al. 2024, arXiv 2406.09406; the rules as in ml-4m's masking.py. What
is drawn for a sample is a function of its key alone (see draws).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from .budgets import share_out
from .draws import below, shuffles, stream, uniforms
from .spans import Ragged, keep_tokens, ranges, span_input, span_target

Keep: TypeAlias = Literal["random", "all", "binary"]
Form: TypeAlias = Literal["grid", "pixels", "text", "embeddings"]

NOTHING = -1
"""The id that stands where there is none: a masked position of an image, a masked span of embeddings, a pixel patch."""

IGNORED = -100
"""The label of a position that gives no loss."""

_SCHEME, _INPUTS, _TARGETS, _SIZES, _FIRST_MODALITY = range(5)
"""Streams of a sample's draws; each modality has one of its own behind these."""


@dataclass(frozen=True)
class Scheme:
    """One way to mask, drawn with a probability in proportion to `weight`.

    inputs, targets: alphas of the Dirichlet distributions that share out the tokens. What has 0 gets tokens where a
    sample has none of the others, as in ml-4m; what isn't named never. keep: what share of a text stays in the input,
    before it is cut to its budget: any, all of it, or all or nothing.
    """

    weight: float
    inputs: Mapping[str, float]
    targets: Mapping[str, float]
    keep: Mapping[str, Keep] = field(default_factory=dict)


@dataclass(frozen=True)
class Masked:
    """What a model takes: arrays of n samples by at most so many tokens as their budgets allow, from the left.

    ids: int32; NOTHING where an image's position is to be guessed, or what stands there isn't tokens. modality: int16,
    the place in the batch's modalities; position: int32, in the image's grid or counted in the text; used: bool. labels
    (targets alone): int32, what is to be said at each position, else IGNORED: of an image its id, of a text the next
    token.
    """

    ids: np.ndarray
    modality: np.ndarray
    position: np.ndarray
    used: np.ndarray
    labels: np.ndarray | None = None

    def rows(self, chosen: np.ndarray | slice) -> Masked:
        """Those of some samples."""
        labels = None if self.labels is None else self.labels[chosen]
        return Masked(self.ids[chosen], self.modality[chosen], self.position[chosen], self.used[chosen], labels)


@dataclass(frozen=True)
class Texts:
    """Texts one below the other. ids: int (n, longest); lengths: int (n,), with their [EOS]. chunks: int64 (n,
    longest), the number of the chunk of each token, where parts stay together; else None."""

    ids: np.ndarray
    lengths: np.ndarray
    chunks: np.ndarray | None = None


@dataclass(frozen=True)
class Column:
    """One modality of n samples, whose ids are looked at where they are needed, and nowhere else.

    form: how it is masked; pixels and embeddings are never a target. present: bool (n,). most: as many tokens as one
    sample can have; of grids and pixels, as many as each has.

    at: of grids, the ids at some places of some samples: of int64 (k,) each, rows in rising order. texts: of texts and
    embeddings, those of some samples, int64 (k,) in rising order; of embeddings the lengths alone count.
    as_input, as_target: bool (n,), for which samples it may be one; None: for all.
    """

    name: str
    form: Form
    present: np.ndarray
    most: int
    at: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    texts: Callable[[np.ndarray], Texts] | None = None
    as_input: np.ndarray | None = None
    as_target: np.ndarray | None = None


@dataclass(frozen=True)
class _Part:
    """What one modality gives to one side, as of Masked, row after row. counts: int64 (n,), of each sample."""

    counts: np.ndarray
    ids: np.ndarray | int
    position: np.ndarray
    labels: np.ndarray | int = IGNORED


def mask(
    keys: np.ndarray,
    columns: Sequence[Column],
    schemes: Sequence[Scheme],
    input_tokens: tuple[int, int],
    target_tokens: tuple[int, int],
    sentinel: int,
) -> tuple[Masked, Masked]:
    """The inputs and the targets of n samples.

    keys: uint64 (n,), of `draws.keys_of`. input_tokens, target_tokens: the least and the most tokens of a sample, of
    which each number is equally likely. sentinel: the id of [S_0].
    """
    scheme = _draw_scheme(keys, schemes)
    may_see = _allowed([(column.present, column.as_input) for column in columns])
    may_say = _allowed([(column.present, column.as_target) for column in columns])
    most = np.array([column.most for column in columns])
    is_grid = np.array([column.form in ("grid", "pixels") for column in columns])
    is_target = np.array([column.form in ("grid", "text") for column in columns])
    inputs = share_out(
        stream(keys, _INPUTS),
        np.array([[one.inputs.get(c.name, np.nan) for c in columns] for one in schemes])[scheme],
        may_see,
        _draw_size(stream(keys, _SIZES), input_tokens),
        np.broadcast_to(most, may_see.shape),
    )
    alphas = np.array([[one.targets.get(c.name, np.nan) for c in columns] for one in schemes])[scheme]
    targets = (
        share_out(
            stream(keys, _TARGETS),
            alphas,
            may_say & (is_target | (alphas > 0)),  # what is never a target loses what it gets, as in ml-4m
            _draw_size(stream(keys, _SIZES + (1 << 32)), target_tokens),
            np.where(is_grid, most - inputs, most),
        )
        * is_target
    )
    sides: tuple[list[_Part], list[_Part]] = ([], [])
    for place, column in enumerate(columns):
        own = stream(keys, _FIRST_MODALITY + place)
        budgets = inputs[:, place], targets[:, place]
        if column.form in ("grid", "pixels"):
            parts = _mask_grid(own, column, *budgets)
        else:
            keep = np.array([one.keep.get(column.name, "random") for one in schemes])[scheme]
            parts = _mask_sequence(own, column, *budgets, keep, sentinel)
        for side, part in zip(sides, parts, strict=True):
            side.append(part)
    return _assembled(sides[0], input_tokens[1], False), _assembled(sides[1], target_tokens[1], True)


def _allowed(given: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> np.ndarray:
    return np.stack([present if role is None else present & role for present, role in given], axis=1)


def _draw_scheme(keys: np.ndarray, schemes: Sequence[Scheme]) -> np.ndarray:
    ends = np.cumsum([scheme.weight for scheme in schemes])
    return np.searchsorted(ends, uniforms(stream(keys, _SCHEME), 1)[:, 0] * ends[-1])


def _draw_size(keys: np.ndarray, bounds: tuple[int, int]) -> np.ndarray:
    least, most = bounds
    return least + below(keys, np.full(keys.shape, most - least + 1))


def _mask_grid(keys: np.ndarray, column: Column, inputs: np.ndarray, targets: np.ndarray) -> tuple[_Part, _Part]:
    """Positions drawn without order: first those of the input, then those of the target."""
    rows = np.flatnonzero(inputs + targets > 0)
    order, begin = shuffles(keys[rows], column.most).reshape(-1), np.arange(len(rows)) * column.most
    seen_at = order[ranges(begin, inputs[rows])].astype(np.int64)
    said_at = order[ranges(begin + inputs[rows], targets[rows])].astype(np.int64)
    if column.at is None:
        seen, said = np.full(len(seen_at), NOTHING), said_at
    else:
        everyone = np.arange(len(inputs))
        seen = column.at(np.repeat(everyone, inputs), seen_at)
        said = column.at(np.repeat(everyone, targets), said_at)
    return _Part(inputs, seen, seen_at), _Part(targets, NOTHING, said_at, said)


def _mask_sequence(
    keys: np.ndarray, column: Column, inputs: np.ndarray, targets: np.ndarray, keep: np.ndarray, sentinel: int
) -> tuple[_Part, _Part]:
    """Spans of a text, or of embeddings, of which nothing is said and nothing is a target."""
    assert column.texts is not None
    rows = np.flatnonzero(inputs + targets > 0)
    texts, keys = column.texts(rows), keys[rows]
    ids, lengths, longest = texts.ids, texts.lengths, texts.ids.shape[1]
    drawn = uniforms(stream(keys, 1), 1)[:, 0]
    share = np.select([keep[rows] == "all", keep[rows] == "binary"], [1.0, np.round(drawn)], drawn)
    kept = keep_tokens(stream(keys, 2), texts.chunks, lengths, longest, share, inputs[rows])
    if column.form == "embeddings":
        places = np.broadcast_to(np.arange(longest), ids.shape)
        seen = span_input(places, lengths, kept, 1 << 30, inputs[rows])
        seen = Ragged(np.where(seen.values > 1 << 30, NOTHING, seen.values), seen.counts)
        said = Ragged(seen.values[:0], 0 * seen.counts)
    else:
        seen = span_input(ids, lengths, kept, sentinel, inputs[rows])
        said = span_target(keys, ids, lengths, kept, sentinel, targets[rows])
    return _text_part(rows, seen, len(inputs)), _text_part(rows, said, len(inputs))


def _text_part(rows: np.ndarray, ragged: Ragged, count: int) -> _Part:
    """With positions counted from 0, and the token that follows as each one's label."""
    counts = np.zeros(count, np.int64)
    counts[rows] = ragged.counts
    ends = np.cumsum(ragged.counts)
    position = ranges(0 * ends, ragged.counts)
    labels = np.append(ragged.values[1:], IGNORED)
    labels[ends[ragged.counts > 0] - 1] = IGNORED
    return _Part(counts, ragged.values, position, labels[: len(ragged.values)])


def _assembled(parts: Sequence[_Part], longest: int, targets: bool) -> Masked:
    """The modalities of each sample one behind the other."""
    counts = np.stack([part.counts for part in parts], axis=1)
    shape = (len(counts), longest)
    used = np.arange(longest) < counts.sum(axis=1)[:, None]
    made = Masked(
        ids=np.full(shape, NOTHING, np.int32),
        modality=np.full(shape, -1, np.int16),
        position=np.zeros(shape, np.int32),
        used=used,
        labels=np.full(shape, IGNORED, np.int32) if targets else None,
    )
    which = np.broadcast_to(np.arange(len(parts), dtype=np.int16), counts.shape)
    made.modality[used] = np.repeat(which.ravel(), counts.ravel())
    starts = np.cumsum(counts, axis=1) - counts + np.arange(len(counts))[:, None] * longest
    for place, part in enumerate(parts):
        slot = ranges(starts[:, place], part.counts)
        made.ids.reshape(-1)[slot], made.position.reshape(-1)[slot] = part.ids, part.position
        if made.labels is not None:
            made.labels.reshape(-1)[slot] = part.labels
    return made
