"""A text's tokens, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ...tokenizers.contract.grammar import Sentence
from ..model.fourm import FourM
from .draws import Draws
from .passes import Guidance, Passes, words
from .sampling import probabilities


@dataclass(frozen=True)
class Said:
    """The next token of each sample. ids: int64 (n,); logits: float32 (n, vocabulary), guided; -inf where the
    grammar has nothing."""

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
    sentences: Sequence[Sentence] = (),
) -> Iterator[Said]:
    """Says token after token behind `starts`, one of each sample, for as long as it is asked. The encoder works once;
    keys and values of what was said are kept. sentences: of each sample, what may be said until it is done."""
    modality = model.config.names.index(name)
    passes = Passes(model, guidance).cached()
    ids, position = torch.tensor(starts), 0
    while True:
        logits = within(passes.logits(words(model, modality, ids.tolist(), position), modality), sentences)
        chances = probabilities(logits, temperature, top_k, top_p).cpu()
        ids = draws.tokens(name, position, chances, torch.full((len(ids), 1), position))[:, 0]
        for sentence, token in zip(sentences, ids[: len(sentences)].tolist(), strict=True):
            if not sentence.done:
                sentence.say(token)
        yield Said(ids, logits[:, 0])
        position += 1


def within(logits: torch.Tensor, sentences: Sequence[Sentence]) -> torch.Tensor:
    """Logits, (n, 1, vocabulary), with -inf for each token that a sample's sentence doesn't allow; as they are where it
    is done, and without sentences."""
    refused = torch.zeros(logits.shape, dtype=torch.bool)
    for row, sentence in enumerate(sentences):
        if not sentence.done:
            refused[row] = True
            refused[row, 0, torch.from_numpy(sentence.allowed())] = False
    return logits.masked_fill(refused.to(logits.device), -torch.inf)


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
