"""A text's tokens, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..model.fourm import FourM
from .draws import Draws
from .passes import Guidance, Passes, words
from .sampling import probabilities


@dataclass(frozen=True)
class Said:
    """The next token of each sample. ids: int64 (n,); logits: float32 (n, vocabulary), guided."""

    ids: torch.Tensor
    logits: torch.Tensor


def text_steps(
    model: FourM,
    guidance: Guidance,
    name: str,
    starts: Sequence[int],
    draws: Draws,
    temperature: float = 1.0,
    top_k: float = 0,
    top_p: float = 0.0,
) -> Iterator[Said]:
    """Says token after token behind `starts`, one of each sample, for as long as it is asked. The encoder works once;
    keys and values of what was said are kept."""
    modality = model.config.names.index(name)
    passes = Passes(model, guidance).cached()
    ids, position = torch.tensor(starts), 0
    while True:
        logits = passes.logits(words(model, modality, ids.tolist(), position), modality)
        chances = probabilities(logits, temperature, top_k, top_p).cpu()
        ids = draws.tokens(name, position, chances, torch.full((len(ids), 1), position))[:, 0]
        yield Said(ids, logits[:, 0])
        position += 1


def said_rows(
    steps: Iterator[Said], starts: Sequence[int], stops: Sequence[int], most: int, done: Sequence[bool]
) -> list[list[int]]:
    """Of each sample its start and what follows, with its stop where that came; at most so many tokens behind the
    start, none for those that are done."""
    rows = [[start] for start in starts]
    left = {row for row, over in enumerate(done) if not over}
    for _ in range(most):
        if not left:
            break
        said = next(steps)
        for row in tuple(left):
            rows[row].append(int(said.ids[row]))
            if rows[row][-1] == stops[row]:
                left.remove(row)
    return rows
