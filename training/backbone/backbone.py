"""The encoder of a 4M model as a backbone for pictures, by timm's names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..data.mixture import PATCH
from ..model.fourm import FourM
from ..model.tokens import Tokens


class Backbone(nn.Module):
    """Features of pictures, float (n, 3, height, width), normalised by ImageNet's mean and deviation, of the one size
    that the model was trained on. Register tokens are its prefix tokens.

    Raises ValueError for a model that doesn't take pixels, and for pictures of another size.
    """

    def __init__(self, model: FourM) -> None:
        super().__init__()
        place = next((at for at, one in enumerate(model.config.modalities) if one.form == "pixels"), None)
        if place is None:
            raise ValueError(f"the model takes no pixels; it has {', '.join(model.config.names)}")
        self.model, self._place = model, place
        self.num_features = self.embed_dim = model.config.dim
        self.num_prefix_tokens = model.config.num_register_tokens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, num_features), pooled."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(n, prefix tokens + patches, num_features), patches row by row: what the encoder gives, normalised."""
        one, size = self.model.config.modalities[self._place], tuple(x.shape[2:])
        assert one.grid is not None
        if size != (own := tuple(PATCH * side for side in one.grid)):
            raise ValueError(f"pictures are of {size} pixels, and the model takes {own}")
        positions = torch.arange(one.length).expand(len(x), -1)
        tokens = Tokens.of(
            self.model.config, torch.full_like(positions, -1), positions, torch.full_like(positions, self._place)
        )
        return self.model.encode(tokens.to(x.device), {one.name: x.permute(0, 2, 3, 1)}).output

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """(n, num_features): the mean over patches. pre_logits: as timm has it; there are no logits."""
        return x[:, self.num_prefix_tokens :].mean(dim=1)

    def forward_intermediates(
        self, x: torch.Tensor, indices: int | Sequence[int] | None = None, norm: bool = False
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What `forward_features` gives, and of some blocks (n, num_features, rows, columns). indices: of the blocks,
        from the end where negative; a number: so many of the last; None: all. norm: normalised as the last is."""
        depth, found = len(self.model.encoder), dict[int, torch.Tensor]()
        if indices is None or isinstance(indices, int):
            indices = range(depth - (depth if indices is None else indices), depth)
        hooks = [
            block.register_forward_hook(lambda _, __, made, at=at: found.update({at: made}))
            for at, block in enumerate(self.model.encoder)
        ]
        try:
            last = self.forward_features(x)
        finally:
            for hook in hooks:
                hook.remove()
        grid = self.model.config.modalities[self._place].grid
        assert grid is not None
        made = [self.model.encoder_norm(found[at % depth]) if norm else found[at % depth] for at in indices]
        return last, [one[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, grid) for one in made]
