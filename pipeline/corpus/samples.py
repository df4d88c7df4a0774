"""Samples as they come from a corpus, and the rule that cuts them into units."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..storage.store import Store
from .left_out import LEFT_OUT, Account, Why
from .names import clean_text
from .units import Unit

IMAGE_EXTENSIONS = frozenset(
    "jpg jpeg jpe jfif png webp gif bmp dib tif tiff ppm pgm pbm pnm avif".split()  # noqa: SIM905 - one line reads better
)
"""Extensions of image files, in lower case."""

UNREAD_EXTENSIONS = frozenset(
    "heic heif jp2 j2k jpx jxl cr2 cr3 crw nef arw dng raf orf rw2 pef srw psd svg tga exr hdr ico".split()  # noqa: SIM905
)
"""Extensions of images that aren't read."""

LARGEST_IMAGE = 512 * 2**20
LARGEST_TEXT = 16 * 2**20
"""Bytes past which an image, or a text, is refused unread: one sample must fit into memory."""

TEXT = "text"
"""The field that holds the text of a sample without an image, whatever it is called in the corpus."""

_LARGEST_KEY = 512
_DEEPEST = 100
_WHOLE = 64
"""So many refused samples of no bytes count as one."""
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before that of UTF-16, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class CorpusError(ValueError):
    """A corpus that can't be read as the recipe says; the message says what to change."""


def changed_since(url: str) -> CorpusError:
    """What to raise for a file that isn't as it was listed."""
    return CorpusError(
        f"{url} has changed, or is gone, since it was listed: run the recipe with --take-changes, which makes it anew; "
        f"without, a run leaves what was made of it as it is. Where the corpus lies elsewhere now, run the recipe with "
        f"--corpus for its new place"
    )


def read_as_listed(store: Store, path: str, size: int, grows: bool = False) -> bytes:
    """A file that had so many bytes when it was listed. Raises CorpusError where it hasn't any more. grows: unless it
    has more now."""
    try:
        data = store.read(path)
    except FileNotFoundError:
        raise changed_since(f"{store.url}/{path}") from None
    if len(data) < size or (len(data) > size and not grows):
        raise changed_since(f"{store.url}/{path}")
    return data


class BadSample(ValueError):  # noqa: N818 - a finding about the input, as quarantine shows it
    """A sample that can't be used. error: the finding in one word; the message: in a sentence."""

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(reason)
        self.error = error


@dataclass(slots=True)
class Sample:
    """One image, encoded as it was found, or one text, in the field TEXT and without an image; with what came along.
    Fields hold JSON values and valid Unicode only."""

    key: str
    image: bytes | None
    fields: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes of the image, or of the text."""
        return len(self.fields[TEXT].encode() if self.image is None and TEXT in self.fields else self.image or b"")


@dataclass(frozen=True, slots=True)
class Rejection:
    """A sample, or with an empty key a part of a shard, that the corpus reader refused: why, and that in one word.
    With LEFT_OUT for that it tells of what lies beside samples, and isn't taken."""

    key: str
    reason: str
    error: str

    @property
    def is_note(self) -> bool:
        return self.error == LEFT_OUT

    @property
    def is_of_shard(self) -> bool:
        """Whether it tells of a part of a shard that can't be read."""
        return not self.key and not self.is_note


@dataclass(slots=True)
class UnitSamples:
    """A unit with its samples, and what was refused on the way, both in the corpus' order. left_out: what isn't taken,
    of which `rejected` tells, too. packed, again: as of Item."""

    unit: Unit
    samples: list[Sample] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    left_out: Account = field(default_factory=Account, compare=False)
    packed: int = field(default=0, compare=False)
    again: int = field(default=0, compare=False)


