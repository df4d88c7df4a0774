"""The preview's cells: one modality of one view, as label, as decoded tokens and as tokens, in JSON and pictures."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from ..labelers.drawing import SIDE
from ..labelers.kinds import Kind
from ..tokenizers.text import VocabularyTokenizer
from ..tokenizers.tokenizer import Tokenizer
from .manifest import Manifest, ModalityCard
from .preview_source import Column, Seen

Json: TypeAlias = "dict[str, Any]"

LONGEST_TEXT = 2000
_LONGEST_VALUE = 200
_LARGEST_SIDE = 2 * SIDE
_FEW_COLOURS = 512
_QUALITY = 82
# Controls other than tab and newline, and the marks that turn the direction of writing: shown as codes, so that no key
# or caption looks like another.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def readable(text: str, longest: int) -> str:
    """The text for a person: what can't be seen as its code, cut after `longest` characters."""
    short = text if len(text) <= longest else f"{text[:longest]} … ({len(text):,} characters)"
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", short)


class Pictures:
    """The gallery's picture files, in `folder`/pictures."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, picture: np.ndarray, page: int, name: str) -> str:
        """Writes an RGB picture, uint8 (height, width, 3); its path from the gallery's root."""
        path = f"pictures/{page:04d}/{name}.webp"
        (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self._folder / path).write_bytes(to_webp(picture))
        return path


def to_webp(picture: np.ndarray) -> bytes:
    """The picture, at most twice SIDE large: without loss where it has few colours (edges, maps), else as a photograph."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
    drawn = image.getcolors(_FEW_COLOURS) is not None
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=drawn, quality=50 if drawn else _QUALITY, method=2)
    return buffer.getvalue()


class CellMaker:
    """Makes cells: dicts with `label`, `decoded` and `tokens`, as far as there are any, or with a `note` why not.

    What is shown is one of {"picture": path}, {"text": ...}, {"table": {name: value}}, {"palettes": [[[r, g, b]]]} and
    {"problem": ...}; tokens are {"ids": [...]} with the `pieces` of text tokens.
    """

    def __init__(self, manifest: Manifest, tokenizers: Mapping[str, Tokenizer], pictures: Pictures) -> None:
        self._cards, self._views = manifest.modalities, manifest.views["count"]
        self._tokenizers, self._pictures = tokenizers, pictures
        self._places = {name: index for index, name in enumerate(self._cards)}

    def cells(self, name: str, column: Column, seen: Mapping[tuple[int, int], Seen], files: Sequence[Any]) -> list[Json]:
        """The cells of one modality for the views in `seen`, in that order. files: (page, name) of each one's pictures."""
        tokens = [column.tokens[s * self._views + v] if column.tokens else None for s, v in seen]
        decoded = self._decode(name, tokens)
        return [
            self._cell(name, column, place, image, ids, label, file)
            for (place, image), ids, label, file in zip(seen.items(), tokens, decoded, files, strict=True)
        ]
