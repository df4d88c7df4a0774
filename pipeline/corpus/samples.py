"""Samples as they come from a corpus, and the rule that cuts them into units."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..storage.store import Store
from .units import Unit

IMAGE_EXTENSIONS = frozenset(
    "jpg jpeg jpe jfif png webp gif bmp dib tif tiff ppm pgm pbm pnm avif".split()  # noqa: SIM905 - one line reads better
)
"""Extensions of image files, in lower case."""

LARGEST_IMAGE = 512 * 2**20
LARGEST_TEXT = 16 * 2**20
"""Bytes past which an image, or a text beside it, is refused unread: one sample must fit into memory."""

_LARGEST_KEY = 512
_SURROGATE = re.compile("[\ud800-\udfff]")


class CorpusError(ValueError):
    """A corpus that can't be read as the recipe says; the message says what to change."""


def changed_since(url: str) -> CorpusError:
    """What to raise for a file that isn't as it was listed."""
    return CorpusError(
        f"{url} has changed, or is gone, since it was listed: run the recipe again, which leaves what has changed as "
        f"it is; or with --take-changes, which makes it anew"
    )


class BadSample(ValueError):  # noqa: N818 - a finding about the input, as quarantine shows it
    """A sample that can't be used. error: the finding in one word; the message: in a sentence."""

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(reason)
        self.error = error


@dataclass(slots=True)
class Sample:
    """One image, encoded as it was found, with what came along. Fields hold JSON values and valid Unicode only."""

    key: str
    image: bytes | None
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rejection:
    """A sample, or with an empty key a part of a shard, that the corpus reader refused: why, and that in one word."""

    key: str
    reason: str
    error: str


@dataclass(slots=True)
class UnitSamples:
    """A unit with its samples, and what was refused on the way, both in the corpus' order."""

    unit: Unit
    samples: list[Sample] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)


@dataclass(frozen=True)
class UnitLimits:
    """The most that a unit holds: samples (refused ones count), and bytes of images with their texts."""

    samples: int = 256
    bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 99_999 or self.bytes < 1:
            raise ValueError(f"a unit holds 1 to 99,999 samples and at least 1 byte, not {self}")


@dataclass(frozen=True)
class Stretch:
    """A part of one corpus shard: its path in `store` and its bytes; from which position to which, None for its end.

    What is told of it, in the quarantine above all, names the path alone: a corpus may be moved.
    """

    store: Store
    path: str
    size: int
    start: int
    stop: int | None


@dataclass(frozen=True)
class Selection:
    """What to take of a sample. image: the column or extension that holds it; key: the column that does; fields: of
    what lies beside the image. None: what is found, by the conventions of the format."""

    image: str | None = None
    key: str | None = None
    fields: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """What lies at one position of a shard.

    size: bytes of the image and of all that lies beside it, wanted or not, good or refused: the units must not change
    when a recipe looks at other fields.
    """

    start: int
    size: int
    content: Sample | Rejection


def cut(items: Iterable[Item], shard: str, start: int, stop: int | None, limits: UnitLimits) -> Iterator[UnitSamples]:
    """Units of `items`, the first from `start`, the last until `stop`; one empty unit when there is no item.

    An item that would pass a limit opens the next unit, whatever its own size: so the cuts after a position that is
    a cut itself depend on nothing that lies before it.
    """
    unit, keys, count, size = UnitSamples(Unit(shard, start, stop, 0)), set(), 0, 0
    for item in items:
        if count and (count == limits.samples or size + item.size > limits.bytes):
            yield _closed(unit, item.start)
            unit, keys, count, size = UnitSamples(Unit(shard, item.start, stop, 0)), set(), 0, 0
        count, size = count + 1, size + item.size
        content = item.content
        if isinstance(content, Sample) and content.key in keys:
            content = Rejection(content.key, "another sample of this unit has the same key", "DuplicateKey")
        if isinstance(content, Sample):
            keys.add(content.key)
            unit.samples.append(content)
        else:
            unit.rejected.append(content)
    yield _closed(unit, stop)


