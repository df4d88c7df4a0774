"""Previews in tests: photographs with hostile captions, and reading a gallery's data back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from small_dataset import SmallDataset
from tokenloom.pipeline.preview.preview import write_preview
from weaving import recipe, weave_here, write_manifest

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> "
    "&lt;b&gt; ' \" ]]> <!-- \u202eoverride مرحبا بالعالم 🚀 \u2028 ${1} \\u003c"
)
HOSTILE_KEY = "a <b>'\"&lt;coffee"


def gallery_of(small: SmallDataset, folder: Path, limit: int | None = 200) -> Path:
    return write_preview(small.store.url, folder / "gallery", limit).parent


def write_hostile_corpus(folder: Path, photos: dict[str, bytes]) -> Path:
    """The photographs with captions, one of them under a hostile key with a hostile caption, and a broken image."""
    folder.mkdir(parents=True)
    for name, photo in photos.items():
        (folder / f"{name}.jpg").write_bytes(photo)
        (folder / f"{name}.txt").write_text(f"a photograph called {name}")
    (folder / f"{HOSTILE_KEY}.jpg").write_bytes(photos["coffee"])
    (folder / f"{HOSTILE_KEY}.txt").write_text(HOSTILE)
    (folder / "broken.jpg").write_bytes(photos["rocket"][:5000])
    return folder


def weave_photos(folder: Path, photos: dict[str, bytes], *more: str) -> Path:
    """A dataset of labels from that corpus, beside it: light labelers, and those of `more`."""
    corpus = write_hostile_corpus(folder / "photos", photos)
    names = ("caption", "canny_edge", "color_palette", "metadata", *more)
    modalities = {name: {"keep": "labels"} for name in names}
    weave_here(recipe(corpus, folder / "dataset", modalities, views={"size": 96}, units={"samples": 4}))
    return folder / "dataset"


def read_data(path: Path) -> tuple[str, list[Any]]:
    """The function that a data script calls, and its arguments."""
    text = path.read_text(encoding="ascii")
    function, _, rest = text.removeprefix("tokenloom.").partition("(")
    return function, json.loads("[" + rest.removesuffix(");\n") + "]")


def overview_of(gallery: Path) -> dict[str, Any]:
    function, (overview,) = read_data(gallery / "data" / "overview.js")
    assert function == "start"
    return overview


def cards_of(gallery: Path) -> list[dict[str, Any]]:
    """All cards, with their cells by modality."""
    names = [modality["name"] for modality in overview_of(gallery)["modalities"]]
    cards = []
    for number, path in enumerate(sorted((gallery / "data").glob("page-*.js"))):
        function, (page, found) = read_data(path)
        assert (function, page) == ("page", number)
        cards += [{**card, "cells": dict(zip(names, card["cells"], strict=True))} for card in found]
    return cards


def without_corpus(small: SmallDataset, folder: Path) -> SmallDataset:
    """The dataset with a corpus that is no longer there."""
    corpus = replace(small.manifest.corpus, root=str(folder / "gone"))
    manifest = replace(small.manifest, corpus=corpus)
    write_manifest(small.store, manifest)
    return replace(small, manifest=manifest)
