"""The commands of the group `tokenizer`: what they print, publish and train on."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from in_process import without_ray
from rich.console import Console
from small_dataset import write_dataset
from small_fits import PARAMS, SETTINGS, pictures
from tokenloom.labelers.contract.kinds import Image
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.pipeline.commands.progress import FitProgress
from tokenloom.pipeline.commands.publish import is_hub_id, published_files, push
from tokenloom.pipeline.commands.tokenizer import evaluate, fit_job, print_evaluation
from tokenloom.pipeline.dataset.layout import tokenizer_folder
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.fitting.evaluation import CodeFigures, Evaluation
from tokenloom.pipeline.fitting.open_tokenizer import TokenizerError, open_tokenizer
from tokenloom.pipeline.plan.recipe import RecipeError, parse_recipe
from tokenloom.tokenizers.codebooks.codebook import PatchCodebook, PatchParams
from tokenloom.tokenizers.fitting.figures import Figures
from tokenloom.tokenizers.fitting.settings import FitSettings
from tokenloom.tokenizers.networks.vq_checkpoint import read_published
from tokenloom.tokenizers.vq.vq import VQParams, VQTokenizer
from weaving import weave_here

pytestmark = pytest.mark.slow


def write_tokenizer(folder: Path, network: bool = True) -> Path:
    folder.mkdir(parents=True)
    labels = pictures(8)
    if network:
        tokenizer = VQTokenizer(Image(3), VQParams.model_validate(PARAMS))
        examples = np.concatenate([tokenizer.examples(label) for label in labels])
        tokenizer.finish(tokenizer.design(examples, 0), {"steps": 12, "loss": 0.25})
    else:
        tokenizer = PatchCodebook(Image(3), PatchParams(size=4, patch_size=4))
        tokenizer.fit(labels, 0)
    for name, data in tokenizer.to_files().items():
        (folder / name).write_bytes(data)
    return folder


def printed(show, width: int = 120) -> str:
    text = io.StringIO()
    show(Console(file=text, width=width))
    return text.getvalue()


# --- help -------------------------------------------------------------------------------------------------------------


def test_help_needs_nothing_heavy():
    """Whatever takes long to import is imported by the commands."""
    code = "import sys, tokenloom.pipeline.cli; print(sorted(set(sys.modules) & {'torch', 'ray', 'numpy'}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# --- eval -------------------------------------------------------------------------------------------------------------

CODES = CodeFigures(1024, 1, 0.912, 90, 512.3, 196, 1960)


def test_a_table_tells_errors_with_units_and_the_bound():
    errors, bound = {"psnr": 22.31, "ssim": 0.71}, {"psnr": 25.0, "ssim": 0.8}
    found = Evaluation("/data", "rgb", "vq", 44, True, errors, bound, CODES)
    lines = printed(lambda console: print_evaluation(console, found)).splitlines()
    assert lines[0] == "rgb by vq, over 44 labels"
    assert lines[2].split() == ["error", "value", "not", "quantised", "better", "what", "it", "is"]
    assert lines[3].split()[:6] == ["PSNR", "22.3", "dB", "25.0", "dB", "higher"]
    assert "91.2 % of 1,024 used, 90 dead; perplexity 512.3" in lines[6]
    assert "196.0 a label: 1,960 bits" in lines[7]


def test_without_a_network_there_is_no_bound():
    codes = CodeFigures(8, 3, 1, 0, 8, 3, 9)
    found = Evaluation("/data", "dinov2", "codebook", 44, False, {"cosine": 0.9}, None, codes)
    shown = printed(lambda console: print_evaluation(console, found))
    assert shown.startswith("dinov2 by codebook, over 44 labels, to which it was fitted: the dataset has no others")
    assert "not quantised" not in shown
    assert "of 3 x 8 used" in shown


def test_json_is_all_that_was_found(tmp_path, capsys):
    small = write_dataset(tmp_path / "dataset")
    evaluate(small.store.url, "caption", None, 2, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["labels"], found["errors"], found["bound"]) == (2, {"exact": 1.0, "word_f1": 1.0}, None)
    assert set(found["codes"]) == set(CodeFigures.__dataclass_fields__)


# --- push -------------------------------------------------------------------------------------------------------------


def test_what_is_pushed_loads_as_published(tmp_path, place, capsys):
    source = write_tokenizer(tmp_path / "fitted")
    push(str(source), f"{place.url}/tiny-rgb")
    assert "README.md" in capsys.readouterr().out
    for name in ("config.json", "model.safetensors"):
        assert place.read(f"tiny-rgb/{name}") == (source / name).read_bytes()
    here, there = (open_tokenizer(url, Image(3), lambda: None) for url in (str(source), f"{place.url}/tiny-rgb"))
    np.testing.assert_array_equal(here.encode(pictures(3)), there.encode(pictures(3)))
    config, rest, _ = read_published(source)
    assert (config.codebook_size, rest["tokenizer"]) == (16, "VQTokenizer")


def test_the_card_says_what_it_is(tmp_path):
    source = write_tokenizer(tmp_path / "fitted")
    card = published_files(str(source), "someone/tiny-rgb")["README.md"].decode()
    assert "# someone/tiny-rgb" in card
    assert "| codebook_size | 16 |" in card
    assert "| loss | 0.25 |" in card
    assert "weights: someone/tiny-rgb" in card
    assert "Not stated" in card
    assert "license" not in card


def test_the_card_of_a_datasets_tokenizer_names_the_labels_licence(tmp_path):
    small = write_dataset(tmp_path / "dataset")
    folder = tokenizer_folder(small.manifest.modalities["dinov2"].tokenizer_digest)
    network = write_tokenizer(tmp_path / "fitted")
    for path in network.iterdir():
        small.store.replace(f"{folder}/{path.name}", path.read_bytes())
    for source in ("dinov2", "dinov2/", folder):
        files = published_files(f"{small.store.url}/{source}", "out")
        assert files["model.safetensors"] == (network / "model.safetensors").read_bytes()
        card = files["README.md"].decode()
        assert 'license_name: "Apache-2.0"' in card
        assert "with the weights model (Apache-2.0)" in card


def test_what_cannot_be_pushed_is_named(tmp_path):
    plain = write_tokenizer(tmp_path / "plain", network=False)
    with pytest.raises(TokenizerError, match="PatchCodebook has no network"):
        push(str(plain), str(tmp_path / "out"))
    with pytest.raises(TokenizerError, match="there is no tokenizer"):
        push(str(tmp_path / "nowhere"), str(tmp_path / "out"))
    broken = write_tokenizer(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="isn't whole"):
        push(str(broken), str(tmp_path / "out"))
    (broken / "config.json").write_bytes(b"[1]")
    with pytest.raises(TokenizerError, match="no network"):
        push(str(broken), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_hub_id_is_two_names_that_are_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert is_hub_id("someone/tiny-rgb")
    for target in ("runs/tiny", "./a/b", "/a/b", "~/a", "a/b/c", "a", "a/", "/b", "s3://bucket/a", "file://a/b"):
        assert not is_hub_id(target), target


def test_a_hub_that_takes_nothing_is_named(tmp_path):
    """Tests are offline, as HF_HUB_OFFLINE tells the hub's own library."""
    source = write_tokenizer(tmp_path / "fitted")
    with pytest.raises(TokenizerError, match="someone/tiny-rgb: the hub didn't take it"):
        push(str(source), "someone/tiny-rgb")


