"""The preview in headless Chromium, opened from disk: its scripts run, its pictures load, nothing hostile does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from galleries import HOSTILE_KEY, weave_photos, without_corpus
from small_dataset import write_dataset
from tokenloom.pipeline.preview.preview import write_preview

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1400,1200",
    "--virtual-time-budget=6000",
    "--enable-logging=stderr",
    "--dump-dom",
)

# Goes through the addresses in ADDRESSES, and leaves what it saw at each in the page's body.
_PROBE = """
"use strict";
const wait = (time) => new Promise((resolve) => setTimeout(resolve, time));
const look = async () => {
  const images = [...document.querySelectorAll("img")];
  for (const image of images) image.loading = "eager";
  for (let tries = 0; tries < 40 && images.some((image) => !image.complete); tries++) await wait(50);
  return {
    images: images.length,
    broken: images.filter((image) => image.naturalWidth === 0).map((image) => image.getAttribute("src")),
    keys: [...document.querySelectorAll(".view strong")].map((element) => element.textContent),
    modalities: [...new Set([...document.querySelectorAll(".tile")].map((tile) => tile.dataset.modality))],
    canvases: document.querySelectorAll("canvas").length,
    panels: [...document.querySelectorAll(".panel h2")].map((element) => element.firstChild.textContent),
    bars: document.querySelectorAll(".chart rect").length,
    failures: [...document.querySelectorAll(".ledger tbody tr")].map((row) => row.textContent),
    captions: [...document.querySelectorAll(".prose")].map((element) => element.textContent),
    page: document.querySelector(".pager input")?.value,
    strangers: document.querySelectorAll("#main script, #main b:not(.figure b), [onerror]").length,
    title: document.title,
  };
};
window.addEventListener("load", async () => {
  const seen = [];
  for (const address of ADDRESSES) {
    const key = address.startsWith("press ") && address.slice(6);
    if (key) document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    else location.hash = address;
    await wait(150);
    seen.push(await look());
  }
  document.body.dataset.seen = JSON.stringify(seen);
});
"""


@pytest.fixture
def browse(chromium, tmp_path):
    """A function that tells what a browser shows of a gallery at each of the addresses (or after a key), and what it
    complains of on its console."""

    def browse(gallery: Path, *addresses: str) -> tuple[list[dict], list[str]]:
        copy = tmp_path / "probed"
        shutil.copytree(gallery, copy)
        (copy / "probe.js").write_text(_PROBE.replace("ADDRESSES", json.dumps(addresses)))
        page = (copy / "index.html").read_text()
        (copy / "index.html").write_text(page.replace("</head>", '<script src="probe.js" defer></script></head>'))
        command = [chromium, *_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", (copy / "index.html").as_uri()]
        run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        complaints = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
        found = re.search(r'data-seen="([^"]*)"', run.stdout)
        assert found, f"the probe didn't finish; the console says {complaints}"
        return json.loads(unescape(found[1])), complaints

    return browse


def test_photographs_with_hostile_texts(browse, photos, tmp_path):
    gallery = write_preview(str(weave_photos(tmp_path, photos))).parent
    seen, complaints = browse(gallery, "", "q=coffee", "hide=caption,metadata", "tab=quarantine", "q=nowhere")
    everything, coffee, hidden, quarantine, nowhere = seen
    assert complaints == []
    assert len(everything["keys"]) == len(photos) + 2
    assert everything["images"] == 2 * (len(photos) + 1)
    assert sorted(coffee["keys"]) == [HOSTILE_KEY, "coffee"]
    assert any("</script><script>" in caption for caption in coffee["captions"])
    assert sorted(hidden["modalities"]) == ["canny_edge", "color_palette"]
    assert [row.startswith("broken") for row in quarantine["failures"]] == [True] * 3
    assert nowhere["keys"] == []
    for look in seen:
        assert (look["broken"], look["strangers"]) == ([], 0)
        assert look["title"] == "dataset · tokenloom preview"


def test_pages_tokens_and_statistics(browse, tmp_path):
    dataset = without_corpus(write_dataset(tmp_path / "dataset"), tmp_path)
    gallery = write_preview(dataset.store.url).parent
    seen, complaints = browse(gallery, "", "press ArrowRight", "press ArrowLeft", "page=2", "tab=statistics")
    first, second, back, addressed, statistics = seen
    assert complaints == []
    assert [look["page"] for look in seen[:4]] == ["1", "2", "1", "2"]
    assert (len(first["keys"]), len(second["keys"])) == (24, 8)
    assert (back["keys"], addressed["keys"]) == (first["keys"], second["keys"])
    assert first["canvases"] == 24
    assert first["broken"] == second["broken"] == []
    assert statistics["panels"] == list(dataset.manifest.modalities)
    assert statistics["bars"] > 10
