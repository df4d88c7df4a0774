"""Checkpoints of the specialists at the sizes of small published ones, with random weights.

Each is the labeler's own tiny checkpoint, grown: same files, larger numbers in its config.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenloom.labelers.networks.hub import quiet_transformers
from tokenloom.labelers.networks.state_dicts import seeded
from tokenloom.labelers.plugins.registry import find_labeler
from tokenloom.pipeline.commands.demo_weights import dinov2_small, minilm

TINY_DET = {"det": {"weights": "tiny", "keep": "labels"}}
CAPTION = {"caption": {"keep": "labels"}}
VIT_L = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
VIT_S = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
VIT_B = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
BART = {"layers": 6, "ffn_dim": 3072, "attention_heads": 12}
T5_LARGE = {"d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 24, "num_decoder_layers": 1, "num_heads": 16}
STAGES = {
    "out_indices": [3, 6, 9, 12],
    "out_features": ["stage3", "stage6", "stage9", "stage12"],
    "stage_names": ["stem", *(f"stage{index}" for index in range(1, 13))],
}


def grown(
    labeler: str,
    changes: Mapping[str, Any],
    side: int | None = None,
    finish: Callable[[Any], Any] = lambda model: model,
) -> Callable[[Path], Path]:
    """A writer of the labeler's tiny checkpoint with `changes` in config.json, and images of `side` pixels.

    finish: what else is done to the model before it is saved.
    """

    def write(folder: Path) -> Path:
        import transformers

        folder.mkdir(parents=True)
        with quiet_transformers():
            find_labeler(labeler).write_tiny(folder)
        path = folder / "config.json"
        path.write_text(json.dumps(_merged(json.loads(path.read_text()), changes)))
        config = transformers.AutoConfig.from_pretrained(folder)
        with quiet_transformers(), seeded(), torch.no_grad():
            model = getattr(transformers, json.loads(path.read_text())["architectures"][0])(config)
            finish(model)
            model.save_pretrained(folder)
        path = folder / "preprocessor_config.json"
        if side is not None:
            settings = json.loads(path.read_text())
            path.write_text(json.dumps({**settings, "size": dict.fromkeys(settings["size"], side)}))
        return folder

    return write


def clip(folder: Path) -> Path:
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    config: Any = open_clip.get_model_config("ViT-B-16-quickgelu")
    with seeded():
        save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return folder


def imagebind(width: int, depth: int, out: int) -> Callable[[Path], Path]:
    """A writer of a vision tower of these sizes; the published one's are 1280, 32 and 1024."""

    def write(folder: Path) -> Path:
        from tokenloom.labelers.imagebind import STEM
        from tokenloom.labelers.networks.imagebind_vision import VisionTower

        folder.mkdir(parents=True)
        with seeded():
            tensors = VisionTower(width=width, depth=depth, patch=14, grid=16, out=out, heads=16).state_dict()
        tensors[STEM] = torch.stack([tensors[STEM] / 2] * 2, dim=2)
        torch.save(tensors, folder / "imagebind.pth")
        return folder / "imagebind.pth"

    return write


def human_poses(width: int, depth: int, heads: int) -> Callable[[Path], Path]:
    """A writer of HMR2.0 with a backbone of these sizes; the published one's are a ViT-H's: 1280, 32 and 16."""

    def write(folder: Path) -> Path:
        from tokenloom.labelers.people.hmr2 import Backbone, Hmr2, SmplHead

        folder.mkdir(parents=True)
        with seeded():
            network = Hmr2(Backbone(width, depth, heads, 4 * width), SmplHead(1024, 6, 8, 512, 1024, width))
            for positions in (network.backbone.pos_embed, network.smpl_head.transformer.pos_embedding):
                torch.nn.init.normal_(positions, std=0.02)
        means = {"body_pose": torch.eye(3)[:2].repeat(24, 1), "betas": torch.zeros(10), "cam": torch.eye(3)[0]}
        state = {**network.state_dict(), **{f"smpl_head.init_{name}": m.reshape(1, -1) for name, m in means.items()}}
        torch.save({"state_dict": state}, folder / "hmr2.ckpt")
        return folder / "hmr2.ckpt"

    return write


