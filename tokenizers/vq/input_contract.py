"""What a tokenizer's network takes, and how labels become that and come back: stored with every trained tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ...labelers.contract.kinds import FeatureMap, Image, Kind, Vector
from ...labelers.contract.poses import nearest_rotations

if TYPE_CHECKING:
    from torch import Tensor

Form = Literal["colour", "intensity", "depth", "normals", "classes", "features", "vector", "mask", "pose"]

MASK_SIDE = 64
"""Side of the masks that networks see, each stretched to its box, in pixels."""

JOINTS = 23
"""Rotations in a body's pose (see labelers/contract/poses.py)."""

OBJECTIVE_OF: dict[Form, str] = {
    "colour": "mse",
    "intensity": "smooth_l1",
    "depth": "smooth_l1",
    "normals": "mse",
    "classes": "cross_entropy",
    "features": "smooth_l1",
    "vector": "cosine",
    "mask": "binary_cross_entropy",
    "pose": "smooth_l1",
}
"""What 4M's tokenizers were trained to make small (ml-4m, cfgs/default/tokenization)."""

_CENTRED = "(x / max - 0.5) / 0.5, as ml-4m's MODALITY_TRANSFORMS_DIVAE"
_SOURCES: dict[Form, str] = {
    "colour": _CENTRED,
    "intensity": _CENTRED,
    "normals": _CENTRED + " has it of uint8; floats as they are, in [-1, 1]",
    "depth": "truncated standardisation of each map, as ml-4m's DepthTransform",
    "classes": "ids + 1, void becoming 0, as ml-4m's transform of semseg_coco",
    "features": "as the labeler gives them",
    "vector": "as the labeler gives them",
    "mask": "0 and 1 in the instance's box at 64 x 64 pixels, as ml-4m's SAMInstanceTransform",
    "pose": "23 rotation matrices, row by row, as ml-4m's HumanPoseTransform",
}
_BLOCK = 64  # examples whose statistics are summed at a time


class ContractError(ValueError):
    """A label that a network doesn't take; the message says what it is and what is taken."""


