"""Segment Anything networks behind one interface: segment-anything's checkpoints, and SAM 2.1 through transformers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..contract.labeler import Weights
from ..networks.extras import naming_extras
from ..networks.hub import CheckpointError, load_model, load_processor, read_config
from ..networks.state_dicts import read_tensors
from .checkpoint import build_sam

if TYPE_CHECKING:
    from torch import Tensor

    from .decoder import Decoder, Seen


SAM_WEIGHTS = Weights(
    "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
    "Apache-2.0",
    "https://github.com/facebookresearch/segment-anything",
    {
        "sam_vit_?_*.pth": "Apache-2.0",
        "facebook/sam2-hiera-*": "Apache-2.0",
        "facebook/sam2.1-hiera-*": "Apache-2.0",
    },
)


class MaskModel(Protocol):
    """A network that makes masks from points. Everything but `encode` is float32.

    decoder: see decoder.py. device: of its weights. images_at_once: how many to encode, None for any number.
    prompts_at_once: how many to give to `decoder.look`.
    """

    decoder: Decoder
    device: str
    images_at_once: int | None
    prompts_at_once: int

    def encode(self, images: Sequence[np.ndarray]) -> list[Seen]:
        """Photographs, uint8 (height, width, 3) of any sizes, as one batch through the image encoder."""
        ...

    def prompts(self, points: np.ndarray, height: int, width: int) -> Tensor:
        """Points that lie on the thing, (n, 2) as x y in pixels of the photograph: (n, tokens, channels)."""
        ...

    def spread(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """How logits are scaled up to the photograph: rows (height, logits' height), columns (width, logits' width)."""
        ...


def load_mask_model(weights: str, device: str) -> MaskModel:
    """The network of a .pth or .safetensors file of segment-anything, or of a folder (hub id) with a SAM 2 or 2.1."""
    if Path(weights).suffix in (".pth", ".pt", ".bin", ".safetensors"):
        return SamMasks(weights, device)
    kind = read_config(weights).get("model_type")
    if kind in ("sam2", "sam2_video"):
        return Sam2Masks(weights, device)
    raise CheckpointError(
        f"{weights}: a checkpoint of {kind!r}, not of SAM 2; for the first SAM give the path of segment-anything's .pth"
    )


class SamMasks:
    """A network of the package segment-anything. `network` is the package's own model."""

    def __init__(self, weights: str, device: str) -> None:
        with naming_extras():
            import torch
        self.network: Any = build_sam(read_tensors(weights), weights).to(device)
        self.device = device
        self.images_at_once, self.prompts_at_once = _at_once(device)
        self.decoder = _sam_decoder(self.network.mask_decoder)
        self._side = self.network.image_encoder.img_size
        prompt_encoder = self.network.prompt_encoder
        with torch.inference_mode():
            self._position = prompt_encoder.get_dense_pe()[0]
        self._no_mask = prompt_encoder.no_mask_embed.weight.reshape(-1, 1, 1)
        self._logits_side = 4 * self._position.shape[1]

    def encode(self, images: Sequence[np.ndarray]) -> list[Seen]:
        import torch
        from PIL import Image

        pixels = torch.zeros(len(images), 3, self._side, self._side, device=self.device)
        for place, image in zip(pixels, images, strict=True):
            height, width = self._scaled(*image.shape[:2])
            scaled = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
            values = torch.from_numpy(np.array(scaled)).to(self.device).permute(2, 0, 1)
            place[:, :height, :width] = (values - self.network.pixel_mean) / self.network.pixel_std
        embeddings = self.network.image_encoder(pixels)
        with in_float32(self.device):
            return [self.decoder.prepare(one.float() + self._no_mask, self._position) for one in embeddings]

    def prompts(self, points: np.ndarray, height: int, width: int) -> Tensor:
        import torch

        input_height, input_width = self._scaled(height, width)
        scaled = torch.as_tensor(points * [input_width / width, input_height / height], device=self.device)
        labels = torch.ones(len(points), 1, dtype=torch.int, device=self.device)
        return self.network.prompt_encoder((scaled[:, None], labels), None, None)[0]

    def spread(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        rows, columns = (
            scaling(self._logits_side, self._side, covered, size, self.device)
            for covered, size in zip(self._scaled(height, width), (height, width), strict=True)
        )
        return rows, columns

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the photograph in the network's input, whose upper left part it fills.

        As ResizeLongestSide has it, but for very long photographs, of which that leaves no row.
        """
        scale = self._side / max(height, width)
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


class Sam2Masks:
    """SAM 2 and 2.1 of transformers, which see the photograph stretched to a square."""

    def __init__(self, weights: str, device: str) -> None:
        with naming_extras():
            import torch
            from transformers import Sam2ImageProcessor, Sam2Model
        self.network: Any = load_model(Sam2Model, weights, device)
        self._processor = load_processor(Sam2ImageProcessor, weights)
        self.device = device
        self.images_at_once, self.prompts_at_once = _at_once(device)
        self.decoder = _sam2_decoder(self.network.mask_decoder)
        with torch.inference_mode():
            self._position = self.network.get_image_wide_positional_embeddings()[0]
        self._no_mask = self.network.prompt_encoder.no_mask_embed.weight.reshape(-1, 1, 1)
        self._logits_side = 4 * self._position.shape[1]

    def encode(self, images: Sequence[np.ndarray]) -> list[Seen]:
        pixels = self._processor(list(images), return_tensors="pt", device=self.device)["pixel_values"]
        fine, middle, embeddings = self.network.get_image_embeddings(pixels)
        with in_float32(self.device):
            return [
                self.decoder.prepare(one.float() + self._no_mask, self._position, two.float(), four.float())
                for one, two, four in zip(embeddings, middle, fine, strict=True)
            ]

    def prompts(self, points: np.ndarray, height: int, width: int) -> Tensor:
        import torch

        side = self._processor.size["height"]
        scaled = torch.as_tensor(points, dtype=torch.float32, device=self.device) * torch.tensor(
            [side / width, side / height], device=self.device
        )
        labels = torch.ones(1, len(points), 1, dtype=torch.int, device=self.device)
        return self.network.prompt_encoder(scaled[None, :, None], labels, None, None)[0][0]

    def spread(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        side = self._logits_side
        return scaling(side, side, side, height, self.device), scaling(side, side, side, width, self.device)


@functools.lru_cache(maxsize=64)
def scaling(length: int, side: int, covered: int, size: int, device: str) -> Tensor:
    """(size, length): the matrix that scales `length` values to `side` ones, cuts these to `covered`, scales to `size`.

    Both scalings are torch's bilinear interpolation; what it does to the columns of the identity is the matrix.
    """
    import torch
    from torch.nn.functional import interpolate

    with torch.inference_mode(False), in_float32(device):
        matrix = torch.eye(length, device=device)[None]
        if side != length:
            matrix = interpolate(matrix, side, mode="linear", align_corners=False)
        return interpolate(matrix[..., :covered], size, mode="linear", align_corners=False)[0].T.contiguous()


def _sam_decoder(decoder: Any) -> Decoder:
    import torch

    from .decoder import Decoder, Layer, Projections, Upscaler, as_linear

    def projections(attention: Any) -> Projections:
        return Projections(
            attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj, attention.num_heads
        )

    first, norm, activation, second, _ = decoder.output_upscaling
    return Decoder(
        output_tokens=torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]),
        quality_token=0,
        layers=[
            Layer(
                layer.self_attn,
                projections(layer.cross_attn_token_to_image),
                projections(layer.cross_attn_image_to_token),
                layer.mlp,
                (layer.norm1, layer.norm2, layer.norm3, layer.norm4),
                layer.skip_first_layer_pe,
            )
            for layer in decoder.transformer.layers
        ],
        last=projections(decoder.transformer.final_attn_token_to_image),
        last_norm=decoder.transformer.norm_final_attn,
        quality_head=decoder.iou_prediction_head,
        mask_heads=decoder.output_hypernetworks_mlps[1:],
        upscaler=Upscaler(as_linear(first), (norm.weight, norm.bias, norm.eps), as_linear(second), activation),
    )


def _sam2_decoder(decoder: Any) -> Decoder:
    import torch

    from .decoder import Decoder, Layer, Projections, Upscaler, as_linear

    def projections(attention: Any) -> Projections:
        return Projections(
            attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, attention.num_attention_heads
        )

    def alone(attention: Any):
        """transformers' attention has a dimension for images before that for prompts, and returns its weights too."""
        return lambda q, k, v: attention(q[None], k[None], v[None])[0][0]

    norm = decoder.upscale_layer_norm
    return Decoder(
        output_tokens=torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight]),
        quality_token=1,
        layers=[
            Layer(
                alone(layer.self_attn),
                projections(layer.cross_attn_token_to_image),
                projections(layer.cross_attn_image_to_token),
                layer.mlp,
                (layer.layer_norm1, layer.layer_norm2, layer.layer_norm3, layer.layer_norm4),
                layer.skip_first_layer_pe,
            )
            for layer in decoder.transformer.layers
        ],
        last=projections(decoder.transformer.final_attn_token_to_image),
        last_norm=decoder.transformer.layer_norm_final_attn,
        quality_head=decoder.iou_prediction_head,
        mask_heads=decoder.output_hypernetworks_mlps[1:],
        upscaler=Upscaler(
            as_linear(decoder.upscale_conv1),
            (norm.weight, norm.bias, norm.eps),
            as_linear(decoder.upscale_conv2),
            decoder.activation,
        ),
    )


def _at_once(device: str) -> tuple[int | None, int]:
    """Images and prompts at once. A CPU gains nothing by batches of such large images, and its labels are the same bits
    for one image as for many; with few prompts, of which each has an image of 4 MB, it stays near its cache."""
    return (1, 4) if device == "cpu" else (None, 256)


def in_float32(device: str) -> Any:
    """Switches autocast off: thresholds cut hard, so only the image encoder may be half precise."""
    import torch

    return torch.autocast(torch.device(device).type, enabled=False)
