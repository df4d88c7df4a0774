"""The page of `tokenloom batches`: what it shows of samples, that its figures are the batches', and in a browser."""

from __future__ import annotations

import json
import re
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from galleries import HOSTILE, read_data, without_corpus
from in_process import weave
from PIL import Image
from tokenloom.training.data.batches import Batches
from tokenloom.training.data.opening import open_data
from tokenloom.training.show.figures import counted
from tokenloom.training.show.page import write_page
from tokenloom.training.show.samples import kept_patches
from training_recipes import NAMES, content, illustrated, noise, opened, run_command, two_datasets, written
from weaving import recipe


def test_patches_that_are_kept_are_as_they_were():
    picture = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    shown = kept_patches(picture, (2, 4), np.array([1, 6]))
    np.testing.assert_array_equal(shown[:3, 2:4], picture[:3, 2:4])
    np.testing.assert_array_equal(shown[3:, 4:6], picture[3:, 4:6])
    assert (shown[3:, :4] > 200).all()


def page_of(folder: Path) -> dict:
    function, (told,) = read_data(folder / "data/batches.js")
    assert function == "batches"
    return told


def test_the_page_says_what_the_batches_hold(tmp_path):
    for small in two_datasets(tmp_path):
        without_corpus(small, tmp_path)
    data = opened(tmp_path)
    figures, batches = counted(data.mixture, [next(iter(Batches(data.mixture, 16)))])
    write_page(data, figures, batches, tmp_path / "page", "train", 16, 100)
    told = page_of(tmp_path / "page")
    batch = batches[0]
    assert batch.targets.labels is not None
    assert [card["position"] for card in told["cards"]] == list(range(16))
    for row, card in enumerate(told["cards"]):
        for side, masked in (("input", batch.inputs), ("target", batch.targets)):
            counts = {name: cell[side]["count"] for name, cell in card["cells"].items() if cell[side]}
            held = {name: int((masked.modality[row] == place).sum()) for place, name in enumerate(batch.modalities)}
            assert counts == {name: count for name, count in held.items() if count}
        caption = card["cells"].get("caption", {}).get("input")
        if caption:
            assert len(caption["pieces"]) == caption["count"]
        for cell in card["cells"].values():
            for shown in filter(None, cell.values()):
                assert "picture" not in shown or (tmp_path / "page" / shown["picture"]).is_file()
    for place, one in enumerate(told["modalities"]):
        assert one["input"][0] == pytest.approx((batch.inputs.modality == place).sum() / 16, abs=1e-3)
        assert one["target"][1] == pytest.approx((batch.targets.modality == place).any(axis=1).mean(), abs=1e-3)
    assert [one["name"] for one in told["modalities"]] == NAMES
    assert {card["image"] for card in told["cards"]} == {None}  # this dataset has neither rgb nor its corpus
    write_page(data, figures, batches, tmp_path / "page", "train", 2, 100)  # in the place of the earlier one
    assert len(page_of(tmp_path / "page")["cards"]) == 2


def test_a_folder_of_something_else_is_refused_before_batches_are_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tokenloom.training.data.opening.open_data", lambda recipe: pytest.fail("it was opened"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine.txt").write_text("")
    written(tmp_path / "train.yaml", content(tmp_path))
    assert run_command("batches", str(tmp_path / "train.yaml"), "--output", str(tmp_path / "taken")) == 2
    assert "there is something else" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("file/page", "no page can be written there, since {}/file takes no folder (Not a directory)"),
        ("file", "there is something else, which the page would replace; name another folder by --output"),
        ("/proc/page", "no page can be written there, since /proc takes no folder (No such file or directory)"),
        ("s3://bucket/page", "a page is written to a local folder; copy it where it is wanted"),
    ],
)
def test_a_page_that_can_not_be_written_is_refused_before_batches_are_made(tmp_path, monkeypatch, capsys, where, said):
    monkeypatch.setattr("tokenloom.training.data.opening.open_data", lambda recipe: pytest.fail("it was opened"))
    (tmp_path / "file").write_text("")
    written(tmp_path / "train.yaml", content(tmp_path))
    output = where if where.startswith(("/", "s3:")) else str(tmp_path / where)
    assert run_command("batches", str(tmp_path / "train.yaml"), "--output", output) == 2
    line = capsys.readouterr().err
    assert said.format(tmp_path) in line
    assert line.count("\n") == 1