class InputContract(BaseModel):
    """Labels as a network's input, and its output as labels.

    form: what labels are (see the methods). dtype: of a label's numbers. channels, height, width: of the network's
    input; a vector and a pose are one cell, classes one channel. classes: how many ids there are, of form "classes".
    mean, std: what numbers are shifted and divided by, one for all or one per channel; integers are divided by their
    dtype's largest value first. length: of decoded vectors; None leaves them as the network gives them. source: where
    the normalisation is from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    form: Form
    dtype: Literal["uint8", "uint16", "float16", "float32"]
    channels: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    classes: int | None = Field(default=None, ge=1)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    length: float | None = None
    source: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a label, as `example` takes it."""
        match self.form:
            case "features":
                return self.channels, self.height, self.width
            case "vector":
                return (self.channels,)
            case "pose":
                return JOINTS, 3, 3
        size = self.height, self.width
        return size if self.channels == 1 else (*size, self.channels)

    @property
    def void(self) -> int:
        """The class id of pixels that have none."""
        return int(np.iinfo(self.dtype).max)

    def example(self, label: Any) -> np.ndarray:
        """The label, checked, in its own dtype: what is kept of it for training.

        Raises ContractError naming the shape, dtype, id or number of NaNs that isn't taken.
        """
        if not isinstance(label, np.ndarray):
            raise ContractError(f"a {self.form} label is a {type(label).__name__}, not a numpy array")
        wanted = np.dtype(self.dtype)
        if label.dtype != wanted and not label.dtype.kind == wanted.kind == "f":
            raise ContractError(f"a {self.form} label has dtype {label.dtype}; its tokenizer takes {wanted}")
        if label.shape != self.shape:
            raise ContractError(f"a {self.form} label has shape {label.shape}; its tokenizer takes {self.shape}")
        with np.errstate(over="ignore"):
            label = label.astype(wanted, copy=False)
        if wanted.kind == "f" and not (finite := np.isfinite(label)).all():
            bad = label.size - int(finite.sum())
            raise ContractError(f"{bad} of a {self.form} label's {label.size} numbers are NaN or infinite")
        if self.form == "classes":
            self._check_classes(label)
        if self.form == "mask" and label.max(initial=0) > 1:
            raise ContractError(f"a mask holds {label.max()}; its tokenizer takes 0 and 1")
        return label

    def to_network(self, examples: Tensor) -> Tensor:
        """A batch of examples as the network takes it, on the device that they are on.

        float32 (B, channels, height, width); int64 (B, height, width) of form "classes".
        """
        import torch

        if self.form == "classes":
            return (examples.to(torch.int64) + 1) & self.void  # void is all ones, so that it wraps round to 0
        numbers = examples.to(torch.float32)
        if self.form == "depth":
            return standardise_depth(numbers)[:, None]
        return self._normalised(self._channels_first(numbers)).contiguous()

    def from_network(self, output: Tensor) -> list[np.ndarray]:
        """The labels that the network's output (B, channels, height, width) stands for, of `shape` and `dtype`.

        Of form "classes" it holds a logit per id, void's first; of form "mask" one per pixel, which becomes the
        probability, float32. Normals become unit vectors, poses the nearest rotations. Depth stays standardised: the
        scale and the shift that its map had are lost.
        """
        import torch

        if self.form == "classes":
            ids = (output.argmax(dim=1) - 1) & self.void
            return list(ids.cpu().numpy().astype(self.dtype))
        if self.form == "mask":
            return list(torch.sigmoid(output.float())[:, 0].cpu().numpy())
        numbers = output.float()
        if self.form == "normals":  # which lie in [-1, 1] before the network, whatever labels hold
            numbers = torch.nn.functional.normalize(numbers, dim=1, eps=1e-6)
        numbers = self.restored(numbers)
        if self.form == "vector" and self.length is not None:
            numbers = torch.nn.functional.normalize(numbers, dim=1) * self.length
        labels = self._channels_last(numbers).cpu().numpy()
        return list(nearest_rotations(labels) if self.form == "pose" else self._in_dtype(labels))

    def restored(self, numbers: Tensor) -> Tensor:
        """Numbers (B, channels, height, width) as they were before `to_network` shifted and scaled them; those of
        integers lie in [0, 1]."""
        if self._is_plain:
            return numbers
        return numbers * self._per_channel(self.std, numbers) + self._per_channel(self.mean, numbers)

    def _channels_first(self, numbers: Tensor) -> Tensor:
        match self.form:
            case "features":
                return numbers
            case "vector" | "pose":
                return numbers.reshape(len(numbers), -1, 1, 1)
        return numbers[:, None] if self.channels == 1 else numbers.permute(0, 3, 1, 2)

    def _channels_last(self, numbers: Tensor) -> Tensor:
        match self.form:
            case "features":
                return numbers
            case "vector" | "pose":
                return numbers.reshape(len(numbers), *self.shape)
        return numbers[:, 0] if self.channels == 1 else numbers.permute(0, 2, 3, 1)

    def _normalised(self, numbers: Tensor) -> Tensor:
        if self._peak != 1:
            numbers.div_(self._peak)  # integers were copied into floats
        if self._is_plain:
            return numbers
        return (numbers - self._per_channel(self.mean, numbers)) / self._per_channel(self.std, numbers)

    @property
    def _is_plain(self) -> bool:
        return not any(self.mean) and set(self.std) == {1.0}

    @property
    def _peak(self) -> int:
        """What integers are divided by; masks are 0 and 1 already."""
        return 1 if self.form == "mask" or self.dtype.startswith("float") else int(np.iinfo(self.dtype).max)

    @staticmethod
    def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
        return like.new_tensor(values).view(-1, 1, 1)

    def _in_dtype(self, labels: np.ndarray) -> np.ndarray:
        """Numbers as the labels have them: integers are rounded; those past the dtype's range take its ends."""
        dtype = np.dtype(self.dtype)
        if dtype.kind == "f":
            limit = np.finfo(dtype).max
            return np.ascontiguousarray(labels.clip(-limit, limit), dtype=dtype)
        return np.ascontiguousarray(np.rint(labels * self._peak).clip(0, self._peak), dtype=dtype)

    def _check_classes(self, label: np.ndarray) -> None:
        assert self.classes is not None
        wrong = (label >= self.classes) & (label != self.void)
        if wrong.any():
            raise ContractError(
                f"a map of classes holds the id {label[wrong][0]}; its tokenizer takes 0..{self.classes - 1} and "
                f"{self.void} for none"
            )


def contract_for(kind: Kind, height: int, width: int) -> InputContract:
    """The contract of labels of that kind, without statistics of a sample: as 4M's published tokenizers take them.

    height, width: of an image's labels; features and vectors have their own. Raises ValueError for labels that no
    network takes.
    """
    match kind:
        case FeatureMap():
            found: dict[str, Any] = {"form": "features", "dtype": "float16", "channels": kind.channels}
            height, width = kind.height, kind.width
        case Vector():
            found = {"form": "vector", "dtype": "float32", "channels": kind.dim}
            height = width = 1
        case Image():
            found = {"form": _image_form(kind), "dtype": kind.dtype, "channels": kind.channels}
            if kind.content == "classes":
                found["classes"] = kind.classes
            elif kind.dtype != "float32":
                found |= {"mean": (0.5,), "std": (0.5,)}
        case _:
            raise ValueError(f"labels of the kind {kind.name!r} aren't what a VQ network takes")
    return InputContract(**found, height=height, width=width, source=_SOURCES[found["form"]])


