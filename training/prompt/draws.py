"""Drawing what a prompt asks for, several times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ...tokenizers.contract.special_tokens import EOS
from ..forms.forms import Form, Said
from ..generation.chain import generate
from ..generation.draws import SeededDraws
from ..generation.images import Decided
from ..generation.seen import seen
from ..generation.state import TEXT_IDS
from ..generation.texts import Said as SaidTokens
from ..model.fourm import FourM
from .prompt import Prompt

BATCH = 8
"""Draws that are made together."""


@dataclass(frozen=True)
class Answer:
    """What was said of one target. ids: of an image one a place, of a text those before its [EOS]."""

    ids: np.ndarray
    said: Said


@dataclass(frozen=True)
class Step:
    """How far drawing is. draws: that are done. target, step: what is being said of the next ones; so many steps were
    taken. steps: that it takes, of a text at most. tokens: that were said so far, in all."""

    draws: int
    target: str
    step: int
    steps: int
    tokens: int


def on_gpu(model: FourM) -> FourM:
    """The model on this machine's GPU, where it has one."""
    return model.to("cuda") if torch.cuda.is_available() else model


@torch.inference_mode()
def drawn(
    model: FourM, prompt: Prompt, count: int, seed: int, watch: Callable[[Step], None] = lambda step: None
) -> Iterator[dict[str, Answer]]:
    """Of each draw its answers, by target. A draw is what its number, the seed and the prompt make of it, not those
    beside it."""
    given = {name: one.value for name, one in prompt.given.items()}
    progress = _Progress(prompt, watch)
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        progress.begin(first)
        state = generate(
            model,
            seen(model.config, [given] * len(numbers)),
            prompt.chain,
            TEXT_IDS,
            SeededDraws(seed, len(numbers), numbers),
            list(given),
            grow=True,
            watch=progress.hear,
        )
        rows = {name: state.known[name].rows for name in prompt.targets}
        said = {name: form.decode(rows[name]) for name, form in prompt.targets.items()}
        for place in range(len(numbers)):
            yield {
                name: Answer(_ids(form, rows[name][place]), said[name][place]) for name, form in prompt.targets.items()
            }


def _ids(form: Form, row: list[int]) -> np.ndarray:
    ends = form.modality.form == "text" and EOS in row
    return np.array(row[: row.index(EOS)] if ends else row, np.int64)


class _Progress:
    """Counts what generation tells of its steps."""

    def __init__(self, prompt: Prompt, watch: Callable[[Step], None]) -> None:
        chain = [(target, prompt.targets[target.name].modality) for target in prompt.chain]
        self._steps = {
            target.name: target.most if kind.form == "text" else len(target.schedule(kind.length))
            for target, kind in chain
        }
        self._watch, self._tokens = watch, 0
        self.begin(0)

    def begin(self, draws: int) -> None:
        self._draws, self._target, self._step = draws, "", 0

    def hear(self, target: str, step: Decided | SaidTokens) -> None:
        self._step = self._step + 1 if target == self._target else 1
        self._target = target
        self._tokens += int(step.chosen.sum()) if isinstance(step, Decided) else len(step.ids)
        self._watch(Step(self._draws, target, self._step, self._steps[target], self._tokens))
