"""The encoder of a 4M model as a backbone for pictures, by timm's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from ...labelers.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from ..data.mixture import PATCH
from ..model.fourm import FourM
from ..model.tokens import Tokens


class Backbone(nn.Module):
    """Features of pictures, float (n, 3, height, width), normalised by ImageNet's mean and deviation, of the one size
    that the model was trained on. Register tokens are its prefix tokens.

    pretrained_cfg: by which `timm.data.resolve_model_data_config` tells how pictures are prepared: their centre, as
    views are cut. feature_info: of each block, as timm has it.

    Raises ValueError for a model that doesn't take pixels, and for pictures of another size.
    """

    def __init__(self, model: FourM) -> None:
        super().__init__()
        place = next((at for at, one in enumerate(model.config.inputs) if one.form == "pixels"), None)
        if place is None:
            raise ValueError(
                f"the model takes no pixels; it takes {', '.join(one.name for one in model.config.inputs)}"
            )
        pixels = model.config.inputs[place]
        assert pixels.grid is not None
        self.model, self._pixels, self._grid = model, pixels, pixels.grid
        self._place = model.config.names.index(pixels.name)
        self.num_features = self.embed_dim = self.head_hidden_size = dim = model.config.dim
        self.num_prefix_tokens, self.num_classes = model.config.num_register_tokens, 0
        self.feature_info = [
            {"module": f"model.encoder.{block}", "num_chs": dim, "reduction": PATCH} for block in range(self._depth)
        ]
        self.pretrained_cfg = {
            "input_size": (3, *(PATCH * side for side in self._grid)),
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, num_features), pooled."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(n, prefix tokens + patches, num_features), patches row by row: what the encoder gives, normalised."""
        size, own = tuple(x.shape[2:]), self.pretrained_cfg["input_size"][1:]
        if size != own:
            raise ValueError(f"pictures are of {size} pixels, and the model takes {own}")
        positions = torch.arange(self._pixels.length).expand(len(x), -1)
        tokens = Tokens.of(
            self.model.config, torch.full_like(positions, -1), positions, torch.full_like(positions, self._place)
        )
        return self.model.encode(tokens.to(x.device), {self._pixels.name: x.permute(0, 2, 3, 1)}).output

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """(n, num_features): the mean over patches. pre_logits: as timm has it; there are no logits."""
        return x[:, self.num_prefix_tokens :].mean(dim=1)

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """What `forward_features` gives, and a list of what some blocks give, in the blocks' order: (n, num_features,
        rows, columns) each, or as NLC (n, patches, num_features).

        indices: of the blocks, from the end where negative; a number: so many of the last; None: all.
        return_prefix_tokens: pairs, with (n, prefix tokens, num_features) beside, where the model has such. norm:
        normalised as the last is. intermediates_only: the list alone. Raises ValueError for a block that there isn't.
        """
        taken, found = self._taken(indices), dict[int, torch.Tensor]()
        hooks = [
            self.model.encoder[at].register_forward_hook(lambda _, __, made, at=at: found.update({at: made}))
            for at in taken
        ]
        try:
            last = self.forward_features(x)
        finally:
            for hook in hooks:
                hook.remove()
        made = [self.model.encoder_norm(found[at]) if norm else found[at] for at in taken]
        prefix, patches = zip(*(one.tensor_split([self.num_prefix_tokens], dim=1) for one in made), strict=True)
        if output_fmt == "NCHW":
            patches = [one.transpose(1, 2).unflatten(2, self._grid).contiguous() for one in patches]
        paired = return_prefix_tokens and self.num_prefix_tokens
        blocks = list(zip(patches, prefix, strict=True)) if paired else list(patches)
        return blocks if intermediates_only else (last, blocks)

    @property
    def _depth(self) -> int:
        return self.model.config.encoder_depth

    def _taken(self, indices: int | Sequence[int] | None) -> list[int]:
        depth = self._depth
        if isinstance(indices, int):
            indices = range(-indices, 0)
        indices = range(depth) if indices is None else indices
        odd = [one for one in indices if not -depth <= one < depth]
        if odd or not indices:
            raise ValueError(f"indices: {odd[0] if odd else 'none'}, and the encoder has {depth} blocks")
        return sorted({one % depth for one in indices})
