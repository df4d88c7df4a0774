"""An evaluation in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ...tokenizers.measures.reconstruction import MEASURES
from .evaluate import Evaluation
from .losses import ModalityLoss


def print_evaluation(console: Console, found: Evaluation) -> None:
    console.print(
        f"{found.checkpoint} on {found.samples:,} samples of {found.dataset}; nats a token, "
        f"{found.input_tokens:,} tokens of other modalities\n",
        soft_wrap=True,
    )
    console.print(_losses(found))
    console.print()
    if found.from_picture:
        console.print(f"from {found.picture}, against the dataset's labels\n")
        console.print(_likenesses(found))
        console.print()
    for note in _notes(found):
        console.print(f"note: {note}", soft_wrap=True)


def _losses(found: Evaluation) -> Table:
    table = Table(box=None, pad_edge=False)
    headings = ["tokens", "given", "alone", "gain", "unigram", *(["against"] if found.against else [])]
    for heading in ("modality", *headings, "right"):
        table.add_column(heading, justify="left" if heading == "modality" else "right", no_wrap=True)
    for name, one in found.losses.items():
        other = [] if one.unigram_against is None else [f"{one.unigram_against:.3f}"]
        values = [f"{one.given.loss:.3f}", f"{one.alone.loss:.3f}", _gain(one), f"{one.unigram:.3f}", *other]
        table.add_row(name, f"{one.tokens:,}", *values, f"{one.given.accuracy:.1%}")
    return table


def _likenesses(found: Evaluation) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("modality", "samples", "unread", "measure", "model", "tokenizer", "better"):
        table.add_column(heading, justify="left" if heading in ("modality", "measure", "better") else "right")
    for name, one in found.from_picture.items():
        first = [name if one.against == "labels" else f"{name} (its tokens)", f"{one.samples:,}", f"{one.unread:,}"]
        for figure, value in one.errors.items():
            measure = MEASURES[figure]
            bound = measure.say(one.bound[figure]) if one.bound and figure in one.bound else "-"
            table.add_row(*first, measure.label, measure.say(value), bound, measure.better)
            first = ["", "", ""]
    return table


def _gain(one: ModalityLoss) -> str:
    return f"{one.gain:+.3f}" + ("" if one.gain_error is None else f" ± {one.gain_error:.3f}")


def _notes(found: Evaluation) -> list[str]:
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