def captioner(side: int, vocabulary: int | None = None) -> Callable[[Path], Path]:
    """A writer of Florence-2 base that sees `side` pixels and whose captions are as long as they may be.

    The published one sees 768, and has 51,289 words; None leaves those that the tiny one has, which alone are said.
    """
    text = {f"{part}_{what}": count for part in ("encoder", "decoder") for what, count in BART.items()}
    if vocabulary is not None:
        text["vocab_size"] = vocabulary
    vision = {
        "depths": [1, 1, 9, 1],
        "embed_dim": [128, 256, 512, 1024],
        "num_heads": [4, 8, 16, 32],
        "num_groups": [4, 8, 16, 32],
        "projection_dim": 768,
        "window_size": 12,
    }
    changes = {"text_config": {"d_model": 768, **text}, "vision_config": vision}
    write_grown = grown("captioner", changes, finish=_keep_to_words)

    def write(folder: Path) -> Path:
        write_grown(folder)
        path = folder / "processor_config.json"
        settings = json.loads(path.read_text())
        seen = {"size": {"height": side, "width": side}, "image_seq_length": 1 + (side // 32) ** 2}
        path.write_text(json.dumps(_merged(settings, {"image_processor": seen})))
        return folder

    return write


def _keep_to_words(model: Any) -> None:
    """It says nothing special, not even an end, and nothing that comes behind the tiny one's words."""
    model.generation_config.forced_eos_token_id = None
    first = model.config.image_token_id
    model.generation_config.suppress_tokens = [*range(5), *range(first, model.config.text_config.vocab_size)]


def _merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, **{k: _merged(config[k], v) if isinstance(v, dict) else v for k, v in changes.items()}}


@dataclass(frozen=True)
class Network:
    """write: makes the checkpoint in a folder. needs: the recipe's settings of other modalities; settings: of its own.
    scale: times as many images as asked for: fewer for slow networks, more for quick ones."""

    write: Callable[[Path], Path]
    needs: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0


NETWORKS: dict[str, Network] = {
    "dinov2": Network(dinov2_small, scale=4),
    "clip": Network(clip),
    "siglip": Network(grown("siglip", {"vision_config": {**VIT_B, "intermediate_size": 3072}})),
    "imagebind": Network(imagebind(640, 12, 512)),
    "depth": Network(
        grown(
            "depth",
            {
                "backbone_config": {**VIT_S, **STAGES, "image_size": 518},
                "reassemble_hidden_size": 384,
                "neck_hidden_sizes": [48, 96, 192, 384],
                "fusion_hidden_size": 64,
                "head_hidden_size": 32,
            },
            518,
        ),
    ),
    "normal": Network(
        grown(
            "normal",
            {
                "backbone_config": {**VIT_B, **STAGES, "image_size": 448},
                "neck_hidden_sizes": [96, 192, 384, 768],
                "fusion_hidden_size": 256,
            },
            448,
        ),
        scale=0.5,
    ),
    "det": Network(
        grown(
            "det",
            {
                "backbone_config": {
                    "embedding_size": 64,
                    "hidden_sizes": [64, 128, 256, 512],
                    "depths": [2, 2, 2, 2],
                },
                "encoder_in_channels": [128, 256, 512],
                "encoder_hidden_dim": 256,
                "encoder_ffn_dim": 1024,
                "encoder_attention_heads": 8,
                "d_model": 256,
                "decoder_in_channels": [256, 256, 256],
                "decoder_ffn_dim": 1024,
                "decoder_layers": 3,
                "decoder_attention_heads": 8,
                "decoder_n_points": 4,
                "num_queries": 300,
            },
            640,
        ),
    ),
    "semseg_coco": Network(
        grown("semseg_coco", {**VIT_L, "num_queries": 200, "image_size": 640, "num_blocks": 4}, 640), scale=0.25
    ),
    "open_det": Network(
        grown("open_det", {"vision_config": {**VIT_B, "intermediate_size": 3072, "patch_size": 16}}),
    ),
    "skeletons": Network(grown("skeletons", {"backbone_config": {**VIT_B, "mlp_ratio": 4}}), TINY_DET, scale=0.5),
    "human_poses": Network(human_poses(768, 12, 12), TINY_DET, scale=0.5),
    "caption": Network(
        captioner(384),
        settings={"labeler": "captioner", "params": {"field": None, "max_new_tokens": 8}},
    ),
    "t5_caption": Network(grown("t5_caption", T5_LARGE), CAPTION, scale=4),
    "caption_embedding": Network(lambda _: minilm(), CAPTION, scale=16),
}
"""By the modality that is timed."""
