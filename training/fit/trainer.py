"""The trainer: a network on its way, step by step, in one process or as one of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ...tokenizers.fitting.schedule import step_seed
from ..data.train_settings import TrainSettings
from ..model.fourm import FourM
from ..model.losses import loss_weights
from ..model.tokens import Sides
from .distribute import prepare, sends_gradients, shared_out
from .figures import Figures, Speed
from .guard import PATIENCE, Guard
from .schedule import Schedule
from .suspects import sample_losses, suspects

WEIGHTS = "weights/"
_MOMENTS = ("exp_avg", "exp_avg_sq")


class DivergedError(ValueError):
    """Training that can't go on, since step after step had to be left out; the message is a report. figures: of the
    last of these steps."""

    def __init__(self, figures: Figures, schedule: Schedule) -> None:
        super().__init__(_report(figures, schedule))
        self.figures = figures


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is, and where it computes."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class Trainer:
    """network: trained in place; in several processes, the same in all of them. modalities: what a batch's numbers of
    modalities stand for. name: tells the sample at a position. step_flops: of a step of all processes together, for the
    share that they use of `peak` operations a second; None where that isn't known.

    State is all that the next step depends on beside the batch; noise, where a network has any, is drawn from the
    seed and the step.
    """

    def __init__(
        self,
        network: FourM,
        modalities: Sequence[str],
        settings: TrainSettings,
        schedule: Schedule,
        place: Place | None = None,
        name: Callable[[int], str] = "position {}".format,
        step_flops: float = 0.0,
        peak: float | None = None,
    ) -> None:
        self.step = 0
        self._place, self._settings, self._schedule = place or Place(), settings, schedule
        self._half = _is_half(settings, self._place.device)
        self.network = prepare(
            network, self._place.device, self._place.world, self._half, settings.checkpointing, settings.compile
        ).train()
        self._modalities, self._name = modalities, name
        self._optimizer = adamw(self.network, settings)
        self._guard = Guard(settings.spike)
        self._speed, self._step_flops, self._peak = Speed(), step_flops, peak

    def advance(self, batch: Mapping[str, Any], stop: bool = False) -> tuple[Figures, bool]:
        """One step on this process' part of a batch; its figures, and whether any process was asked to stop.

        Raises DivergedError after PATIENCE steps in a row that had to be left out.
        """
        rate = self._schedule.rate(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(step_seed(self._settings.seed, self.step, self._place.rank))
        parts = [self._sides(batch, part) for part in self._parts(batch)]
        counts, used, stop = self._agreed(parts, stop)
        sums = self._backward(parts, counts)
        weights = loss_weights(self.network.config, counts, self._settings.loss)
        loss = float(weights @ sums)
        norm = self._norm()
        blamed: Sequence[str] = ()
        if left_out := self._guard.look(loss, norm):
            blamed = self._suspects(batch)
        else:
            self._take(norm)
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        figures = replace(self._figures(rate, loss, sums, counts, norm, used), left_out=left_out, suspects=blamed)
        if self._guard.in_a_row >= PATIENCE:
            raise DivergedError(figures, self._schedule)
        return figures, stop

    def state(self) -> dict[str, Tensor]:
        """By name, the tensors themselves: weights, the optimiser's moments, and the guard's numbers."""
        state: dict[str, Tensor] = {"guard": self._guard.state()}
        for name, weight in self.network.named_parameters():
            state[f"{WEIGHTS}{name}"] = weight
            state |= {f"{moment}/{name}": value for moment, value in self._moments(weight).items()}
        return state

    def restore(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Goes on behind `step` steps. state: what `state` gave, whose tensors were filled meanwhile."""
        self.step = step
        self._guard.restore(state["guard"])
        for weight in self.network.parameters():
            self._optimizer.state[weight]["step"].fill_(self._guard.taken)

    def _moments(self, weight: nn.Parameter) -> dict[str, Tensor]:
        own = self._optimizer.state[weight]
        if not own:  # as AdamW begins
            own["step"] = torch.zeros((), device=weight.device)
            own |= {moment: torch.zeros_like(weight) for moment in _MOMENTS}
        return {moment: own[moment] for moment in _MOMENTS}

    def _sides(self, batch: Mapping[str, Any], rows: slice) -> Sides:
        return Sides.of(self.network.config, rows_of(batch, rows), self._modalities)

    def _parts(self, batch: Mapping[str, Any]) -> list[slice]:
        size = len(batch["positions"]) // self._settings.accumulation
        return [slice(size * part, size * (part + 1)) for part in range(self._settings.accumulation)]

    def _agreed(self, parts: Sequence[Sides], stop: bool) -> tuple[list[int], int, bool]:
        """Of all processes together: how many tokens each target modality is to say, how many tokens there are, and
        whether one wants to stop."""
        said = [part.labels.said(self.network.config) for part in parts]
        used = sum(sum(part.inputs.counts) + sum(part.targets.counts) for part in parts)
        told = torch.tensor([*map(sum, zip(*said, strict=True)), used, stop])
        if self._place.world > 1:
            dist.all_reduce(told)
        *counts, used, stopping = told.tolist()
        return counts, used, bool(stopping)

    def _backward(self, parts: Sequence[Sides], counts: Sequence[int]) -> Tensor:
        """Gradients of the step's loss. Returns each target modality's sum of cross-entropies, of all processes."""
        device, world = self._place.device, self._place.world
        # Gradients are averaged over processes, and the loss is the sum of what each of them has.
        weights = (loss_weights(self.network.config, counts, self._settings.loss) * world).to(device)
        sums = torch.zeros(len(counts), device=device)
        for number, part in enumerate(parts):
            sends_gradients(self.network, number == len(parts) - 1)
            own = self._forward(part)
            (own * weights).sum().backward()
            sums += own.detach()
        if world > 1:
            dist.all_reduce(sums)
        return sums.cpu()

    def _forward(self, part: Sides) -> Tensor:
        with torch.autocast(self._place.device.type, torch.bfloat16, enabled=self._half):
            return self.network(part.to(self._place.device))

    def _norm(self) -> float:
        grads = [weight.grad for weight in self.network.parameters() if weight.grad is not None]
        norm = nn.utils.get_total_norm(grads)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def _suspects(self, batch: Mapping[str, Any]) -> Sequence[str]:
        def forward(one: Mapping[str, Any]) -> tuple[Tensor, Sequence[int]]:
            sides = self._sides(one, slice(None))
            return self._forward(sides), sides.labels.said(self.network.config)

        found = sample_losses(forward, batch, self._place.world)
        shared_out(self.network)
        return suspects(*found, [one.name for one in self.network.config.targets], self._name)

    def _take(self, norm: float) -> None:
        if self._settings.clip:
            total = torch.tensor(norm, device=self._place.device)
            nn.utils.clip_grads_with_norm_(self.network.parameters(), self._settings.clip, total)
        self._optimizer.step()

    def _figures(
        self, rate: float, loss: float, sums: Tensor, counts: Sequence[int], norm: float, used: int
    ) -> Figures:
        means = [total / count if count else None for total, count in zip(sums.tolist(), counts, strict=True)]
        names = [one.name for one in self.network.config.targets]
        tokens = self._schedule.step_tokens
        speed = self._speed.after(tokens)
        mfu = self._step_flops * speed / tokens / self._peak / self._place.world if self._peak else None
        losses = dict(zip(names, means, strict=True))
        return Figures(self.step, round(self.step * tokens), rate, loss, losses, norm, used, speed, mfu)