def _image_form(kind: Image) -> Form:
    if kind.content == "classes":
        if kind.classes is None or kind.dtype == "float32" or kind.channels != 1:
            raise ValueError("a map of classes can't be tokenised unless its kind has integer ids and says how many")
        if kind.classes > np.iinfo(kind.dtype).max:
            raise ValueError(f"{kind.classes} classes leave no id of {kind.dtype} for pixels that have none")
        return "classes"
    if kind.content == "normals" and kind.channels != 3:
        raise ValueError(f"normals have 3 channels, not {kind.channels}")
    if kind.content == "intensity" and kind.dtype == "float32":
        if kind.channels != 1:
            raise ValueError(f"a map of floats is tokenised as depth, which has 1 channel, not {kind.channels}")
        return "depth"
    if kind.content == "colour" and kind.dtype == "float32":
        raise ValueError("colours in float32 have no known range: give them as uint8 or uint16")
    return kind.content


MASK_CONTRACT = InputContract(
    form="mask", dtype="uint8", channels=1, height=MASK_SIDE, width=MASK_SIDE, source=_SOURCES["mask"]
)
POSE_CONTRACT = InputContract(
    form="pose", dtype="float32", channels=JOINTS * 9, height=1, width=1, source=_SOURCES["pose"]
)


def with_statistics(contract: InputContract, examples: np.ndarray) -> InputContract:
    """The contract of features and vectors with the statistics of a sample (n, *shape); any other as it is.

    Features are standardised per channel; a channel that never changes is only shifted. Vectors are divided by the root
    of their mean square, and decoded ones get their mean length, which an objective that only sees directions loses.
    """
    if contract.form not in ("features", "vector"):
        return contract
    count, total, squares, lengths = 0, np.zeros(contract.channels), np.zeros(contract.channels), 0.0
    for block in _rows(examples, contract.channels):
        count += len(block)
        total += block.sum(axis=0)
        squares += np.square(block).sum(axis=0)
        lengths += float(np.linalg.norm(block, axis=1).sum())
    if not count:
        raise ValueError("a tokenizer can't be fitted: the sample is empty")
    if contract.form == "vector":
        scale = float(np.sqrt(squares.sum() / count / contract.channels)) or 1.0
        found = {"std": (scale,), "length": lengths / count, "source": "scale and length of the fitted sample"}
        return contract.model_copy(update=found)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std[std <= 1e-6 * np.maximum(np.abs(mean), 1e-6)] = 1
    found = {"mean": tuple(mean.tolist()), "std": tuple(std.tolist())}
    return contract.model_copy(update={**found, "source": "mean and standard deviation of the fitted sample"})


def _rows(examples: np.ndarray, channels: int) -> Iterator[np.ndarray]:
    """The vectors of all cells, float64 (n, channels), a block at a time."""
    for start in range(0, len(examples), _BLOCK):
        block = examples[start : start + _BLOCK].astype(np.float64)
        yield np.moveaxis(block.reshape(len(block), channels, -1), 1, 2).reshape(-1, channels)


def standardise_depth(depth: Tensor) -> Tensor:
    """Depth maps (B, height, width), each less its mean and divided by its deviation over the middle 80 % of pixels.

    (d - mean) / sqrt(var + 1e-6), var the unbiased one of the pixels between the two deciles: ml-4m's truncated
    standardisation. Maps that differ by a positive scale and a shift become (all but) the same.
    """
    flat = depth.flatten(1)
    low, high = int(0.1 * flat.shape[1]), int(0.9 * flat.shape[1])
    if high - low < 2:
        raise ContractError(f"a depth map of {flat.shape[1]} pixels is too small to be standardised")
    middle = _between(flat, low, high)
    mean, variance = middle.mean(dim=1), middle.var(dim=1)
    return (depth - mean[:, None, None]) / (variance + 1e-6).sqrt()[:, None, None]


def _between(rows: Tensor, low: int, high: int) -> Tensor:
    """What stands at low..high-1 in each sorted row, in any order."""
    import torch

    if rows.device.type != "cpu":
        return rows.sort(dim=1).values[:, low:high]
    parted = np.partition(rows.numpy(), (low, high - 1), axis=1)  # five times as fast as torch's sort
    return torch.from_numpy(parted[:, low:high])
