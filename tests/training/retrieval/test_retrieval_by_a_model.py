"""`tokenloom retrieve`: a model that has learnt to say vectors, and two datasets in which their like is found."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
import uuid
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from galleries import HOSTILE
from in_process import copy_objects, weave
from PIL import Image
from tokenloom.pipeline.dataset.dataset import open_dataset
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
from weaving import odd, recipe

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


def test_a_photograph_finds_itself_by_what_the_model_says_of_it(folder, tmp_path, capsys):
    """As by its own tokens; distances are those of all labels at once."""
    model, first = str(folder / "model"), str(folder / "first")
    dataset = open_dataset(first)
    tokenizer = load_tokenizer(dataset.store, "mean_colour", dataset.manifest.modalities["mean_colour"])
    rows = dataset.iterate(["mean_colour"], labels=["mean_colour"])
    labels = {row.key: row.values["mean_colour"] for row in rows if row.values["mean_colour"] is not None}
    for key in ("03", "17"):
        by_photo = found(capsys, model, first, "--from", str(folder / f"photos/{key}.png"), *BY, "--limit", "24")
        by_tokens = found(capsys, model, first, "--from", f"mean_colour={first}#{key}", *BY, "--limit", "24")
        assert [one["predicted"] for one in (by_photo, by_tokens)] == [True, False]
        assert by_photo["matches"] == by_tokens["matches"]
        assert by_photo["matches"][0]["key"] == key
        assert (by_photo["vectors"], by_photo["samples"], by_photo["lacking"]) == ("labels", 25, 1)
        (said,) = tokenizer.decode([dataset.get(key, modalities=["mean_colour"]).values["mean_colour"]])
        far = {name: float(np.linalg.norm(one - said)) for name, one in labels.items()}
        assert {one["key"]: one["distance"] for one in by_photo["matches"]} == pytest.approx(far, abs=1e-6)


def test_another_dataset_is_looked_through_by_its_tokens(folder, second, tmp_path, capsys):
    model = str(folder / "model")
    told = found(capsys, model, second, "--from", f"{folder}/photos/03.png", "--from", "caption=red", *BY)
    assert (told["vectors"], told["samples"], len(told["matches"])) == ("tokens", 7, 7)
    dataset = open_dataset(second)
    ids = {row.key: row.values["mean_colour"].tolist() for row in dataset.iterate(["mean_colour"])}
    np.save(tmp_path / "33.npy", dataset.modalities["mean_colour"].tokenizer().decode([np.array(ids["33"])])[0])
    itself = found(capsys, model, second, "--from", f"mean_colour={tmp_path}/33.npy", *BY)["matches"]
    same = [key for key, own in ids.items() if own == ids["33"]]
    assert [one["key"] for one in itself if one["distance"] == 0] == same


def test_a_published_model_goes_by_a_dataset(folder, second, tmp_path, capsys):
    """By the one that is searched, or another that has more modalities; one whose ids mean something else is named."""
    published, first = str(folder / "published"), str(folder / "first")
    photo = ("--from", str(folder / "photos/03.png"), *BY)
    assert run_command("retrieve", published, second, *photo, "--json") == 2
    assert "the ids of mean_colour mean something else to memory://" in capsys.readouterr().err
    told = found(capsys, published, second, *photo, "--dataset", first)
    assert told["matches"] == found(capsys, str(folder / "model"), second, *photo)["matches"]
    assert found(capsys, published, first, *photo)["predicted"]


def test_what_is_not_made_yet_is_counted_and_no_vector_at_all_is_named(folder, tmp_path, capsys):
    photo = ("--from", str(folder / "photos/03.png"), *BY)
    half, none = Store(str(tmp_path / "half")), Store(str(tmp_path / "none"))
    for store, kept in ((half, "-000000000000-"), (none, "nothing")):
        copy_objects(Store(str(folder / "first")), store)
        for entry in store.list("mean_colour"):
            if kept not in entry.name:
                store.delete(f"mean_colour/{entry.name}")
    told = found(capsys, str(folder / "model"), half.url, *photo)
    assert (told["samples"], told["unmade"]) == (5, 20)
    assert run_command("retrieve", str(folder / "model"), none.url, *photo, "--json") == 2
    assert "no sample has mean_colour yet" in capsys.readouterr().err
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.png").write_bytes(b"no picture")
    null = str(tmp_path / "null")
    weave(recipe(tmp_path / "corpus", null, {"mean_colour": odd("MeanColour")}, views={"size": 32}, max_failures=1))
    assert run_command("retrieve", str(folder / "model"), null, *photo, "--json") == 2
    assert "none of its 1 samples has mean_colour" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "BROKEN"), "photos/24.png: "),
        (("--from", "PHOTO", "--output", "PHOTOS"), "there is something else, which the page would replace"),
        (("--from", "PHOTO", "--output", "s3://bucket/page"), "a page is written to a local folder"),
    ],
)
def test_what_can_not_be_is_named(folder, capsys, words, said):
    places = {"PHOTOS": "photos", "PHOTO": "photos/03.png", "BROKEN": "photos/24.png"}
    here = [str(folder / places[word]) if word in places else word for word in words]
    assert run_command("retrieve", str(folder / "model"), str(folder / "first"), *here, *BY) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


_PROBE = """
window.addEventListener("load", async () => {
  const images = [...document.querySelectorAll("img")];
  for (const image of images) image.loading = "eager";
  await new Promise((go) => setTimeout(go, 500));
  document.body.dataset.seen = JSON.stringify({
    images: images.length, broken: images.filter((image) => image.naturalWidth === 0).length,
    hits: [...document.querySelectorAll(".match strong")].map((key) => key.textContent),
    given: document.querySelector("[data-modality=caption] .prose").textContent, title: document.title,
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
    hits = found(capsys, str(folder / "model"), str(folder / "first"), *words, *BY, "--limit", "3")["matches"]
    page = tmp_path / "page/index.html"
    (tmp_path / "page/probe.js").write_text(_PROBE)
    page.write_text(page.read_text().replace("</head>", '<script src="probe.js" defer></script></head>'))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=6000"]
    flags += ["--enable-logging=stderr", "--dump-dom", f"--user-data-dir={tmp_path / 'profile'}"]
    run = subprocess.run([chromium, *flags, page.as_uri()], capture_output=True, text=True, timeout=300, check=True)
    assert [line for line in run.stderr.splitlines() if "CONSOLE" in line] == []
    seen = json.loads(unescape(re.findall(r'data-seen="([^"]*)"', run.stdout)[0]))
    assert (seen["images"], seen["broken"], seen["strangers"]) == (4, 0, 0)
    assert seen["hits"] == [f"{at}. {one['key']}" for at, one in enumerate(hits, 1)]
    assert seen["given"].startswith("</script>")
    assert seen["title"] == "mean_colour · tokenloom retrieve"
