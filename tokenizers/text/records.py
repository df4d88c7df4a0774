"""Records as text: colour palettes and image metadata as 4M writes them, and any other record value by value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ...labelers.contract.kinds import Kind, Record
from ...labelers.contract.labeler import NoParams
from ..contract.grammar import END, Choice, Grammar, fault, sequence
from ..contract.special_tokens import COORDINATE_BINS, EOS
from ..contract.vocabulary import Coordinate
from .base import Group, StructuredTokenizer, TextParams
from .json_grammar import CLOSE, OPEN, JsonGrammar


class PaletteParams(BaseModel):
    """colors: which of a label's palettes is written, by its number of colours."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    colors: int = Field(5, ge=1, le=7)


class PaletteTokenizer(StructuredTokenizer):
    """A colour palette as "v1=<colours> v0=<r> v0=<g> v0=<b> v0=<r> ...".

    label: {"1": [[r, g, b]], ..., "7": [seven of them]}, values 0..255. 4M draws the number of colours anew whenever it
    loads a sample; here tokens are stored, so it is the parameter `colors`, or the nearest smaller palette that the
    label has, or else its smallest. Loss: the other palettes; colours are rounded to integers.
    """

    kinds = (Record,)
    Params: ClassVar[type[BaseModel]] = PaletteParams

    @property
    def max_length(self) -> int:
        return 1 + 3 * self.params.colors

    def groups(self, label: Mapping[str, list[list[int]]]) -> list[Group]:
        sizes = sorted(int(name) for name, colours in label.items() if colours)
        if not sizes:
            raise ValueError("the record holds no palette")
        chosen = max((size for size in sizes if size <= self.params.colors), default=sizes[0])
        colours = np.asarray(label[str(chosen)], dtype=np.float64)
        if colours.ndim != 2 or colours.shape[1] != 3 or not ((colours >= 0) & (colours <= 255)).all():
            raise ValueError(f"palette {chosen!r} isn't a list of [r, g, b] with values in 0..255")
        colours = colours[: self.params.colors]
        values = [Coordinate(0, round(value)) for value in colours.ravel()]
        return [[Coordinate(1, len(colours)), *values]]

    def grammar(self) -> Grammar:
        """One of the numbers of colours that may be written, and as many colours."""
        numbers = {self.vocabulary.coordinate(1, number): number for number in range(1, self.params.colors + 1)}
        number = yield [Choice.of([token], 3 * number) for token, number in numbers.items()]
        yield from sequence(*[self.vocabulary.coordinates(0, 0, 256)] * (3 * numbers[number]))
        yield [END]

    def parse(self, ids: np.ndarray) -> tuple[dict[str, list[list[int]]], list[str]]:
        pieces, faults = self._read(ids), []
        values = [piece.value for piece in pieces if isinstance(piece, Coordinate) and piece.axis == 0]
        starts = range(0, len(values) - 2, 3)[: self.params.colors]
        colours = [[min(value, 255) for value in values[at : at + 3]] for at in starts]
        if fault(self.grammar(), ids, self.max_length) is not None:
            faults.append(f"the tokens aren't one palette; {len(colours)} whole colours are kept")
        return ({str(len(colours)): colours} if colours else {}), faults