def _closed(unit: UnitSamples, stop: int | None) -> UnitSamples:
    unit.unit = Unit(unit.unit.shard, unit.unit.start, stop, len(unit.samples))
    return unit


def rejection(key: str, error: BadSample) -> Rejection:
    """The ledger's line for a bad sample; keys that are no text or too long are shown as far as they can be."""
    shown = clean_text(key)
    return Rejection(shown if len(shown) <= _LARGEST_KEY else shown[:200] + "...", str(error), error.error)


def check_key(key: str) -> None:
    """Raises BadSample for a key that couldn't safely name a file."""
    problem = None
    if not key or key.endswith("/"):
        problem = "is empty"
    elif "\0" in key:
        problem = "holds a NUL"
    elif key.startswith("/"):
        problem = "is an absolute path"
    elif ".." in key.split("/"):
        problem = "leads out of its folder with `..`"
    elif len(key.encode("utf-8", "surrogatepass")) > _LARGEST_KEY:
        problem = f"is longer than {_LARGEST_KEY} bytes"
    if problem:
        raise BadSample("UnsafeKey", f"the sample's key {problem}")


def clean_key(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8 become `\\xe9`, so that different names stay different keys."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if _is_broken(name) else name


def clean_text(text: str) -> str:
    """The text with U+FFFD for every half of a surrogate pair, which UTF-8 can't hold."""
    return _SURROGATE.sub("\ufffd", text)


def fields_from(texts: Mapping[str, bytes], wanted: Collection[str] | None) -> dict[str, Any]:
    """The fields that the texts beside an image hold, by extension: `txt` is the caption, `json` an object of fields,
    any other text a field named by its extension; what isn't text is left out. The caption beats a field of the JSON.

    wanted: the only fields to keep, or None for all. Raises BadSample for a JSON that isn't an object.
    """
    fields: dict[str, Any] = {}
    if "json" in texts:
        fields.update(_parse_object(texts["json"]))
    for extension, data in sorted(texts.items()):
        if extension == "txt":
            fields["caption"] = data.decode("utf-8-sig", "replace").strip()
        elif extension != "json" and (text := _text_or_none(data)) is not None:
            fields[extension] = text
    return fields if wanted is None else {name: value for name, value in fields.items() if name in wanted}


def is_image(extension: str, chosen: str | None) -> bool:
    """Whether a file of that extension holds the image: the chosen one, or by default any that images have."""
    if chosen is not None:
        return extension.lower() == chosen.lower()
    return extension.rsplit(".", 1)[-1].lower() in IMAGE_EXTENSIONS


def is_text(extension: str, size: int, wanted: Collection[str] | None) -> bool:
    """Whether a file beside the image may hold wanted fields, going by its extension and its bytes."""
    extension = extension.lower()
    if is_image(extension, None) or (size > LARGEST_TEXT and extension not in ("json", "txt")):
        return False
    if wanted is None:
        return True
    return bool(wanted) if extension == "json" else {"txt": "caption"}.get(extension, extension) in wanted


def check_size(name: str, size: int, limit: int) -> None:
    """Raises BadSample for a file of more than `limit` bytes."""
    if size > limit:
        raise BadSample("TooLarge", f"{name} has {size:,} bytes, more than {limit:,}")


def jsonable(value: Any) -> Any:
    """The value with null for numbers that JSON lacks (NaN, infinities) and clean text, in depth."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {clean_text(name): jsonable(one) for name, one in value.items()}
    if isinstance(value, list):
        return [jsonable(one) for one in value]
    return value


def _is_broken(text: str) -> bool:
    return not text.isascii() and _SURROGATE.search(text) is not None


def _parse_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8-sig"))
        if isinstance(value, dict):
            return jsonable(value)
        problem = f"it holds a {type(value).__name__}, not an object"
    except (ValueError, RecursionError) as error:
        problem = clean_text(str(error))
    raise BadSample("InvalidJSON", f"the JSON beside the image can't be used: {problem}")


def _text_or_none(data: bytes) -> str | None:
    try:
        return None if b"\0" in data else data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return None
