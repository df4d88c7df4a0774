"""CLIP features of the view: a map of projected patch tokens and one vector (Radford et al. 2021, arXiv 2103.00020)."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from .contract.kinds import FeatureMap, Vector
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .networks.extras import naming_extras
from .networks.hub import CheckpointError
from .networks.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing, feature_maps, vectors
from .networks.state_dicts import fill, read_tensors, seeded

DEFAULT_WEIGHTS = "timm/vit_base_patch16_clip_224.openai"
DEFAULT_CONFIG: dict[str, Any] = {
    "model_cfg": {"embed_dim": 512, "quick_gelu": True, "vision_cfg": {"image_size": 224, "patch_size": 16}}
}
"""What must be known of the default weights before they are fetched."""

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")

_TOWER = "visual."
_OPENAI_KEYS = ("input_resolution", "context_length", "vocab_size")
"""In OpenAI's own state dicts, and in nobody else's."""


class ClipParams(BaseModel):
    """model: open_clip's name of the architecture (`ViT-B-16`, `ViT-B-16-quickgelu`), for weights that are a bare file.
    None for a folder, which has a config, and for OpenAI's own state dicts, whose sizes their shapes tell."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str | None = None


class Clip(Labeler):
    """CLIP's patch tokens in the space of its texts (after the final norm and the projection), and the image's vector.

    Vision transformers of open_clip. `clip`: float16 (dim, image / patch, image / patch), of ViT-B/16 (512, 14, 14), as
    4M takes it; `clip_global`: float32 (dim,), what open_clip's `encode_image` returns, not scaled to length 1.

    Weights: a folder with open_clip_config.json and open_clip_model.safetensors, or a file of a state dict. The view is
    scaled to the model's input (bicubic, antialiased, by torchvision) and normalised by the config's mean and std; a
    bare file is taken to want OpenAI's. The text tower is never read.
    """

    on = "view"
    weights = Weights(
        DEFAULT_WEIGHTS,
        "MIT",
        "https://github.com/mlfoundations/open_clip",
        {"timm/*metaclip*": "CC-BY-NC-4.0", "timm/*_clip_*.openai": "MIT", "laion/CLIP-*": "MIT"},
    )
    resources = Resources(cpus=1.0, gpus=0.25, memory=2 * 2**30)
    batch_size = 32
    autocast = "float16"
    Params: ClassVar[type[BaseModel]] = ClipParams

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        self._source = self.weights_path or DEFAULT_WEIGHTS
        self._config = DEFAULT_CONFIG if self._source == DEFAULT_WEIGHTS else self._read_config()
        vision = self._config["model_cfg"]["vision_cfg"]
        dim, image = self._config["model_cfg"]["embed_dim"], vision.get("image_size", 224)
        self._grid = image // vision.get("patch_size", 16)
        wanted = self._config.get("preprocess_cfg", {})
        self._preprocessing = Preprocessing(
            image,
            tuple(wanted.get("mean") or CLIP_MEAN),
            tuple(wanted.get("std") or CLIP_STD),
            wanted.get("interpolation") or "bicubic",
        )
        self.makes = (
            Modality("clip", FeatureMap(dim, self._grid, self._grid)),
            Modality("clip_global", Vector(dim)),
        )

    def load(self, device: str) -> None:
        with naming_extras():
            import open_clip
        import torch

        self._device = device
        if self._source == DEFAULT_WEIGHTS:
            self._config = self._read_config()
        config, file = self._config["model_cfg"], _weights_file(Path(self._source))
        _refuse_torchscript(file)
        tensors = read_tensors(file, (_TOWER,))
        with torch.device("meta"):
            tower = open_clip.CLIP(
                config["embed_dim"],
                open_clip.CLIPVisionCfg(**{**config["vision_cfg"], "output_tokens": True}),
                open_clip.CLIPTextCfg(),  # only to be thrown away
                quick_gelu=config.get("quick_gelu", False),
            ).visual
        tensors = {name.removeprefix(_TOWER): tensor for name, tensor in tensors.items()}
        self._tower = fill(tower.to_empty(device="cpu"), tensors, file).to(device)

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        with naming_extras():
            import open_clip
        from safetensors.torch import save_file

        model = {
            "embed_dim": 24,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 224, "patch_size": 16, "width": 32, "head_width": 16, "layers": 2},
            "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
        }
        config = {"model_cfg": model, "preprocess_cfg": {"mean": CLIP_MEAN, "std": CLIP_STD}}
        with seeded():
            tensors = open_clip.CLIP(**model).state_dict()
        save_file(tensors, folder / WEIGHTS_FILES[0], metadata={"format": "pt"})
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2))
        return folder

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        import torch

        with torch.inference_mode():
            pooled, patches = self._tower(self._preprocessing(np.asarray(batch.images), self._device))
            return {"clip": feature_maps(patches @ self._tower.proj, self._grid), "clip_global": vectors(pooled)}

    def _read_config(self) -> dict[str, Any]:
        """open_clip's config of the checkpoint, whose model this labeler can use. A hub id becomes its folder here."""
        if not Path(self._source).exists():
            self._source = _fetched(self._source)
        path = Path(self._source)
        if path.is_dir() and self.params.model:
            raise CheckpointError(f"{path}: a folder has its own {CONFIG_FILE}; leave out the parameter `model`")
        config = _folder_config(path) if path.is_dir() else _file_config(path, self.params.model)
        problem = _problem(config["model_cfg"]["vision_cfg"])
        if problem:
            raise CheckpointError(f"{path}: its vision tower isn't a plain vision transformer of open_clip ({problem})")
        return config