# --- fit --------------------------------------------------------------------------------------------------------------


def fitting_recipe(photos: dict[str, bytes], folder: Path, **rgb):
    """A recipe with the labels of rgb, and its dataset."""
    corpus = folder / "photos"
    corpus.mkdir(parents=True)
    for name, photo in photos.items():
        (corpus / f"{name}.jpg").write_bytes(photo)
    content = {
        "corpus": str(corpus),
        "output": str(folder / "dataset"),
        "views": {"size": 32},
        "modalities": {"rgb": {"keep": "labels"}, "canny_edge": {"keep": "labels"}},
    }
    weave_here(parse_recipe(content))
    content["modalities"]["rgb"] = {"keep": "both", **rgb}
    return content


def test_a_fit_is_what_the_recipe_says(photos, tmp_path):
    chosen = {"params": PARAMS, "fit": SETTINGS}
    recipe = parse_recipe(fitting_recipe(photos, tmp_path, tokenizer=chosen) | {"seed": 7})
    job = fit_job(recipe, "rgb", str(tmp_path / "out"))
    assert (job.tokenizer, job.settings, job.seed) == ("vq", FitSettings.model_validate(SETTINGS), 7)
    assert job.params["codes"] == 16
    assert [label.shape for label in job.labels.read(Image(3))] == [(32, 32, 3)] * len(photos)
    edges = fit_job(recipe, "canny_edge", str(tmp_path / "out"))
    assert (edges.tokenizer, edges.settings) == ("vq", FitSettings())


