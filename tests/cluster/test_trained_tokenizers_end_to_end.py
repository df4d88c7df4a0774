"""A recipe with a trained tokenizer, from the command line: fitted and used in one run, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import without_ray
from tokenloom.pipeline.dataset.dataset import open_dataset

pytestmark = pytest.mark.slow

HELPERS = Path(__file__).parents[1] / "helpers"
RECIPE = """\
corpus: {corpus}
output: {output}
views: {{size: 32, count: 2}}
units: {{samples: 3}}
resources: {{workers: 1}}
modalities:
  rgb:
    keep: both
    tokenizer: {tokenizer}
"""
TRAINED = """
      name: mortal_tokenizers:MortalVQ
      params: {{codes: 16, encoder: vit_xt_enc, decoder: vit_xt_dec, patch_size: 8, deaths: {deaths}}}
      fit: {{steps: 12, batch_size: 4, checkpoint_every: 4, perceptual: {{weights: tiny}}}}"""


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def place(tmp_path_factory, corpus, tokenloom) -> Path:
    """A folder with a recipe, and the dataset that it makes without Ray."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "deaths").touch()
    trained = TRAINED.format(deaths=folder / "deaths")
    (folder / "mine.yaml").write_text(RECIPE.format(corpus=corpus, output=folder / "whole", tokenizer=trained))
    with without_ray():
        printed = tokenloom("run", folder / "mine.yaml")
    assert "fitting the tokenizer of rgb" in printed
    assert "6 samples in 2 units, 1 modality" in printed
    return folder


def test_a_run_fits_and_tokenises(place, tokenloom):
    assert "nothing missing" in tokenloom("verify", place / "whole", "--deep")
    assert not [name for name in files(place / "whole") if name.startswith("fit")]
    assert "nothing to do" in tokenloom("run", place / "mine.yaml")
    dataset = open_dataset(str(place / "whole"))
    assert dataset.modalities["rgb"].vocabulary == 16
    (config,) = (place / "whole" / "tokenizers").glob("*/config.json")
    fit = json.loads(config.read_text())["fit"]
    assert fit["perceptual_loss"] > 0
    assert len(fit["settings"]["perceptual"]["sha256"]) == 64
    rows = [row.values["rgb"] for row in dataset.iterate(["rgb"])]
    assert len({tuple(tokens) for tokens in rows}) == len(rows) == 12
    assert all(len(tokens) == 16 for tokens in rows)


def test_a_run_killed_while_it_trains_ends_in_the_same_bytes(place, tokenloom, ray_session):
    """The whole run, first, and then Ray Train's worker in the one that goes on."""
    output = place / "killed"
    again = ("run", place / "mine.yaml", "--output", output)
    (place / "deaths").write_text("6 5")
    code = "import sys, in_process; in_process.said(*sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": str(HELPERS)}
    killed = subprocess.run([sys.executable, "-c", code, *map(str, again)], env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not list((output / "rgb").glob("tokens-*"))
    printed = tokenloom(*again)
    assert "going on from step 4 of 12" in printed
    assert "going on from step 8 of 12" in printed
    assert (place / "deaths").read_text() == ""
    assert "6 samples in 2 units, 1 modality" in printed
    assert files(output) == files(place / "whole")


def test_a_tokenizer_is_measured(place, tokenloom):
    measured = json.loads(tokenloom("tokenizer", "eval", place / "whole", "rgb", "--json"))
    assert measured["labels"] == 12
    assert measured["codes"]["vocabulary"] == 16


def test_the_preview_shows_labels_beside_reconstructions_with_the_error(place, tokenloom):
    tokenloom("preview", place / "whole", "--output", place / "preview")
    shown = "".join(path.read_text() for path in (place / "preview").rglob("*.js"))
    assert "PSNR" in shown
