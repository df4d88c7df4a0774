"""`tokenloom retrieve`: a model that has learnt to say vectors, and two datasets in which their like is found."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
import uuid
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from galleries import HOSTILE, read_data
from in_process import copy_objects, weave
from PIL import Image
from small_dataset import write_dataset
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import require_manifest
from tokenloom.pipeline.dataset.tokenizers import load_tokenizer
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.data.loader import TrainingBatches
from tokenloom.training.data.recipe import TrainingRecipe
from tokenloom.training.fit.export import export_model
from tokenloom.training.forms.meanings import files_of
from tokenloom.training.model.config import ModelConfig
from tokenloom.training.model.fourm import FourM
from tokenloom.training.model.from_data import modalities_of
from tokenloom.training.model.start import initialise
from tokenloom.training.model.tokens import Sides
from training_recipes import run_command
from weaving import odd, recipe, write_manifest

torch.set_num_threads(1)

CODES = {"name": "product_codebook", "params": {"parts": 3, "size": 16}}
BY = ("--by", "mean_colour")


def png(number: int) -> bytes:
    """Of one colour."""
    buffer = io.BytesIO()
    colour = np.random.default_rng(number).integers(0, 256, 3).astype(np.uint8)
    Image.fromarray(np.broadcast_to(colour, (32, 32, 3)).copy()).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `first`, which keeps labels, in units of five; `model`, which has learnt its colours from pixels; and
    `published`, the same without what says what its ids mean."""
    folder = tmp_path_factory.mktemp("retrieval")
    (folder / "photos").mkdir()
    for key in range(24):
        (folder / f"photos/{key:02}.png").write_bytes(png(key))
        (folder / f"photos/{key:02}.txt").write_text(f"picture {key}")
    (folder / "photos/24.png").write_bytes(b"no picture")
    modalities = {"caption": {"labeler": "caption"}, "mean_colour": odd("MeanColour", keep="both", tokenizer=CODES)}
    more = {"views": {"size": 32}, "units": {"samples": 5}, "max_failures": 0.5}
    weave(recipe(folder / "photos", folder / "first", modalities, **more))
    learnt(folder)
    shutil.copytree(folder / "model", folder / "published")
    (folder / "published/tokenizers/cards.json").unlink()
    return folder