@dataclass(frozen=True)
class UnitLimits:
    """The most that a unit holds: samples (refused ones count, as `Item.weight` has it), and bytes of images with their
    texts."""

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
    what lies beside the image. None: what is found, by the conventions of the format. split: at which dot of a tar's
    name the key ends. text: the column or field of the text, in a corpus of texts; None in one of images."""

    image: str | None = None
    key: str | None = None
    fields: Collection[str] | None = None
    split: Literal["first", "last"] = "first"
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """What lies at one position of a shard.

    size: bytes of the image and of all that lies beside it, wanted or not, good or refused: the units must not change
    when a recipe looks at other fields. content: None where nothing was to be taken. left_out: names of what is there,
    and isn't taken. packed: bytes that were read of a compressed file for it; again: those that had to be read once
    more to come here, before the first item that was asked for.
    """

    start: int
    size: int
    content: Sample | Rejection | None
    left_out: Sequence[tuple[Why, str]] = ()
    packed: int = 0
    again: int = 0

    @property
    def weight(self) -> int:
        """What it counts towards a unit's samples, of which each counts _WHOLE: what isn't there costs few bytes of a
        file, and must not cost a shard for each 256. A row without an image has a line in the quarantine, though."""
        if self.content is None:
            return 0
        is_there = self.size or isinstance(self.content, Sample) or self.content.is_of_shard
        return _WHOLE if is_there else 1


def cut(items: Iterable[Item], shard: str, start: int, stop: int | None, limits: UnitLimits) -> Iterator[UnitSamples]:
    """Units of `items`, the first from `start`, the last until `stop`; one empty unit when there is no item.

    An item that would pass a limit opens the next unit, whatever its own size: so the cuts after a position that is
    a cut itself depend on nothing that lies before it.
    """
    unit, keys, weight, size = UnitSamples(Unit(shard, start, stop, 0)), set(), 0, 0
    for item in items:
        too_many = weight + item.weight > limits.samples * _WHOLE
        if too_many or ((weight or size) and size + item.size > limits.bytes):
            yield _closed(unit, item.start)
            unit, keys, weight, size = UnitSamples(Unit(shard, item.start, stop, 0)), set(), 0, 0
        weight, size = weight + item.weight, size + item.size
        unit.packed, unit.again = unit.packed + item.packed, unit.again + item.again
        content = item.content
        if isinstance(content, Sample) and content.key in keys:
            content = Rejection(content.key, "another sample of this unit has the same key", "DuplicateKey")
        if isinstance(content, Sample):
            keys.add(content.key)
            unit.samples.append(content)
        elif content is not None:
            unit.rejected.append(content)
        for why, name in item.left_out:
            unit.left_out.add(why, name)
    yield _closed(unit, stop)


def _closed(unit: UnitSamples, stop: int | None) -> UnitSamples:
    unit.rejected += [Rejection("", line, LEFT_OUT) for line in unit.left_out.told()]
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


def fields_from(
    texts: Mapping[str, bytes], wanted: Collection[str] | None, no_texts: list[str] | None = None
) -> dict[str, Any]:
    """The fields that the texts beside an image hold, by extension: `txt` is the caption, `json` an object of fields,
    any other text a field named by its extension. The caption beats a field of the JSON.

    wanted: the only fields to keep, or None for all. no_texts: to which extensions are added that hold something else.
    Raises BadSample for a caption that can't be decoded, and for a JSON that isn't an object.
    """
    fields: dict[str, Any] = {}
    if "json" in texts:
        fields.update(_parse_object(texts["json"]))
    for extension, data in sorted(texts.items()):
        if extension == "txt":
            fields["caption"] = _caption(data)
        elif extension != "json":
            text = _text_or_none(data)
            if text is not None:
                fields[extension] = text
            elif no_texts is not None:
                no_texts.append(extension)
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


def jsonable(value: Any, depth: int = 0) -> Any:
    """The value with null for numbers that JSON lacks (NaN, infinities) and clean text, in depth.

    Raises BadSample for what is nested so deeply that not everything could write it again.
    """
    if depth > _DEEPEST:
        raise BadSample("TooDeep", f"it is nested more than {_DEEPEST} deep")
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {clean_text(name): jsonable(one, depth + 1) for name, one in value.items()}
    if isinstance(value, list):
        return [jsonable(one, depth + 1) for one in value]
    return value


def decoded(data: bytes) -> str:
    """The text: UTF-8, or what its byte order mark says. UnicodeDecodeError where it is something else."""
    encoding = next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), "utf-8")
    return data.decode(encoding)


def _caption(data: bytes) -> str:
    try:
        return decoded(data).strip()
    except UnicodeDecodeError as error:
        raise BadSample(
            "NotText",
            f"the caption beside the image is no {error.encoding.upper()}: {error.reason} at byte {error.start}. "
            f"Convert it, as `iconv -f LATIN1 -t UTF-8` does; or leave it out with `fields` under `corpus`",
        ) from None


def _parse_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(decoded(data))
        if isinstance(value, dict):
            return jsonable(value)
        problem = f"it holds a {type(value).__name__}, not an object; `fields: []` under `corpus` leaves all texts out"
    except (ValueError, RecursionError) as error:
        problem = clean_text(str(error))
    raise BadSample("InvalidJSON", f"the JSON beside the image can't be used: {problem}")


def _text_or_none(data: bytes) -> str | None:
    try:
        text = decoded(data).strip()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
