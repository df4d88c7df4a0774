"""What is known of n samples while a model generates: of each modality some tokens, of texts also their gaps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from ...tokenizers.contract.special_tokens import FIRST_SENTINEL, SENTINELS
from ..data.masking import NOTHING
from ..model.config import ModelConfig
from ..model.tokens import Tokens


@dataclass(frozen=True)
class TextIds:
    """Control tokens of the text vocabulary. sentinels: each stands for a gap, [S_0] first; gaps count from [S_1]."""

    sentinels: range

    @property
    def start(self) -> int:
        """What stands for a text of which nothing is known."""
        return self.sentinels[1]

    def ends(self, given: Sequence[int]) -> tuple[int, int] | None:
        """With what the filling of a text begins, its first gap, and what comes behind the last token of its last one.
        None: it has no gap."""
        gaps = [one for one in given if one in self.sentinels]
        return (gaps[0], gaps[-1] + 1) if gaps else None


TEXT_IDS = TextIds(range(FIRST_SENTINEL, FIRST_SENTINEL + SENTINELS))
"""Of every vocabulary that tokenloom makes or takes."""


@dataclass(frozen=True)
class Known:
    """What is known of one modality. ids: int64 (n, places): of images as many as the grid has, of texts and embeddings
    as many as the longest; NOTHING for pixels, and for embeddings that aren't there. used: bool (n, places)."""

    ids: torch.Tensor
    used: torch.Tensor

    @classmethod
    def nothing(cls, samples: int, places: int) -> Known:
        return cls(torch.full((samples, places), NOTHING), torch.zeros(samples, places, dtype=torch.bool))

    @classmethod
    def texts(cls, rows: Sequence[Sequence[int]]) -> Known:
        """Of lists of ids."""
        known = cls.nothing(len(rows), max(map(len, rows), default=0))
        for row, ids in enumerate(rows):
            known.ids[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
            known.used[row, : len(ids)] = True
        return known

    @property
    def rows(self) -> list[list[int]]:
        """The ids that are there, sample by sample."""
        return [ids[used].tolist() for ids, used in zip(self.ids, self.used, strict=True)]

    def written(self, places: torch.Tensor, ids: torch.Tensor) -> Known:
        """With `ids`, (n, places), where `places`, bool, is true."""
        return Known(torch.where(places, ids, self.ids), self.used | places)


@dataclass(frozen=True)
class State:
    """known: by modality; what isn't named isn't known. arrays: pixels and embeddings, as the model takes them."""

    samples: int
    known: Mapping[str, Known]
    arrays: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def having(self, name: str, known: Known) -> State:
        return replace(self, known={**self.known, name: known})

    def only(self, names: Collection[str]) -> State:
        return replace(self, known={name: one for name, one in self.known.items() if name in names})

    def without(self, config: ModelConfig, names: Iterable[str], text: TextIds) -> State:
        """As if these conditions weren't known: no token of images, of texts the sentinel for all of it, of embeddings
        a vector of zeros; as training shows what it hides."""
        known = dict(self.known)
        forms = {one.name: one.form for one in config.modalities}
        for name in names:
            if name not in known:
                continue
            if forms[name] == "text":
                known[name] = Known.texts([[text.start]] * self.samples)
            elif forms[name] == "embeddings":
                known[name] = Known.texts([[NOTHING]] * self.samples)
            else:
                known[name] = Known.nothing(self.samples, known[name].ids.shape[1])
        return replace(self, known=known)

    def inputs(self, config: ModelConfig) -> Tokens:
        """All that is known, from the left, as the encoder takes it; at least one place."""
        parts = [
            (known, place, config.modalities[place].form in ("text", "embeddings"))
            for place, name in enumerate(config.names)
            if (known := self.known.get(name)) is not None and config.modalities[place].is_input
        ]
        empty = torch.zeros(self.samples, 0, dtype=torch.int64)
        ids = torch.cat([empty, *(known.ids for known, _, _ in parts)], dim=1)
        used = torch.cat([empty.bool(), *(known.used for known, _, _ in parts)], dim=1)
        number = torch.cat([empty, *(torch.full_like(known.ids, place) for known, place, _ in parts)], dim=1)
        position = torch.cat([empty, *(_positions(known, counted) for known, _, counted in parts)], dim=1)
        return packed(config, ids, position, torch.where(used, number, -1))


def packed(config: ModelConfig, ids: torch.Tensor, position: torch.Tensor, modality: torch.Tensor) -> Tokens:
    """The places that are used, moved to the left, and no more of them than the fullest row has. All (n, l)."""
    used = modality >= 0
    most = max(int(used.sum(dim=1).max()) if used.numel() else 0, 1)
    if ids.shape[1] < most:
        ids, position, modality = (torch.nn.functional.pad(one, (0, 1), value=-1) for one in (ids, position, modality))
        used = modality >= 0
    order = torch.argsort(~used, dim=1, stable=True)[:, :most]
    return Tokens.of(config, *(one.gather(1, order) for one in (ids, position.clamp(min=0), modality)))


def _positions(known: Known, counted: bool) -> torch.Tensor:
    """Of texts how many come before, of images the place in the grid."""
    if counted:
        return (known.used.cumsum(dim=1) - 1).clamp(min=0)
    return torch.arange(known.ids.shape[1]).expand(known.ids.shape)


def merged(given: Sequence[int], said: Sequence[int], text: TextIds) -> list[int]:
    """A text with its gaps filled. given: the ids of the input, with sentinels. said: sentinels, each with what it
    stands for behind it; twice the same, one behind the other. Nothing is left of a sentinel that says nothing, nor of
    what is said for one that isn't in `given`."""
    filled, own = dict[int, list[int]](), list[int]()
    for one in said:
        if one in text.sentinels:
            own = filled.setdefault(one, [])
        else:
            own.append(one)
    return [each for one in given for each in (filled.get(one, []) if one in text.sentinels else [one])]