def learnt(folder: Path) -> None:
    """A model that is given all pixels of a picture, and says its colour; of captions it knows nothing."""
    roles = {"inputs": ["pixels", "caption", "mean_colour"], "targets": ["mean_colour", "caption"]}
    scheme = {"inputs": {"pixels": 1.0}, "targets": {"mean_colour": 1.0}}
    data = {"datasets": {"a": {"url": str(folder / "first"), **roles}}, "masking": {"schemes": [scheme]}}
    sizes = {"batch_size": 25, "input_tokens": 4, "target_tokens": 3}
    batches = TrainingBatches(TrainingRecipe.model_validate({"data": {**data, **sizes}}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ModelConfig(modalities_of(batches.data.mixture), 32, 1, 1, 2)
        network = initialise(FourM(config))
        optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
        sides = Sides.of(config, next(iter(batches)), batches.modalities)
        for _ in range(60):
            optimiser.zero_grad()
            network(sides).sum().backward()
            optimiser.step()
    export_model(network.eval(), Store(str(folder)), files_of(batches.data.mixture, config.names))


@pytest.fixture(scope="module")
def second() -> str:
    """The URL of a dataset in memory that keeps tokens alone, of a tar without samples and one of seven."""
    corpus, url = (Store(f"memory://{uuid.uuid4()}") for _ in range(2))
    for name, keys in (("0.tar", range(0)), ("1.tar", range(30, 37))):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for key in keys:
                member = tarfile.TarInfo(f"{key}.png")
                member.size = len(png(key))
                tar.addfile(member, io.BytesIO(png(key)))
        corpus.replace(name, buffer.getvalue())
    modalities = {"mean_colour": odd("MeanColour", keep="tokens", tokenizer=CODES)}
    weave(recipe(f"{corpus.url}/*.tar", url.url, modalities, views={"size": 32}))
    return url.url


def found(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert run_command("retrieve", *words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_photograph_finds_itself(folder, tmp_path, capsys, monkeypatch):
    """By what the model says of it, its tokens, and its label; scores are those of all labels at once."""
    monkeypatch.chdir(tmp_path)
    model, first = str(folder / "model"), str(folder / "first")
    rows = open_dataset(first).iterate(["mean_colour"], labels=["mean_colour"])
    labels = {row.key: row.values["mean_colour"] for row in rows if row.values["mean_colour"] is not None}
    for key in ("03", "17"):
        np.save(tmp_path / f"{key}.npy", labels[key])
        by_photo = found(capsys, model, first, "--from", str(folder / f"photos/{key}.png"), *BY, "--n", "24")
        by_tokens = found(capsys, model, first, "--from", f"mean_colour={first}#{key}", *BY, "--n", "24")
        by_label = found(capsys, model, first, "--from", f"mean_colour={key}.npy", *BY, "--n", "24")
        assert [one["predicted"] for one in (by_photo, by_tokens, by_label)] == [True, False, False]
        assert by_photo["hits"] == by_tokens["hits"]
        assert (by_photo["vectors"], by_photo["samples"], by_photo["lacking"]) == ("labels", 24, 1)
        assert by_label["hits"][0]["key"] == key
        lengths = {name: np.linalg.norm(one) * np.linalg.norm(labels[key]) for name, one in labels.items()}
        scores = {name: float(one @ labels[key] / lengths[name]) for name, one in labels.items()}
        assert {one["key"]: one["score"] for one in by_label["hits"]} == pytest.approx(scores, abs=1e-6)
        ranks = [one["score"] for one in by_label["hits"]]
        assert ranks == sorted(ranks, reverse=True)


def test_another_dataset_is_looked_through_by_its_tokens(folder, second, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = str(folder / "model")
    hits = found(capsys, model, second, "--from", f"{folder}/photos/03.png", "--from", "caption=red", *BY)
    assert (hits["vectors"], hits["samples"], len(hits["hits"])) == ("tokens", 7, 7)
    assert hits["given"] == [f"{folder}/photos/03.png", "caption=red"]
    (note,) = hits["notes"]
    assert "tokenizer of mean_colour is another than the model's" in note
    dataset = open_dataset(second)
    ids = {row.key: row.values["mean_colour"].tolist() for row in dataset.iterate(["mean_colour"])}
    tokenizer = load_tokenizer(dataset.store, "mean_colour", dataset.manifest.modalities["mean_colour"])
    np.save("33.npy", tokenizer.decode([np.array(ids["33"])])[0])
    itself = found(capsys, model, second, "--from", "mean_colour=33.npy", *BY)["hits"]
    same = sorted(key for key, own in ids.items() if own == ids["33"])
    assert [one["key"] for one in itself if one["score"] == 1.0] == same
    _, (told,) = read_data(tmp_path / "retrieved/data/retrieved.js")
    assert [one["origin"] for one in told["hits"]] == ["corpus"] * 7


def test_datasets_that_do_not_fit_are_named(folder, second, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "without")
    other = Store(f"memory://{uuid.uuid4()}")
    copy_objects(Store(second), other)
    manifest = require_manifest(other)
    cards = {name: replace(card, params={"size": 448}) for name, card in manifest.modalities.items()}
    write_manifest(other, replace(manifest, modalities=cards))
    photo = ("--from", str(folder / "photos/03.png"), *BY)
    for model, dataset, said in (
        ("model", str(tmp_path / "without"), "without: has no mean_colour; its vectors are none"),
        ("model", other.url, "its mean_colour can't be compared with the model's: params {'size': 448}, and the"),
        ("published", second, "the ids of mean_colour mean something else to memory://"),
        ("published", str(tmp_path / "without"), "name a dataset that has it by --dataset"),
    ):
        assert run_command("retrieve", str(folder / model), dataset, *photo) != 0
        line = capsys.readouterr().err
        assert said in line
        assert line.count("\n") == 1
    first = str(folder / "first")
    published = found(capsys, str(folder / "published"), second, *photo, "--dataset", first)
    assert published["hits"] == found(capsys, str(folder / "model"), second, *photo)["hits"]
    assert found(capsys, str(folder / "published"), first, *photo)["predicted"]


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("--from", "PHOTO", "--by", "caption"), "caption isn't a vector of a whole sample; the vectors that the", 2),
        (("--from", "PHOTO", "--by", "imagebind_global"), "has no modality 'imagebind_global'; it has", 2),
        (("--from", "rgb=PHOTO", *BY), "has no modality 'rgb'; it has", 2),
        (("--from", "nowhere.png", *BY), "nowhere.png: no such file", 2),
        (("--from", "BROKEN", *BY), "24.png: ", 2),
        (("--from", "PHOTO", *BY, "--output", "PHOTOS"), "there is something else, which the page would replace", 2),
    ],
)
def test_what_can_not_be_is_named(folder, tmp_path, capsys, monkeypatch, words, said, code):
    monkeypatch.chdir(tmp_path)
    places = {"PHOTOS": "photos", "PHOTO": "photos/03.png", "BROKEN": "photos/24.png"}
    here = [str(folder / places[word]) if word in places else word for word in words]
    assert run_command("retrieve", str(folder / "model"), str(folder / "first"), *here) == code
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert not (tmp_path / "retrieved").exists()


_PROBE = """
window.addEventListener("load", () => {
  const images = [...document.querySelectorAll("img")];
  document.body.dataset.seen = JSON.stringify({
    images: images.length, broken: images.filter((image) => image.naturalWidth === 0).length,
    hits: [...document.querySelectorAll(".hit strong")].map((key) => key.textContent),
    given: document.querySelector(".given .prose").textContent, title: document.title,
    strangers: document.querySelectorAll("#main script, #main b, [onerror]").length,
  });
});
"""


def test_in_a_browser(chromium, folder, tmp_path, capsys):
    words = (
        "--from",
        str(folder / "photos/03.png"),
        "--from",
        f"caption={HOSTILE}",
        "--output",
        str(tmp_path / "page"),
    )
    hits = found(capsys, str(folder / "model"), str(folder / "first"), *words, *BY, "--n", "3")["hits"]
    page = tmp_path / "page/index.html"
    (tmp_path / "page/probe.js").write_text(_PROBE)
    page.write_text(page.read_text().replace("</head>", '<script src="probe.js" defer></script></head>'))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=6000"]
    flags += ["--enable-logging=stderr", "--dump-dom", f"--user-data-dir={tmp_path / 'profile'}"]
    run = subprocess.run([chromium, *flags, page.as_uri()], capture_output=True, text=True, timeout=300, check=True)
    assert [line for line in run.stderr.splitlines() if "CONSOLE" in line] == []
    seen = json.loads(unescape(re.findall(r'data-seen="([^"]*)"', run.stdout)[0]))
    assert (seen["images"], seen["broken"], seen["strangers"]) == (4, 0, 0)
    assert seen["hits"] == [one["key"] for one in hits]
    assert seen["given"].startswith("</script>")
    assert seen["title"] == "mean_colour · tokenloom retrieve"
