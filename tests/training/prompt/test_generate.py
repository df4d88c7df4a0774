"""`tokenloom generate`: what it writes is what its tokens stand for, the same each time, and mistakes are named."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from galleries import HOSTILE, read_data
from small_dataset import write_dataset
from small_models import TEXTS, untrained
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.fit.open_model import open_model
from tokenloom.training.forms.forms import Forms
from tokenloom.training.model import files
from training_recipes import run_command


@pytest.fixture(scope="module")
def run(pictures: Path) -> str:
    return str(pictures / "run")


@pytest.fixture(scope="module")
def forms(run: str) -> Forms:
    return open_model(run)[1]


def told(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "generate.json").read_text())


def labels(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "labels").iterdir()}


def generated(folder: Path, *words: str) -> dict[str, Any]:
    assert run_command("generate", *words, "-o", str(folder)) == 0
    return told(folder)


def agrees(folder: Path, forms: Forms) -> None:
    """Files hold what the tokens stand for, and the page shows each."""
    said, found = told(folder), labels(folder)
    _, (page,) = read_data(folder / "data/generate.js")
    for number, draw in enumerate(said["draws"]):
        card = next(one for one in page["cards"] if one["title"] == f"draw {number}")
        assert list(card["cells"]) == list(draw) == list(said["targets"])
        for name, one in draw.items():
            form = forms.target(name)
            (meant,) = form.decode([one["tokens"]])
            assert one["file"] == f"labels/{number}.{name}.{form.kind.extension}"
            assert found[f"{number}.{name}.{form.kind.extension}"] == form.kind.encode(meant.label)
            assert form.modality.form == "text" or len(one["tokens"]) == form.modality.length
            cell = card["cells"][name]
            assert "problem" not in cell["decoded"]
            assert cell["tokens"]["ids"] == one["tokens"]
            assert "picture" not in cell["decoded"] or (folder / cell["decoded"]["picture"]).is_file()


def test_a_photograph_becomes_every_modality(run, pictures, forms, tmp_path, capsys):
    said = generated(tmp_path / "out", run, "--from", str(pictures / "corpus/3.png"))
    assert set(list(said["targets"])[:2]) == {"canny_edge", "mean_colour"}  # first, and not the photograph again
    assert sorted(list(said["targets"])[2:]) == sorted(TEXTS)
    agrees(tmp_path / "out", forms)
    assert "1 draw of canny_edge, mean_colour, " in capsys.readouterr().out
    edges, boxes = said["targets"]["canny_edge"], said["targets"]["det"]
    assert (edges["scheme"], edges["steps"], edges["temperature"], edges["guidance"]) == ("roar", 1, 0.01, 2.0)
    assert boxes == {"tokenizer": boxes["tokenizer"], "temperature": 0.3, "guidance": 1.0, "top_k": 0, "top_p": 0.8}
    assert {name: said["targets"][name]["temperature"] for name in ("sam_instance", "human_poses", "metadata")} == {
        "sam_instance": 0.01,
        "human_poses": 0.1,
        "metadata": 0.1,
    }


def test_a_draw_is_the_same_each_time_whatever_is_beside_it(run, tmp_path):
    words = (run, "--from", "caption=a red ball", "--to", "rgb,metadata", "--set", "top_p=0")
    three = generated(tmp_path / "three", *words, "--n", "3")
    again = generated(tmp_path / "again", *words, "--n", "10")  # more than are drawn at a time
    assert three["draws"] == again["draws"][:3]
    assert labels(tmp_path / "three").items() <= labels(tmp_path / "again").items()
    assert len({json.dumps(draw["rgb"]["tokens"]) for draw in again["draws"]}) == 10
    other = generated(tmp_path / "other", *words, "--n", "1", "--seed", "1")
    assert other["draws"][0] != three["draws"][0]
    assert three["weights"] == other["weights"]


def test_anything_is_an_input_and_settings_are_set(run, pictures, forms, tmp_path):
    dataset, words = f"{pictures}/dataset", ("--set", "canny_edge.steps=3", "--set", "temperature=0.5")
    first = generated(tmp_path / "a", run, "--to", "canny_edge,color_palette", *words, "--from", "caption=a red ball")
    assert first["targets"]["canny_edge"]["steps"] == 3
    assert [one["temperature"] for one in first["targets"].values()] == [0.5, 0.5]
    inputs = [str(tmp_path / "a/labels/0.canny_edge.png"), str(tmp_path / "a/labels/0.color_palette.json")]
    given = [f"canny_edge={inputs[0]}", f"color_palette={inputs[1]}", 'facts={"size": 3}', f"corners={dataset}#2"]
    said = generated(tmp_path / "b", run, "--to", "rgb", *(word for one in given for word in ("--from", one)))
    assert [one["modality"] for one in said["given"]] == ["canny_edge", "color_palette", "facts", "corners"]
    assert said["targets"]["rgb"]["steps"] == 25
    assert said["targets"]["rgb"]["temperature_schedule"] == "onex:0.5:0.5"
    agrees(tmp_path / "b", forms)
    said = generated(tmp_path / "c", run, "--to", "canny_edge,rgb", "--from", f"{dataset}#2")
    assert {one["modality"] for one in said["given"]} == {"corners", "mean_colour", *TEXTS}


def test_another_dataset_and_an_average(tmp_path, capsys):
    write_dataset(tmp_path / "dataset")
    untrained(tmp_path / "dataset", tmp_path / "run", inputs=["caption", "color_palette", "dinov2"])
    words = (str(tmp_path / "run"), "--from", "caption=two cups", "--ensemble")
    said = generated(tmp_path / "out", *words)
    assert len(said["draws"]) == 10
    assert "no average of color_palette" in capsys.readouterr().out
    assert said["average"] == {"dinov2": {"file": "labels/average.dinov2.npy", "labels": 10}}
    each = [np.load(tmp_path / "out" / draw["dinov2"]["file"]) for draw in said["draws"]]
    mean = np.mean(np.stack(each), axis=0, dtype=np.float64).astype(np.float16)
    np.testing.assert_array_equal(np.load(tmp_path / "out/labels/average.dinov2.npy"), mean)
    agrees(tmp_path / "out", open_model(str(tmp_path / "run"))[1])
    _, (page,) = read_data(tmp_path / "out/data/generate.js")
    assert page["cards"][0]["title"] == "average of 10 draws"


def test_a_model_elsewhere_is_fetched_with_all_that_belongs_to_it(run, pictures, tmp_path, monkeypatch):
    """Its tensors in several files, its tokenizers in folders below."""
    monkeypatch.setattr(files, "_LARGEST", 2**16)
    untrained(pictures / "dataset", tmp_path / "parts")
    assert (tmp_path / "parts/model/model.safetensors.index.json").is_file()
    there = Store(f"memory://{uuid.uuid4()}")
    for path in sorted((tmp_path / "parts").rglob("*")):
        if path.is_file():
            there.replace(str(path.relative_to(tmp_path / "parts")), path.read_bytes())
    words = ("--from", "caption=a red ball", "--to", "rgb,metadata")
    here = generated(tmp_path / "here", run, *words)
    for number, url in enumerate((there.url, f"{there.url}/model")):
        away = generated(tmp_path / f"away-{number}", url, *words)
        assert (away["draws"], away["weights"]) == (here["draws"], here["weights"])


def test_mistakes_are_named_and_nothing_is_written(run, pictures, tmp_path, capsys):
    shutil.copytree(pictures / "run/model", tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizers"))
    untrained(pictures / "dataset", tmp_path / "mute", inputs=["rgb", "caption"])
    shutil.rmtree(tmp_path / "mute/model/tokenizers")
    (tmp_path / "torn.png").write_bytes((pictures / "corpus/1.png").read_bytes()[:200])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine.txt").write_text("")
    (tmp_path / "odd.txt").write_bytes(b"\xff\xfe")
    caption = ("--from", "caption=a red ball")
    for words, said in (
        ((run, "--to", "smell"), "has no modality 'smell'; it has "),
        ((run, "--to", "rgb,pixels"), "pixels is an input alone; what the model says is "),
        ((run, "--to", "rgb,rgb"), "rgb is named twice"),
        ((run, "--to", ","), "--to names no modality beside what is given; the model says "),
        ((run, *caption, "--to", "caption"), "--to caption: it is given already, by --from caption=a red ball"),
        ((run, "--from", str(tmp_path / "torn.png")), "torn.png: "),
        ((run, "--from", str(tmp_path / "none.png")), "none.png: no such file"),
        ((run, "--from", f"caption={tmp_path}/none.txt"), "none.txt: no such file"),
        ((run, "--from", f"caption={tmp_path}/odd.txt"), "odd.txt: isn't UTF-8"),
        ((run, "--from", "caption=\udcff"), "--from caption=?: isn't UTF-8"),
        ((run, "--from", f"{tmp_path}/torn.png/x"), "torn.png/x: can't be read as a file (Not a directory)"),
        ((run, "--from", "x" * 300), "can't be read as a file (File name too long)"),
        ((run, "--to", "rgb", "--set", "guidance=1e308"), "--set guidance=1e308: guidance: "),
        ((run, "--to", "rgb", "--set", "steps=1000000000"), "--set steps=1000000000: steps: "),
        ((run, "--to", "rgb", "--set", "temperature_schedule=onex:0:0"), "POWER more than 0"),
        ((run, "--to", "rgb", "--set", "temperature_schedule=onex:nan:1"), "LEAST is 0 or more"),
        ((run, "--from", "det={"), "--from det={: isn't a label of det: not JSON"),
        ((run, *caption, "--to", "rgb", "--set", "steps"), "--set steps: write TARGET.SETTING=VALUE"),
        ((run, *caption, "--to", "rgb", "--set", "det.top_k=3"), "det isn't generated; what is generated is rgb"),
        ((run, *caption, "--to", "rgb", "--set", "speed=3"), "no target has a setting 'speed'; they have temperature"),
        ((run, *caption, "--to", "rgb", "--set", "rgb.steps=0"), "--set rgb.steps=0: steps: "),
        ((run, *caption, "--to", "det", "--set", "det.steps=2"), "--set det.steps=2: steps: "),
        ((run, "--to", "rgb", "--set", "temperature_schedule=up"), "constant, linear or onex:LEAST:POWER"),
        ((run, "--to", "rgb", "--ensemble", "--n", "1"), "one draw is its own average"),
        ((str(tmp_path / "bare"), "--to", "rgb"), "rgb has no tokenizer, so that nobody knows what its ids mean"),
        ((str(tmp_path / "bare"), *caption), "caption has no tokenizer"),
        (
            (str(tmp_path / "mute"), "--from", str(pictures / "corpus/1.png")),
            "name a dataset that it was trained on",
        ),
        ((str(tmp_path / "nowhere"),), "a model is a folder with config.json"),
        ((run, "--to", "rgb", "--output", str(tmp_path / "taken")), "there is something else"),
        ((run, "--to", "rgb", "--output", "s3://bucket/page"), "a page is written to a local folder"),
    ):
        assert run_command("generate", "-o", str(tmp_path / "out"), *words) in (1, 2), words
        line = capsys.readouterr().err
        assert said in line
        assert line.count("\n") == 1, line
        assert not (tmp_path / "out").exists()
    words = (str(tmp_path / "bare"), "--to", "color_palette", "--dataset", str(pictures / "dataset"))
    generated(tmp_path / "out", *words)
    before = labels(tmp_path / "out")
    assert run_command("generate", *words, "-o", str(tmp_path / "out"), "--seed", "7") == 2
    assert "holds what was generated before; --overwrite puts this in its place" in capsys.readouterr().err
    assert labels(tmp_path / "out") == before
    assert generated(tmp_path / "out", *words, "--seed", "7", "--overwrite")["seed"] == 7


_PROBE = """
window.addEventListener("load", async () => {
  const images = [...document.querySelectorAll("img")];
  for (const image of images) image.loading = "eager";
  const wait = () => new Promise((go) => setTimeout(go, 50));
  for (let tries = 0; tries < 40 && images.some((image) => !image.complete); tries++) await wait();
  document.body.dataset.seen = JSON.stringify({
    broken: images.filter((image) => image.naturalWidth === 0).length, title: document.title,
    cards: [...document.querySelectorAll(".sample h2")].map((one) => one.textContent),
    tiles: [...document.querySelectorAll(".samples .sample:last-child .tile")].map((one) => one.dataset.modality),
    empty: [...document.querySelectorAll(".tile")].filter((one) => !one.querySelector(".cells")).length,
    strangers: document.querySelectorAll("#main script, #main b, [onerror]").length,
  });
});
"""


def test_in_a_browser(chromium, run, pictures, tmp_path):
    words = ("--from", str(pictures / "corpus/1.png"), "--from", f"caption={HOSTILE}", "--ensemble", "--n", "2")
    said = generated(tmp_path / "page", run, *words, "--to", "canny_edge,color_palette,metadata,det")
    page = tmp_path / "page/index.html"
    (tmp_path / "page/probe.js").write_text(_PROBE)
    page.write_text(page.read_text().replace("</head>", '<script src="probe.js" defer></script></head>'))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=6000"]
    flags += ["--enable-logging=stderr", "--dump-dom", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run([chromium, *flags, page.as_uri()], capture_output=True, text=True, timeout=300, check=True)
    assert [line for line in shown.stderr.splitlines() if "CONSOLE" in line] == []
    found = re.search(r'data-seen="([^"]*)"', shown.stdout)
    assert found
    seen = json.loads(unescape(found[1]))
    assert (seen["broken"], seen["empty"], seen["strangers"]) == (0, 0, 0)
    assert seen["cards"] == ["given", "average of 2 draws", "draw 0", "draw 1"]
    assert set(seen["tiles"]) == set(said["targets"])
    assert seen["title"].endswith("· tokenloom generate")
