"""The preview's cells: one modality of one view, as label, as decoded tokens and as tokens, in JSON and pictures."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from ...labelers.contract.drawing import SIDE
from ...labelers.contract.kinds import Kind
from ...tokenizers.contract.tokenizer import Tokenizer
from ...tokenizers.measures.reconstruction import MEASURES, ErrorSum
from ...tokenizers.text.base import VocabularyTokenizer
from ..dataset.manifest import Manifest
from ..views.content import Content
from ..views.view_pixels import GREY, RGB, Seen, label_seen

Json: TypeAlias = "dict[str, Any]"

PAGE = 24
"""Cards on a page."""
VIEW = "view"
"""The name of the card's own picture."""

LONGEST_TEXT = 2000
MOST_PIECES = 1024
"""Tokens of a text that are shown: whole documents may have millions."""
_LONGEST_VALUE = 200
_LARGEST_SIDE = 2 * SIDE
_FEW_COLOURS = 512
# Controls other than tab and newline, and the marks that turn the direction of writing: shown as codes, so that no key
# or caption looks like another.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def readable(text: str, longest: int) -> str:
    """The text for a person: what can't be seen as its code, cut after `longest` characters."""
    short = text if len(text) <= longest else f"{text[:longest]} … ({len(text):,} characters)"
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", short)


class Pictures:
    """The gallery's picture files: pictures/<page>/<card's number>-<name>.webp in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, picture: np.ndarray, card: int, name: str) -> str:
        """Writes an RGB picture, uint8 (height, width, 3), of a card; its path from the gallery's root."""
        path = self.path(card, name)
        (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self._folder / path).write_bytes(to_webp(picture))
        return path

    @staticmethod
    def path(card: int, name: str) -> str:
        """Of a picture that was added, or will be."""
        return f"pictures/{card // PAGE:04d}/{card:06d}-{name}.webp"


def to_webp(picture: np.ndarray) -> bytes:
    """The picture, at most twice SIDE large: without loss where it has few colours (edges, maps), else as a photo."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
    drawn = image.getcolors(_FEW_COLOURS) is not None
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=drawn, quality=20 if drawn else 82, method=1 if drawn else 2)
    return buffer.getvalue()


@dataclass(frozen=True)
class Unshowable:
    """In the place of a label that could not be had."""

    reason: str


class CellMaker:
    """Makes cells: dicts with `label`, `decoded`, `errors` and `tokens`, as far as there are any, and a `state` and
    `note` where something is wrong.

    errors: how far `decoded` is from `label`, as [name, value with its unit, what it measures]; `incomparable` says why
    that can't be told. The label of rgb is the view itself, kept or not.

    What is shown is one of {"picture": path}, {"text": ...}, {"table": {name: value}}, {"palettes": [[[r, g, b]]]} and
    {"problem": ...}; tokens are {"ids": [...]}, of text with their `pieces`, and how many `more` there are.
    """

    def __init__(self, manifest: Manifest, tokenizers: Mapping[str, Tokenizer], pictures: Pictures) -> None:
        self._cards, self._views = manifest.modalities, manifest.views["count"]
        self._tokenizers, self._pictures = tokenizers, pictures
        self._numbers = {name: number for number, name in enumerate(self._cards)}
        self.errors = {name: ErrorSum(card.label_kind) for name, card in self._cards.items()}

    def cells(
        self, name: str, content: Content, seen: Mapping[tuple[int, int], Seen], cards: Sequence[int]
    ) -> Iterator[Json]:
        """The cells of one modality for the views in `seen`, in that order. cards: the number of each one's card."""
        tokens = [content.tokens[s * self._views + v] if content.tokens is not None else None for s, v in seen]
        decoded = self._decode(name, tokens)
        for (sample, view), ids, label, card in zip(seen, tokens, decoded, cards, strict=True):
            if content.problem:
                yield {"state": "unread", "note": readable(content.problem, LONGEST_TEXT)}
                continue
            cell: Json = {}
            image, stem = seen[sample, view], f"{self._numbers[name]}"
            kept, whole = self._label(name, content, sample, view, image)
            if kept is not None:
                cell["label"] = self._show_label(name, kept, whole, image, (card, f"{stem}-label"))
            if ids is not None:
                kind = self._cards[name].label_kind
                cell["decoded"] = shown(kind, label, image.pixels, self._pictures, (card, f"{stem}-decoded"))
                cell |= {} if kept is None or whole else self._compare(name, kept, label)
                cell["tokens"] = shown_tokens(self._tokenizers[name], ids)
            failure = content.failure(content.keys[sample], view)
            if failure:
                cell |= {"state": "failed", "error": failure.error, "note": readable(failure.reason, LONGEST_TEXT)}
            yield cell or {"state": "missing"}

    def _label(self, name: str, content: Content, sample: int, view: int, seen: Seen) -> tuple[Any, bool]:
        """The label, if it is at hand, and whether it is of the whole image, since the view's crop isn't known."""
        card = self._cards[name]
        if name == RGB and seen.is_label:
            return seen.pixels, False
        if content.labels is None:
            return None, False
        encoded = content.labels[sample * self._views + view if card.on == "view" else sample]
        if encoded is None:
            return None, False
        found = _try(lambda: label_seen(card, encoded, seen))
        return (found, False) if isinstance(found, Unshowable) else (found[0], not found[1])

    def _compare(self, name: str, label: Any, decoded: Any) -> Json:
        """The reconstruction's errors, for a person; they count for the modality's means."""
        if isinstance(label, Unshowable) or isinstance(decoded, Unshowable):
            return {}
        found = _try(lambda: self.errors[name].add(label, decoded))
        if isinstance(found, Unshowable):
            return {"incomparable": readable(found.reason, LONGEST_TEXT)}
        return {"errors": said(found)} if found else {}

    def _decode(self, name: str, tokens: Sequence[np.ndarray | None]) -> list[Any]:
        """A label for every array of ids; where they can't be decoded together, one by one."""
        present = [place for place, ids in enumerate(tokens) if ids is not None]
        labels: list[Any] = [None] * len(tokens)
        if not present:
            return labels
        decode = self._tokenizers[name].decode
        try:
            found = decode([tokens[place] for place in present])  # type: ignore[misc]
        except Exception:  # of one label, which the next line finds out
            found = [_try(lambda place=place: decode([tokens[place]])[0]) for place in present]  # type: ignore[list-item]
        for place, label in zip(present, found, strict=True):
            labels[place] = label
        return labels

    def _show_label(self, name: str, label: Any, whole: bool, seen: Seen, file: tuple[int, str]) -> Json:
        """A label as the view sees it, or whole. That of rgb is the card's own picture."""
        kind = self._cards[name].label_kind
        if label is seen.pixels:
            return {"picture": self._pictures.path(file[0], VIEW)}
        if not whole:
            return shown(kind, label, seen.pixels, self._pictures, file)
        masks = getattr(label, "masks", None)
        size = (masks[0].height, masks[0].width) if masks else seen.pixels.shape[:2]
        blank = np.full((*size, 3), GREY, np.uint8)
        return {**shown(kind, label, blank, self._pictures, file), "whole": True}


