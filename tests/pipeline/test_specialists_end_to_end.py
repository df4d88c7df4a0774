"""The recipes with every specialist, on tiny weights: from the command line to a verified dataset and its preview.

Their stages are called in this process; tests/chaos/gpus.py has 4m21 on Ray, with and without GPUs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from in_process import without_ray
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import read_manifest
from tokenloom.pipeline.plan.recipe import Recipe, load_recipe
from tokenloom.pipeline.plan.steps import step_graph
from tokenloom.pipeline.storage.store import Store

pytestmark = pytest.mark.slow

FEW = ["--set", "units.samples=3", "--set", "weights=tiny", "--set", "fit.units=1", "--set", "resources.workers=1"]
NETWORK = "{fit: {steps: 2, batch_size: 2}, params: {encoder: vit_xt_enc, decoder: vit_xt_dec, codes: 16}}"


@pytest.fixture
def four(small_corpus, tmp_path) -> Path:
    """A corpus of four small photographs, two units: what a label costs is to write, to encode and to show it."""
    folder = tmp_path / "four"
    folder.mkdir()
    for path in sorted(small_corpus.glob("c*")) + sorted(small_corpus.glob("rocket*")):
        shutil.copy(path, folder)
    return folder


def lacking_in(recipe: Recipe, other: Recipe) -> dict[str, Any]:
    """What the one recipe makes and the other doesn't make likewise, and what it needs for that."""
    graph = step_graph(recipe)
    wanted = [name for name, settings in recipe.modalities.items() if other.modalities.get(name) != settings]
    names = graph.made_for(wanted, kept=())
    return {n: s.model_dump(exclude_unset=True) for n, s in recipe.modalities.items() if n in names}


def test_4m21_runs_and_is_verified_and_shown(tokenloom, four, tmp_path):
    tokenizer = ["--set", f"modalities.semseg_coco.tokenizer={NETWORK}"]
    with without_ray():
        runs_and_is_verified_and_shown("4m21", tokenizer, tokenloom, four, tmp_path)


def test_4m21_open_runs_and_is_verified_and_shown(tokenloom, four, tmp_path):
    """All that is in it and not in 4m21: captions by a model, normals from depth, skeletons, ..."""
    without = ["modalities.semseg_coco=null"]  # which 4m21 has, of other weights
    whole, other = (load_recipe(name, [*FEW[1::2], *without], "photos", "out") for name in ("4m21-open", "4m21"))
    path = tmp_path / "open.yaml"
    path.write_text(json.dumps({"modalities": lacking_in(whole, other)}))
    with without_ray():
        made = runs_and_is_verified_and_shown(path, [], tokenloom, four, tmp_path)
    assert {"caption", "normal", "skeletons", "siglip", "foreground", "ocr"} <= set(made)


def runs_and_is_verified_and_shown(recipe, more, tokenloom, four, tmp_path) -> list[str]:
    output = tmp_path / "dataset"
    run = [recipe, "--corpus", four, "--output", output, *FEW, *more]
    planned = tokenloom("plan", *run, "--calibrate", 0)
    modalities = list(load_recipe(recipe, corpus="photos", output="out").modalities)
    assert all(modality in planned for modality in modalities)
    printed = tokenloom("run", *run)
    assert "none (random numbers)" in printed
    assert "quarantined" not in printed
    assert "nothing missing" in tokenloom("verify", output, "--deep")
    tokenloom("preview", output, "--output", tmp_path / "preview")
    shown = "".join(path.read_text() for path in (tmp_path / "preview").rglob("*.js"))
    assert all(f'"{modality}"' in shown for modality in modalities)
    dataset = open_dataset(str(output))
    labels = [modality for modality in modalities if not dataset.modalities[modality].has_tokens]
    rows = list(dataset.iterate(modalities, labels=labels))
    assert len(rows) == 4
    for modality in modalities:
        assert any(row.values[modality] is not None for row in rows), modality
    manifest = read_manifest(Store(output))
    assert manifest is not None
    randomly = {n for n, card in manifest.modalities.items() if card.weights and card.weights.random}
    assert "depth" in randomly
    assert (
        json.loads((output / "manifests/00000002.json").read_text())["modalities"]["depth"]["weights"]["source"]
        == "tiny"
    )
    return modalities
