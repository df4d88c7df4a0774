"""The recipes with every specialist, on tiny weights: from the command line to a verified dataset and its preview."""

from __future__ import annotations

import json

import pytest
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import read_manifest
from tokenloom.pipeline.plan.recipe import load_recipe
from tokenloom.pipeline.storage.store import Store

FEW = ["--set", "units.samples=3", "--set", "weights=tiny", "--set", "fit.units=1", "--set", "resources.workers=1"]
NETWORK = "{fit: {steps: 2, batch_size: 2}, params: {encoder: vit_xt_enc, decoder: vit_xt_dec, codes: 16}}"


@pytest.mark.parametrize(("name", "of_classes"), [("4m21", NETWORK), ("4m21-open", "null")])
def test_a_recipe_of_all_specialists_runs_and_is_verified_and_shown(
    name, of_classes, tokenloom, corpus_folder, tmp_path
):
    output = tmp_path / "dataset"
    tokenizer = ["--set", f"modalities.semseg_coco.tokenizer={of_classes}"]
    run = [name, "--corpus", corpus_folder, "--output", output, *FEW, *tokenizer]
    planned = tokenloom("plan", *run, "--calibrate", 0)
    modalities = list(load_recipe(name, corpus="photos", output="out").modalities)
    assert all(modality in planned for modality in modalities)
    printed = tokenloom("run", *run)
    assert "none (random numbers)" in printed
    assert "labels quarantined" not in printed
    assert "nothing missing" in tokenloom("verify", output, "--deep")
    tokenloom("preview", output, "--output", tmp_path / "preview")
    shown = "".join(path.read_text() for path in (tmp_path / "preview").rglob("*.js"))
    assert all(f'"{modality}"' in shown for modality in modalities)
    dataset = open_dataset(str(output))
    labels = [modality for modality in modalities if not dataset.modalities[modality].has_tokens]
    rows = list(dataset.iterate(modalities, labels=labels))
    assert len(rows) == 6
    for modality in modalities:
        assert any(row.values[modality] is not None for row in rows), modality
    manifest = read_manifest(Store(output))
    assert manifest is not None
    made_randomly = {n for n, card in manifest.modalities.items() if card.weights and card.weights.random}
    assert {"dinov2", "depth", "sam_instance", "clip"} <= made_randomly
    assert json.loads((output / "dataset.json").read_text())["modalities"]["depth"]["weights"]["source"] == "tiny"