def test_pixels_and_embeddings_are_shown(tmp_path):
    """The patches of the picture that are seen, and which vectors of how many."""
    one = {"url": str(illustrated(tmp_path, noise())), "inputs": ["pixels", "corners"]}
    small = {"masking": "all2all", "input_tokens": 6, "target_tokens": 6, "batch_size": 16}
    data = open_data(written(tmp_path / "train.yaml", {"data": {"datasets": {"a": one}, **small}}))
    figures, batches = counted(data.mixture, [next(iter(Batches(data.mixture, 16)))])
    write_page(data, figures, batches, tmp_path / "page", "train", 16, 100)
    cards, shown = page_of(tmp_path / "page")["cards"], set()
    for row, card in enumerate(cards):
        for name, cell in card["cells"].items():
            if name in batches[0].arrays:
                assert cell["target"] is None
                shown.add(name)
        if "pixels" in card["cells"]:
            picture = np.asarray(Image.open(tmp_path / "page" / card["cells"]["pixels"]["input"]["picture"]))
            places = batches[0].inputs.position[row][
                batches[0].inputs.modality[row] == batches[0].modalities.index("pixels")
            ]
            whole = kept_patches(batches[0].arrays["pixels"][row], (2, 2), places)
            means = [one.reshape(2, 16, 2, 16, 3).mean(axis=(1, 3, 4)) for one in (picture, whole)]
            np.testing.assert_allclose(*means, atol=8)  # the page's picture is compressed
        if "corners" in card["cells"]:
            length = 1 + int(card["key"]) % 3
            vectors = card["cells"]["corners"]["input"]
            assert vectors["of"] == f"{length} vectors of 4 numbers"
            assert vectors["count"] == len(vectors["ids"])
            assert {one for one in vectors["ids"] if one is not None} <= set(range(length))
    assert shown == {"pixels", "corners"}


_PROBE = """
window.addEventListener("load", async () => {
  const images = [...document.querySelectorAll("img")];
  for (const image of images) image.loading = "eager";
  const wait = () => new Promise((go) => setTimeout(go, 50));
  for (let tries = 0; tries < 40 && images.some((image) => !image.complete); tries++) await wait();
  document.body.dataset.seen = JSON.stringify({
    images: images.length, broken: images.filter((image) => image.naturalWidth === 0).length,
    samples: document.querySelectorAll(".sample").length,
    modalities: [...document.querySelectorAll("tr[data-modality]")].map((row) => row.dataset.modality),
    sentinels: document.querySelectorAll(".sentinel").length, title: document.title,
    pieces: [...document.querySelectorAll(".piece")].map((piece) => piece.textContent),
    strangers: document.querySelectorAll("#main script, #main b, [onerror]").length,
  });
});
"""


def test_in_a_browser(chromium, photos, tmp_path):
    """A dataset of photographs, one of them with a hostile caption."""
    corpus = tmp_path / "photos"
    corpus.mkdir()
    for name, photo in photos.items():
        (corpus / f"{name}.jpg").write_bytes(photo)
        (corpus / f"{name}.txt").write_text(HOSTILE if name == "coffee" else f"a photograph called {name}")
    weave(recipe(corpus, tmp_path / "dataset", {"rgb": {}, "caption": {}, "canny_edge": {}}, views={"size": 64}))
    datasets = {"photos": {"url": str(tmp_path / "dataset")}}
    written(tmp_path / "train.yaml", {"data": {"datasets": datasets, "batch_size": 6}})
    words = ("batches", str(tmp_path / "train.yaml"), "--batches", "1", "--output", str(tmp_path / "page"))
    assert run_command(*words) == 0
    page = tmp_path / "page/index.html"
    (tmp_path / "page/probe.js").write_text(_PROBE)
    page.write_text(page.read_text().replace("</head>", '<script src="probe.js" defer></script></head>'))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=6000"]
    flags += ["--enable-logging=stderr", "--dump-dom", f"--user-data-dir={tmp_path / 'profile'}"]
    run = subprocess.run([chromium, *flags, page.as_uri()], capture_output=True, text=True, timeout=300, check=True)
    assert [line for line in run.stderr.splitlines() if "CONSOLE" in line] == []
    found = re.search(r'data-seen="([^"]*)"', run.stdout)
    assert found
    seen = json.loads(unescape(found[1]))
    assert (seen["samples"], seen["broken"], seen["strangers"]) == (6, 0, 0)
    assert seen["images"] > 12
    assert seen["modalities"] == ["rgb", "caption", "canny_edge"]
    assert seen["sentinels"] > 0
    assert seen["title"] == "train · tokenloom batches"