def adamw(network: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101); what decays are the weights of linear layers and tables of tokens, as in 4M."""
    decaying = {id(module.weight) for module in network.modules() if isinstance(module, nn.Linear | nn.Embedding)}
    weights = list(network.parameters())
    groups = [
        {"params": [one for one in weights if id(one) in decaying], "weight_decay": settings.weight_decay},
        {"params": [one for one in weights if id(one) not in decaying], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=settings.betas, fused=True)


def rows_of(batch: Mapping[str, Any], rows: slice) -> dict[str, Any]:
    """Some samples of a batch of the loader."""
    return {name: one[rows] if isinstance(one, Tensor) else rows_of(one, rows) for name, one in batch.items()}


def _is_half(settings: TrainSettings, device: torch.device) -> bool:
    if settings.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return settings.precision == "bfloat16"


def _report(figures: Figures, schedule: Schedule) -> str:
    return (
        f"training stopped at step {figures.step:,} of {schedule.steps:,}, after {PATIENCE} steps in a row that had to "
        f"be left out; of the last {figures.left_out}, at the learning rate {figures.learning_rate:.2g}; suspected: "
        f"{'; '.join(figures.suspects)}. What was saved before is good: go on from there, into another output, by "
        f"model.start, with a smaller base_learning_rate, a longer warm-up, a smaller clip, or precision: float32"
    )
