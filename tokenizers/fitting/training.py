"""Training of a tokenizer's network, step by step, so that it can stop anywhere and go on bit by bit the same.

Which batch a step takes and which random numbers it draws depends on (seed, step, rank) alone; all else is in `state`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..measures.code_usage import UsageWindow
from .figures import Figures, Speed
from .losses import loss as loss_of
from .schedule import Batches, average_decay, learning_rate, step_seed
from .settings import FitSettings

if TYPE_CHECKING:
    from ..networks.vq_network import VQ, VQOutput
    from .perceptual import PerceptualLoss

_PATIENCE = 5
"""Steps in a row that may have to be skipped before training stops."""

_BETAS = (0.9, 0.99)


class DivergedError(ValueError):
    """Training that can't go on, since losses or gradients aren't finite any more; the message is a report."""


class Training:
    """A network on its way.

    network: trained in place; on `device` from here on. objective: a name of `losses`. examples: (n, ...), an array or
    memmap; to_batch: makes the network's input of some of them. rank, world: which worker of how many this is; all must
    be given the same examples. distribute: what wraps the network so that all workers share their gradients.
    perceptual: the loss of `settings.perceptual`, on `device`; it isn't part of the state, since it doesn't change.

    Weights are averaged over the steps (`FitSettings.ema`). Codes and other buffers are not averaged again: an EMA
    codebook is a moving average already, and a code that was moved to where latents lie would be pulled back to where
    it lay unused.
    """

    def __init__(
        self,
        network: VQ,
        objective: str,
        examples: np.ndarray,
        to_batch: Callable[[np.ndarray], Tensor],
        settings: FitSettings,
        seed: int,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world: int = 1,
        distribute: Callable[[nn.Module], nn.Module] | None = None,
        perceptual: PerceptualLoss | None = None,
    ) -> None:
        if not len(examples):
            raise ValueError("there are no examples to train on: none of the labels holds one")
        if settings.batch_size % world:
            raise ValueError(f"batch_size = {settings.batch_size} isn't a multiple of the {world} workers")
        if (perceptual is None) != (settings.perceptual is None):
            raise ValueError("a perceptual loss is to be given where the settings have one, and nowhere else")
        self.network = network.to(device).train()
        self.step = 0
        self._objective, self._settings, self._seed = objective, settings, seed
        self._perceptual = perceptual
        self._parts = ["reconstruction", "quantizer", *(["perceptual"] if perceptual else [])]
        self._examples, self._to_batch = examples, to_batch
        self._device, self._rank, self._world = torch.device(device), rank, world
        self._module = distribute(self.network) if distribute else self.network
        self._batches = Batches(len(examples), settings.batch_size, seed)
        self._weights = {name: w for name, w in self.network.named_parameters() if w.requires_grad}
        self._average = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._optimizer = _adamw(self.network, settings)
        self._window = UsageWindow(network.config.vocabulary, network.config.tokens_per_cell)
        self._skipped_in_a_row = self._skipped = 0
        self._last = np.zeros(len(self._parts) + 1)  # losses by part, and the gradient norm
        self._speed = Speed()

    def advance(self) -> Figures:
        """One optimiser step. Sets the seed of torch's default generators.

        Raises DivergedError when several steps in a row were without a finite loss and gradient.
        """
        rate = learning_rate(self.step, self._settings.steps, self._settings.learning_rate, self._settings.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        batch = self._batch()
        before = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        torch.manual_seed(step_seed(self._seed, self.step, self._rank))
        with self._autocast():
            output = self._module(batch)
            losses = self._losses(output)
        losses.sum().backward()
        norm = nn.utils.get_total_norm(weight.grad for weight in self._weights.values() if weight.grad is not None)
        self._last = np.array([*self._mean(losses.detach()).tolist(), norm.item()])
        skip = not np.isfinite(self._last).all()
        if skip:
            self._undo(before, rate)
        else:
            nn.utils.clip_grads_with_norm_(self._weights.values(), self._settings.clip, norm)
            self._optimizer.step()
            self._follow()
            self._skipped_in_a_row = 0
            self._add_to_window(output.tokens)
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return self._figures(rate, skip)

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, by name: CPU tensors that share no memory with the training."""
        moments = {
            f"optimizer.{name}/{part}": value
            for name, weight in self._weights.items()
            for part, value in self._optimizer.state.get(weight, {}).items()
        }
        tensors = {
            **{f"network/{name}": value for name, value in self.network.state_dict().items()},
            **{f"average/{name}": value for name, value in self._average.items()},
            **{f"moments/{name}": value for name, value in moments.items()},
            "window": torch.from_numpy(self._window.tokens),
            "last": torch.from_numpy(self._last),
            "counts": torch.tensor([self.step, self._skipped_in_a_row, self._skipped, self._window.position]),
        }
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what `state` gave. Raises ValueError for a state of another network or other settings."""
        groups: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "moments": {}}
        for name, tensor in state.items():
            group, slash, rest = name.partition("/")
            if slash:
                groups[group][rest] = tensor
        expected = {name: value.shape for name, value in self.network.state_dict().items()}
        found = {name: value.shape for name, value in groups["network"].items()}
        own = {"window": self._window.tokens.shape, "last": self._last.shape}
        odd = sorted({name for name, _ in expected.items() ^ found.items()})
        odd += [name for name, shape in own.items() if state[name].shape != shape]
        if odd:
            raise ValueError(f"the state is of another network or other losses: {', '.join(odd[:3])} differ")
        self.network.load_state_dict(groups["network"])
        for name, tensor in groups["average"].items():
            self._average[name].copy_(tensor)
        for name, weight in self._weights.items():
            prefix = f"optimizer.{name}/"
            parts = {n.removeprefix(prefix): t for n, t in groups["moments"].items() if n.startswith(prefix)}
            if parts:
                self._optimizer.state[weight] = {
                    part: tensor.clone().to("cpu" if part == "step" else weight.device)
                    for part, tensor in parts.items()
                }
        self._window.tokens[:] = state["window"].numpy()
        self._last = state["last"].numpy().copy()
        self.step, self._skipped_in_a_row, self._skipped, self._window.position = state["counts"].tolist()

    def finished(self) -> VQ:
        """A copy of the network with the averaged weights, for use: on the CPU, in eval mode."""
        network = copy.deepcopy(self.network).cpu()
        weights = dict(network.named_parameters())
        with torch.no_grad():
            for name, average in self._average.items():
                weights[name].copy_(average)
        return network.eval()

    def facts(self) -> dict[str, Any]:
        """What is to be known of the training: a function of what went in."""
        usage = self._window.usage()
        return {
            "steps": self.step,
            "examples": len(self._examples),
            "objective": self._objective,
            "loss": float(self._last[:-1].sum()),
            **{f"{name}_loss": float(value) for name, value in zip(self._parts, self._last, strict=False)},
            "usage": usage.share,
            "perplexity": usage.perplexity,
            "skipped": self._skipped,
            "settings": self._settings.model_dump(exclude={"checkpoint_every", "report_every"}, exclude_none=True),
        }

    def _batch(self) -> Tensor:
        places = self._batches.at(self.step, self._rank, self._world)
        return self._to_batch(np.asarray(self._examples[places])).to(self._device)

    def _losses(self, output: VQOutput) -> Tensor:
        """float32, one of each part; their sum is what the step makes smaller."""
        losses = [loss_of(self._objective, output.prediction, output.target), output.quantizer_loss.float()]
        if self._perceptual is not None:
            assert self._settings.perceptual is not None
            losses.append(self._settings.perceptual.weight * self._perceptual(output.prediction, output.target))
        return torch.stack(losses)

    def _autocast(self) -> AbstractContextManager[Any]:
        wanted = self._settings.precision
        if wanted == "auto":
            gpu = self._device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            wanted = "bfloat16" if gpu else "float32"
        return torch.autocast(self._device.type, torch.bfloat16, enabled=wanted == "bfloat16")

    def _mean(self, values: Tensor) -> Tensor:
        """Over all workers; a number that isn't finite anywhere makes it so everywhere."""
        if self._world > 1:
            torch.distributed.all_reduce(values)
            values /= self._world
        return values

    @torch.no_grad()
    def _follow(self) -> None:
        decay = average_decay(self.step, self._settings.ema)
        averages, weights = list(self._average.values()), [weight.detach() for weight in self._weights.values()]
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def _undo(self, buffers: Mapping[str, Tensor], rate: float) -> None:
        """Takes back what the forward pass did to codes; the weights are still as they were."""
        for name, buffer in self.network.named_buffers():
            buffer.copy_(buffers[name])
        self._skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= _PATIENCE:
            raise DivergedError(self._report(rate))

    def _report(self, rate: float) -> str:
        reconstruction, *others, norm = self._last
        beside = "".join(f"the {part} loss {loss:g}, " for part, loss in zip(self._parts[1:], others, strict=True))
        broken = [n for n, w in self._weights.items() if w.grad is not None and not w.grad.isfinite().all()]
        gradients = f"the gradient norm is {norm:g}"
        if broken:  # gradients flow from the decoder, which isn't registered last, to the encoder
            first = max(broken, key=lambda name: (name.startswith("decoder."), broken.index(name)))
            gradients += f", not finite first in {first} and in {len(broken)} of {len(self._weights)} weights"
        return (
            f"training stopped at step {self.step + 1} of {self._settings.steps}, after {_PATIENCE} steps in a row "
            f"whose loss or gradient wasn't finite: the loss ({self._objective}) is {reconstruction:g}, {beside}"
            f"{gradients}, the learning rate {rate:.2g}. Try a smaller learning_rate (a third, say), a longer "
            f"warmup, a smaller clip, or precision: float32"
        )

    def _add_to_window(self, tokens: Tensor) -> None:
        """tokens: (B, h, w) or (B, codebooks, h, w)."""
        codebooks = len(self._window.tokens)
        parts = tokens.reshape(len(tokens), codebooks, -1).transpose(0, 1).reshape(codebooks, -1)
        self._window.add(parts.cpu().numpy())

    def _figures(self, rate: float, skipped: bool) -> Figures:
        *losses, norm = self._last.tolist()
        parts = dict(zip(self._parts, losses, strict=True))
        usage = self._window.usage()
        speed = self._speed.after(self._settings.batch_size)
        return Figures(self.step, sum(parts.values()), parts, usage.share, usage.perplexity, norm, rate, skipped, speed)


def _adamw(network: nn.Module, settings: FitSettings) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101); only the weights of linear layers and convolutions decay."""
    decaying = {
        id(module.weight) for module in network.modules() if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
    }
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in weights if id(w) in decaying], "weight_decay": settings.weight_decay},
        {"params": [w for w in weights if id(w) not in decaying], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, settings.learning_rate, _BETAS)