def shown(kind: Kind, label: Any, image: np.ndarray, pictures: Pictures, file: tuple[int, str]) -> Json:
    """What a cell has of a label, or of an Unshowable. image: the view, uint8 (size, size, 3). file: the card's number,
    and the name of its picture, if it becomes one."""
    palettes = None if isinstance(label, Unshowable) else _palettes(label)
    if palettes:
        return {"palettes": palettes}
    found = label if isinstance(label, Unshowable) else _try(lambda: kind.show(label, image))
    if isinstance(found, Unshowable):
        return {"problem": readable(found.reason, LONGEST_TEXT)}
    if isinstance(found, str):
        return {"text": readable(found, LONGEST_TEXT)}
    if isinstance(found, Mapping):
        return {"table": {readable(n, 100): readable(v, _LONGEST_VALUE) for n, v in found.items()}}
    return {"picture": pictures.add(found, *file)}


def shown_tokens(tokenizer: Tokenizer, ids: np.ndarray) -> Json:
    """What a cell has of tokens."""
    if not isinstance(tokenizer, VocabularyTokenizer):
        return {"ids": ids.tolist()}
    some = ids[:MOST_PIECES].tolist()
    pieces = [readable(tokenizer.vocabulary.token(index), 60) for index in some]
    return {"ids": some, "pieces": pieces, **({"more": len(ids) - len(some)} if len(ids) > len(some) else {})}


def said(errors: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Errors as [name, value with its unit, what it measures and which way is better]."""
    measures = [(MEASURES[name], value) for name, value in errors.items()]
    return [(one.label, one.say(value), f"{one.title}; {one.better} is better") for one, value in measures]


def _try(make: Callable[[], Any]) -> Any:
    """What `make` returns, or why it couldn't: kinds and tokenizers may be a plugin's, and raise anything."""
    try:
        return make()
    except Exception as error:
        return Unshowable(f"{type(error).__name__}: {error}")


def _palettes(label: Any) -> list[Any] | None:
    """The colours of a record that holds nothing but lists of [r, g, b], one list per field; else None."""
    if not isinstance(label, dict) or not label:
        return None
    lists = list(label.values())
    colours = [colour for found in lists if isinstance(found, list) for colour in found]
    if all(isinstance(found, list) for found in lists) and colours and all(map(_is_colour, colours)):
        return lists
    return None


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in value)
