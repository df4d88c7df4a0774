"""An evaluation as tables, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from ...pipeline.commands.page import Section
from ...tokenizers.measures.reconstruction import MEASURES
from .evaluate import Evaluation
from .losses import ModalityLoss

_PARTS = ("loss", "won by the others", "won by its own tokens", "beyond a unigram model's loss")
"""Of bars. The first, with the others given, reaches as far as a unigram model's; the last is what goes beyond that."""


def print_evaluation(console: Console, found: Evaluation) -> None:
    console.print(f"{headline(found)}\n", soft_wrap=True)
    for number, section in enumerate(sections(found)):
        if number:
            console.print(f"{section.heading}\n")
        console.print(_table(section))
        console.print()
    for note in notes(found):
        console.print(f"note: {note}", soft_wrap=True)


def headline(found: Evaluation) -> str:
    return (
        f"{found.checkpoint} on {found.samples:,} samples of {found.dataset}; nats a token, "
        f"{found.input_tokens:,} tokens of other modalities"
    )


def sections(found: Evaluation) -> Iterator[Section]:
    """The losses, and where there are any what is said of pictures."""
    yield _losses(found)
    if found.from_picture:
        yield _likenesses(found)


def notes(found: Evaluation) -> list[str]:
    told = list(found.notes)
    if found.without:
        told.append(f"no sample has anything to say of {', '.join(found.without)}")
    few = [name for name, one in found.losses.items() if one.seen_ids > one.tokens / 10]
    if few:
        told.append(
            f"few tokens for so many ids: {', '.join(few)}; their entropy is lower than any unigram model gets"
            + ("" if found.against else ", and --against TRAINING_SET tells what one gets that has counted its tokens")
        )
    return told


def _losses(found: Evaluation) -> Section:
    headings = ["tokens", "given", "alone", "gain", "unigram", *(["against"] if found.against else []), "right"]
    rows = []
    for name, one in found.losses.items():
        other = [] if one.unigram_against is None else [f"{one.unigram_against:.3f}"]
        values = [f"{one.given.loss:.3f}", f"{one.alone.loss:.3f}", _gain(one), f"{one.unigram:.3f}", *other]
        rows.append([name, f"{one.tokens:,}", *values, f"{one.given.accuracy:.1%}"])
    return Section("Losses", ["modality", *headings], rows, bars=_bars(found), parts=_PARTS)


def _bars(found: Evaluation) -> dict[str, dict[str, float]]:
    """Of each modality where its loss stands beside what a unigram model gets, as shares of the largest of all."""
    spans = {}
    for name, one in found.losses.items():
        given, alone = one.given.loss, one.alone.loss
        bound = one.unigram if one.unigram_against is None else one.unigram_against
        won = max(min(alone, bound) - given, 0.0), max(bound - max(alone, given), 0.0)
        spans[name] = min(given, bound), *won, max(given - bound, 0.0)
    most = max(map(sum, spans.values()), default=0.0) or 1.0
    return {name: {part: span / most for part, span in zip(_PARTS, own, strict=True)} for name, own in spans.items()}


def _likenesses(found: Evaluation) -> Section:
    rows = []
    for name, one in found.from_picture.items():
        first = [name if one.against == "labels" else f"{name} (its tokens)", f"{one.samples:,}", f"{one.unread:,}"]
        for figure, value in one.errors.items():
            measure = MEASURES[figure]
            bound = measure.say(one.bound[figure]) if one.bound and figure in one.bound else "-"
            rows.append([*first, measure.label, measure.say(value), bound, measure.better])
            first = ["", "", ""]
        if not one.errors:
            rows.append([*first, "-", "-", "-", "-"])
    columns = ["modality", "samples", "unread", "measure", "model", "tokenizer", "better"]
    return Section(f"From {found.picture}, against the dataset's labels", columns, rows, texts=["measure", "better"])


def _table(section: Section) -> Table:
    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(section.columns):
        left = place == 0 or name in section.texts
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in section.rows:
        table.add_row(*row)
    return table


def _gain(one: ModalityLoss) -> str:
    return f"{one.gain:+.3f}" + ("" if one.gain_error is None else f" ± {one.gain_error:.3f}")
