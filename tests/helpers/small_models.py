"""A model's folder as a training leaves it, of modalities of many kinds, with weights that nothing has trained."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from in_process import weave
from PIL import Image, ImageDraw
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.data.opening import open_data
from tokenloom.training.data.recipe import TrainingRecipe
from tokenloom.training.fit.export import export_model
from tokenloom.training.forms.meanings import files_of
from tokenloom.training.model.config import ModelConfig
from tokenloom.training.model.fourm import FourM
from tokenloom.training.model.from_data import modalities_of
from tokenloom.training.model.start import initialise
from weaving import odd, recipe

SIDE = 32
TEXTS = ["caption", "color_palette", "metadata", "det", "sam_instance", "human_poses", "facts"]
MODALITIES = ["rgb", "canny_edge", "mean_colour", *TEXTS]
"""Of which all are inputs and targets; pixels and `corners`, embeddings, are inputs alone."""


def pictured(folder: Path) -> Path:
    """A dataset of six pictures with all of these."""
    rng = np.random.default_rng(0)
    (folder / "corpus").mkdir(parents=True)
    for key in range(1, 7):
        image = Image.fromarray(rng.integers(0, 256, (4, 6, 3)).astype(np.uint8)).resize((60, 40))
        ImageDraw.Draw(image).ellipse([8, 5, 30, 30], fill=(200, 30 * key, 20))
        image.save(folder / f"corpus/{key}.png")
        (folder / f"corpus/{key}.txt").write_text(f"a red ball number {key} on a lawn")
    patches = {"name": "patch_codebook", "params": {"patch_size": 8, "size": 16}}
    parts = {"name": "product_codebook", "params": {"parts": 3, "size": 4}}
    seen = {name: {"labeler": f"seen_labelers:{one}"} for name, one in SEEN.items()}
    modalities = {
        "rgb": {"labeler": "rgb", "tokenizer": patches},
        "caption": {"labeler": "caption"},
        "canny_edge": {"labeler": "canny_edge", "tokenizer": patches},
        "mean_colour": odd("MeanColour", keep="tokens", tokenizer=parts),
        "color_palette": {"labeler": "color_palette"},
        "metadata": {"labeler": "metadata"},
        "facts": {"labeler": "seen_labelers:Facts"},
        "corners": odd("Corners"),
        **seen,
    }
    weave(recipe(folder / "corpus", folder / "dataset", modalities, views={"size": SIDE}))
    return folder / "dataset"


SEEN = {"det": "Boxes", "sam_instance": "Discs", "human_poses": "People"}


INPUTS = ["pixels", "corners", *MODALITIES]


def untrained(dataset: Path, output: Path, scale: float = 1.0, inputs: Sequence[str] = INPUTS) -> Path:
    """The folder `model` of a training's output, on the dataset. scale: of the weights, from which logits spread."""
    one = {"url": str(dataset), "inputs": list(inputs)}
    data = {"datasets": {"a": one}, "input_tokens": 64, "target_tokens": 64}
    mixture = open_data(TrainingRecipe.model_validate({"data": data})).mixture
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = initialise(FourM(ModelConfig(modalities_of(mixture), 32, 2, 2, 2))).eval()
        for name, one in network.named_parameters():
            if "mod_emb" not in name:
                one.data *= scale
    shutil.rmtree(output, ignore_errors=True)
    export_model(network, Store(output), files_of(mixture, network.config.names))
    return output / "model"