@dataclass(frozen=True)
class Count:
    """A whole number in steps of `step`, up to the last of 1,000 bins."""

    step: int = 1
    bins: ClassVar[int] = COORDINATE_BINS

    def bin(self, value: float) -> int:
        return int(np.clip(value // self.step, 0, self.bins - 1))

    def value(self, index: int) -> float:
        """The mean of the bin's whole numbers."""
        middle = index * self.step + (self.step - 1) / 2
        return int(middle) if middle.is_integer() else middle


@dataclass(frozen=True)
class Span:
    """A number between `low` and `high` in 50 bins, the last of which holds `high` alone, and what is above it."""

    low: float
    high: float
    bins: ClassVar[int] = 50

    def bin(self, value: float) -> int:
        share = (np.clip(value, self.low, self.high) - self.low) / (self.high - self.low)
        return int(share * (self.bins - 1))

    def value(self, index: int) -> float:
        """The middle of the bin."""
        return self.low + min((index + 0.5) / (self.bins - 1), 1.0) * (self.high - self.low)


@dataclass(frozen=True)
class Edges:
    """A number in bins that end at `edges`, each of which has its own `values`."""

    edges: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def bins(self) -> int:
        return len(self.values)

    def bin(self, value: float) -> int:
        return int(np.digitize(value, self.edges))

    def value(self, index: int) -> float:
        return self.values[index]


METADATA: dict[str, Count | Span | Edges] = {
    "original_width": Count(32),
    "original_height": Count(32),
    "caption_n_chars": Count(),
    "caption_n_words": Count(),
    "caption_n_sentences": Count(),
    "n_humans": Count(),
    "n_sam_instances": Count(),
    "n_coco_instances": Count(),
    "coco_instance_diversity": Count(),
    "colorfulness": Span(0, 150),
    "brightness": Span(0, 255),
    "contrast": Span(0, 127),
    "saturation": Span(0, 255),
    "entropy": Span(0, 10),
    "walkability": Span(0, 1),
    "objectness": Span(0, 1),
    "semantic_diversity": Count(),
    "geometric_complexity": Span(0, 0.75),
    "occlusion_score": Span(0, 0.25),
    "watermark_score": Edges((0.5,), (0.25, 0.75)),
    "aesthetic_score": Edges((4.5, 5.5), (4.0, 5.0, 6.0)),
}
"""The fields of 4M-21's metadata and their bins; a field's id is its place here (ml-4m, MetadataTransform)."""


class MetadataTokenizer(StructuredTokenizer):
    """Image metadata as "v1=<field> v0=<bin>" for every field that the record has, in the order of `METADATA`.

    4M shuffles the fields whenever it loads a sample; that is the trainer's to do. Loss: numbers become the middle of
    their bin, so that encoding what was decoded gives the same tokens.
    """

    kinds = (Record,)
    Params: ClassVar[type[BaseModel]] = NoParams

    def __init__(self, kind: Kind, params: BaseModel | None = None) -> None:
        super().__init__(kind, params)
        assert isinstance(kind, Record)
        unknown = sorted(set(kind.fields) - set(METADATA))
        if unknown:
            raise ValueError(
                f"the metadata tokenizer has no bins for {unknown}; the tokenizer `record` takes any field"
            )

    @property
    def max_length(self) -> int:
        assert isinstance(self.kind, Record)
        return 2 * len(self.kind.fields)

    def groups(self, label: Mapping[str, Any]) -> list[Group]:
        written: list[Group] = []
        for index, (name, bins) in enumerate(METADATA.items()):
            value = label.get(name)
            if value is None:
                continue
            if not isinstance(value, (int, float)) or not np.isfinite(value):
                raise ValueError(f"metadata field {name!r} is {value!r}, not a finite number")
            written.append([Coordinate(1, index), Coordinate(0, bins.bin(value))])
        return written

    def grammar(self) -> Grammar:
        """Fields in any order, each once, with one of its bins."""
        assert isinstance(self.kind, Record)
        left = {
            self.vocabulary.coordinate(1, index): bins
            for index, (name, bins) in enumerate(METADATA.items())
            if name in self.kind.fields
        }
        while (field := (yield [Choice.of(left, 1), END])) != EOS:
            yield [Choice(self.vocabulary.coordinates(0, 0, left.pop(field).bins))]

    def parse(self, ids: np.ndarray) -> tuple[dict[str, Any], list[str]]:
        pieces, faults, label = self._read(ids), [], {}
        names = list(METADATA)
        at = 0
        while at < len(pieces):
            match pieces[at : at + 2]:
                case [Coordinate(axis=1, value=field), Coordinate(axis=0, value=index)]:
                    at += 2
                case _:
                    faults.append(f"token {at} doesn't begin a field and its value")
                    at += 1
                    continue
            bins = METADATA[names[field]] if field < len(names) else None
            if bins is None or index >= bins.bins:
                faults.append(f"there is no field {field} with a bin {index}")
            elif names[field] in label:
                faults.append(f"{names[field]!r} is there twice; the first counts")
            else:
                label[names[field]] = bins.value(index)
        return {name: label[name] for name in names if name in label}, faults


class RecordTokenizer(StructuredTokenizer):
    """Any record, as "v1=<field's place> <value>" for every field that it has.

    A value is JSON whose strings stand between v2=0 and v3=0 instead of quotes, so that they can hold anything. All
    but strings comes back as it was, floats with 6 significant digits. Loss in strings: case, accents and spacing, as
    in all text.
    """

    kinds = (Record,)
    Params: ClassVar[type[BaseModel]] = TextParams

    def __init__(self, kind: Kind, params: BaseModel | None = None) -> None:
        super().__init__(kind, params)
        assert isinstance(kind, Record)
        if len(kind.fields) > COORDINATE_BINS:
            raise ValueError(f"a record of {len(kind.fields)} fields can't be tokenised: {COORDINATE_BINS} is the most")
        self._fields = kind.fields

    def groups(self, label: Mapping[str, Any]) -> list[Group]:
        return [
            [Coordinate(1, index), *_value_pieces(label[name])]
            for index, name in enumerate(self._fields)
            if name in label
        ]

    def grammar(self) -> Grammar:
        """Fields in any order, each once, with a value."""
        left = {self.vocabulary.coordinate(1, index) for index in range(len(self._fields))}
        token = yield [Choice.of(left, 1), END]
        while token != EOS:
            left.remove(token)
            token = yield from self._json_grammar.value([Choice.of(left, 1), END])

    def parse(self, ids: np.ndarray) -> tuple[dict[str, Any], list[str]]:
        pieces, faults, label = self._read(ids), [], {}
        starts = [at for at, piece in enumerate(pieces) if isinstance(piece, Coordinate) and piece.axis == 1]
        stops = [*starts, len(pieces)]
        if stops[0] > 0:
            faults.append("there are tokens before the first field")
        for start, stop in zip(starts, stops[1:], strict=True):
            place = cast(Coordinate, pieces[start]).value
            if place >= len(self._fields):
                faults.append(f"there is no field {place}")
                continue
            if self._fields[place] in label:
                faults.append(f"{self._fields[place]!r} is there twice; the first counts")
                continue
            text = self._json(pieces[start + 1 : stop], faults)
            try:
                label[self._fields[place]] = json.loads(text)
            except (ValueError, RecursionError):
                faults.append(f"the value of {self._fields[place]!r} isn't JSON: {text[:80]!r}")
        return label, faults

    @cached_property
    def _json_grammar(self) -> JsonGrammar:
        return JsonGrammar(self.vocabulary, self.said_words)

    def _json(self, pieces: list[int | Coordinate], faults: list[str]) -> str:
        """Text in JSON's spelling: strings keep the spaces between their words, the rest has none."""
        text, words = "", []
        for piece in [*pieces, OPEN]:
            if isinstance(piece, int):
                words.append(piece)
                continue
            part = self._words(words, faults)
            text += json.dumps(part) if piece == CLOSE else part.replace(" ", "")
            words = []
        return text


def _value_pieces(value: Any) -> Group:
    """A JSON value as words and string marks."""
    if isinstance(value, str):
        return [OPEN, value, CLOSE]
    if isinstance(value, list):
        items = [["," if index else "[", *_value_pieces(item)] for index, item in enumerate(value)]
        return [*chain.from_iterable(items), "]"] if items else ["[", "]"]
    if isinstance(value, dict):
        items = [
            ["," if index else "{", *_value_pieces(name), ":", *_value_pieces(item)]
            for index, (name, item) in enumerate(value.items())
        ]
        return [*chain.from_iterable(items), "}"] if items else ["{", "}"]
    return [json.dumps(float(f"{value:.6g}") if isinstance(value, float) else value)]
