"""The modalities of 4M-21, as ml-4m's MODALITY_INFO describes them."""

from __future__ import annotations

from tokenloom.training.model.config import ModalityConfig

_GRIDS = {
    **{"tok_rgb": 16384, "tok_depth": 8192, "tok_normal": 8192, "tok_semseg": 4096, "tok_clip": 8192},
    **{"tok_canny_edge": 8192, "tok_sam_edge": 8192, "tok_dinov2": 8192, "tok_imagebind": 8192},
}
_TEXTS = {"caption": 256, "det": 256, "metadata": 40, "human_poses": 263, "color_palette": 23, "sam_instance": 290}

MODALITIES_4M21 = (
    ModalityConfig("rgb@224", "pixels", 196, grid=(14, 14), is_target=False),
    ModalityConfig("t5_caption", "embeddings", 77, width=4096, is_target=False),
    *(ModalityConfig(name, "text", length, 30_000) for name, length in _TEXTS.items()),
    *(
        ModalityConfig(f"{name}@224", "grid", side * side, vocabulary, grid=(side, side))
        for name, vocabulary in _GRIDS.items()
        for side in [16 if name in ("tok_dinov2", "tok_imagebind") else 14]
    ),
    *(ModalityConfig(f"tok_{name}_global", "grid", 16, 8192) for name in ("dinov2", "imagebind")),
)