def test_a_fit_that_cannot_be_is_named(photos, tmp_path):
    content = fitting_recipe(photos, tmp_path)
    recipe = parse_recipe(content)
    with pytest.raises(RecipeError, match=r"there is no 'depth'; the recipe has rgb"):
        fit_job(recipe, "depth", str(tmp_path / "out"))
    with pytest.raises(DatasetError, match="no dataset here"):
        fit_job(parse_recipe({**content, "output": str(tmp_path / "none")}), "rgb", str(tmp_path / "out"))
    with pytest.raises(TokenizerError, match="there is a tokenizer already"):
        fit_job(recipe, "rgb", str(write_tokenizer(tmp_path / "out")))
    more = {**content, "modalities": {**content["modalities"], "color_palette": {}}}
    with pytest.raises(DatasetError, match="no labels of color_palette are kept"):
        fit_job(parse_recipe(more), "color_palette", str(tmp_path / "new"))


def test_progress_in_plain_lines():
    figures = Figures(50, 0.12345, {}, 0.913, 402.7, 1.0, 1e-3, False, 128.0)
    settings = FitSettings(steps=100, batch_size=64)

    def show(console: Console) -> None:
        with FitProgress(console) as progress:
            progress.say("designing the network")
            for step in (50, 51, 100):  # the second comes too soon
                progress.trained(Figures(step, *list(figures.__dict__.values())[1:]), settings)

    designing, middle, end = printed(show).splitlines()
    assert designing == "designing the network ..."
    assert middle == (
        "step 50 of 100, loss 0.1235, codes used 91.3 %, perplexity 402.7, steps/s 2.00, left 25 s"
    )  # fmt: skip
    assert end.startswith("step 100 of 100")
    assert end.endswith("left 0 s")


def test_rounds_of_k_means_say_what_is_fitted_and_how_long_it_will_take(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def show(console: Console) -> None:
        with FitProgress(console) as progress:
            for done in (0, 1, 2):
                clock[0] = 100.0 + 6 * done
                progress.fitting("rgb", done, 6)

    assert printed(show).splitlines() == ["fitting rgb, round 1 of 6", "fitting rgb, round 3 of 6, left 24 s"]


def test_a_tokenizer_is_fitted_evaluated_and_pushed(tokenloom, photos, tmp_path):
    """By the commands."""
    content = fitting_recipe(photos, tmp_path, tokenizer={"params": PARAMS, "fit": SETTINGS | {"batch_size": 4}})
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(content))
    with without_ray():
        said = tokenloom("tokenizer", "fit", path, "rgb", "--to", tmp_path / "fitted")
    assert "step 12 of 12" in said
    found = json.loads(
        tokenloom("tokenizer", "eval", content["output"], "rgb", "--tokenizer", tmp_path / "fitted", "--json")
    )
    assert found["labels"] == len(photos)
    assert found["bound"]["psnr"] > 0
    assert found["codes"]["tokens"] == 64
    tokenloom("tokenizer", "push", tmp_path / "fitted", tmp_path / "public")
    assert sorted(entry.name for entry in (tmp_path / "fitted").iterdir() if entry.is_file()) == [
        "config.json", "metrics.jsonl", "model.safetensors"]  # fmt: skip
    assert sorted(entry.name for entry in (tmp_path / "public").iterdir()) == [
        "README.md", "config.json", "model.safetensors"]  # fmt: skip