def _problem(vision: Mapping[str, Any]) -> str | None:
    """Why the tower's patch tokens aren't normed and projected as its class token is, or None where they are."""
    for name in ("timm_model_name", "attentional_pool", "final_ln_after_pool"):
        if vision.get(name):
            return name
    if not isinstance(vision.get("layers", 12), int):
        return "a ResNet"
    if vision.get("pool_type", "tok") != "tok":
        return f"pool_type {vision['pool_type']}"
    return None if isinstance(vision.get("image_size", 224), int) else "its input isn't a square"


def _folder_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if {"embed_dim", "vision_cfg"} <= config["model_cfg"].keys():
            return config
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: there is no {CONFIG_FILE} in this folder; it must hold a checkpoint of open_clip, for example "
            f"{DEFAULT_WEIGHTS}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise CheckpointError(f"{path}: isn't a config of open_clip (JSON with model_cfg, in it embed_dim and vision_cfg)")


def _file_config(file: Path, model: str | None) -> dict[str, Any]:
    """The config of a state dict in a bare file: open_clip's of the name `model`, else by the shapes of its tensors."""
    if model:
        with naming_extras():
            import open_clip
        config = open_clip.get_model_config(model)
        if config is None:
            raise CheckpointError(f"{file}: open_clip knows no model {model!r}; see open_clip.list_models()")
        return {"model_cfg": config}
    _refuse_torchscript(file)
    tensors = read_tensors(file, (_TOWER, *_OPENAI_KEYS))
    if f"{_TOWER}proj" not in tensors or f"{_TOWER}conv1.weight" not in tensors:
        raise CheckpointError(f"{file}: has no {_TOWER}conv1.weight or {_TOWER}proj; is it CLIP with a ViT?")
    if not any(name in tensors for name in _OPENAI_KEYS):
        raise CheckpointError(
            f"{file}: which activation the model has can't be told from a bare file; name its architecture with the "
            f"parameter `model`, for example ViT-B-16 (or ViT-B-16-quickgelu for OpenAI's weights)"
        )
    width, _, _, patch = tensors[f"{_TOWER}conv1.weight"].shape
    grid = math.isqrt(tensors[f"{_TOWER}positional_embedding"].shape[0] - 1)
    layers = sum(name.startswith(_TOWER) and name.endswith(".attn.in_proj_weight") for name in tensors)
    vision = {"image_size": grid * patch, "patch_size": patch, "width": width, "layers": layers}
    dim = tensors[f"{_TOWER}proj"].shape[1]
    return {"model_cfg": {"embed_dim": dim, "quick_gelu": True, "vision_cfg": vision}}


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    for name in WEIGHTS_FILES:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"{path}: there is neither {' nor '.join(WEIGHTS_FILES)} in this folder")


def _refuse_torchscript(file: Path) -> None:
    """OpenAI's own downloads are programs, which torch would have to run to get at the weights."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise CheckpointError(
                f"{file}: a TorchScript archive, which is code and isn't run here; give the same weights as the folder "
                f"{DEFAULT_WEIGHTS}, or where you trust it, convert it: "
                f"torch.save(torch.jit.load({file.name!r}).state_dict(), 'clip.pt')"
            )


def _fetched(hub_id: str) -> str:
    """The folder of open_clip's files, from the hub or its cache."""
    with naming_extras():
        from huggingface_hub import snapshot_download
    try:
        return snapshot_download(hub_id, allow_patterns=[CONFIG_FILE, *WEIGHTS_FILES])
    except Exception as error:
        raise CheckpointError(
            f"{hub_id} is neither a local file or folder nor could it be fetched from the hub ({error}); "
            f"give `weights` the path of a folder with {CONFIG_FILE} and {WEIGHTS_FILES[0]}"
        ) from error
