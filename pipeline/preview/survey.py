"""The preview's statistics: how the modalities' codes are used, how long their tokens are, and what failed."""

from __future__ import annotations

import inspect
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from ...labelers.contract.kinds import Kind, Record, Text
from ...tokenizers.codebooks.codebook import FittedTokenizer
from ...tokenizers.contract.tokenizer import Tokenizer
from ...tokenizers.measures.reconstruction import ErrorSum
from ...tokenizers.text.base import VocabularyTokenizer
from ..dataset.cards import ModalityCard
from ..dataset.finished import Finished
from ..dataset.ledger import Failure
from ..dataset.manifest import Manifest
from ..views.content import Content
from .cells import readable, said

LISTED_FAILURES = 1000
_BARS = 48
_FREQUENT = 12


@dataclass
class ModalitySurvey:
    """Counts over the surveyed units. counts: how often each code occurs. lengths: rows by their number of tokens.
    missing: rows without a label that didn't fail: samples that have none."""

    units: int = 0
    made: int = 0
    missing: int = 0
    failed: int = 0
    counts: np.ndarray | None = None
    lengths: Counter[int] = field(default_factory=Counter)

    def add(self, content: Content) -> None:
        self.failed += len(content.failures)
        rows = content.tokens if content.tokens is not None else content.labels
        if rows is None:
            return
        self.units += 1
        absent = [place for place, row in enumerate(rows) if row is None]
        views = len(rows) // max(1, len(content.keys))
        self.made += len(rows) - len(absent)
        self.missing += sum(content.failure(content.keys[place // views], place % views) is None for place in absent)
        if content.tokens is None or self.counts is None:
            return
        present = [ids for ids in content.tokens if ids is not None]
        self.lengths.update(len(ids) for ids in present)
        if present:
            self.counts += np.bincount(np.concatenate(present).astype(np.int64), minlength=len(self.counts))


def perplexity(counts: np.ndarray) -> float:
    """exp of the entropy of the codes' frequencies: how many codes would carry as much if all were equally frequent."""
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def rank_bars(counts: np.ndarray, bars: int = _BARS) -> list[float]:
    """Mean frequency of the used codes, the most frequent first, in at most `bars` groups of equally many codes."""
    ranked = np.sort(counts[counts > 0])[::-1]
    edges = np.linspace(0, len(ranked), min(bars, len(ranked)) + 1).round().astype(int)
    return [round(float(ranked[low:high].mean()), 2) for low, high in pairwise(edges)]


def length_bars(lengths: Mapping[int, int], bars: int = 24) -> list[tuple[int, int, int]]:
    """(shortest, longest, rows) in at most `bars` intervals of equal width from the shortest to the longest."""
    if not lengths:
        return []
    low, high = min(lengths), max(lengths)
    width = math.ceil((high - low + 1) / bars)
    sums: Counter[int] = Counter()
    for length, rows in lengths.items():
        sums[(length - low) // width] += rows
    return [
        (low + bar * width, min(high, low + (bar + 1) * width - 1), sums[bar])
        for bar in range((high - low) // width + 1)
    ]


def stated_loss(tokenizer: Tokenizer) -> str:
    """What the tokenizer's documentation says under "Loss"; "" where it says nothing."""
    found = re.search(r"\bLoss\b[^:\n]*:.*?(?=\n\s*\n|\Z)", inspect.getdoc(type(tokenizer)) or "", re.DOTALL)
    return " ".join(found[0].split()).replace("`", "") if found else ""


class Survey:
    """Statistics of all modalities, and the quarantine, as JSON for the page."""

    def __init__(self, manifest: Manifest, tokenizers: Mapping[str, Tokenizer]) -> None:
        self._manifest, self._tokenizers = manifest, tokenizers
        self._found = {name: ModalitySurvey() for name in manifest.modalities}
        for name, tokenizer in tokenizers.items():
            self._found[name].counts = np.zeros(tokenizer.spec.vocabulary, np.int64)
        self._failures: list[Failure] = []
        self._reasons: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, content: Content) -> None:
        self._found[name].add(content)
        self.add_failures(list(content.failures.values()))

    def add_failures(self, failures: Sequence[Failure]) -> None:
        self._reasons.update((failure.modality, failure.error) for failure in failures)
        self._failures += failures[: LISTED_FAILURES - len(self._failures)]

    def quarantine(self) -> dict[str, Any]:
        """total; counts: (modality, exception, how many); failures: the first of them, one dict each."""
        failures = [
            {
                "key": readable(failure.key, 500),
                "view": failure.view,
                "modality": failure.modality,
                "error": failure.error,
                "reason": readable(failure.reason, 1000),
                "unit": failure.unit,
            }
            for failure in self._failures
        ]
        counts = [(*what, count) for what, count in self._reasons.most_common()]
        return {"total": sum(self._reasons.values()), "counts": counts, "failures": failures}

    def modalities(self, finished: Mapping[str, Finished], errors: Mapping[str, ErrorSum]) -> list[dict[str, Any]]:
        """One dict per modality: its card, what is finished of it, its statistics, and the mean `errors` of what is
        shown."""
        cards = self._manifest.modalities
        random = made_randomly(cards)
        return [
            {
                **_describe(name, card),
                **self._numbers(name),
                "random": name in random,
                "finished": len(finished[name].units),
                "errors": {"labels": errors[name].labels, "means": said(errors[name].means())},
            }
            for name, card in cards.items()
        ]

    def _numbers(self, name: str) -> dict[str, Any]:
        found, tokenizer = self._found[name], self._tokenizers.get(name)
        numbers: dict[str, Any] = {
            "units": found.units,
            "made": found.made,
            "missing": found.missing,
            "failed": found.failed,
        }
        if tokenizer is not None and found.counts is not None:
            used = int((found.counts > 0).sum())
            numbers["codes"] = {
                "tokens": int(found.counts.sum()),
                "used": used,
                "perplexity": round(perplexity(found.counts), 1),
                "most": int(found.counts.max()),
                "bars": rank_bars(found.counts),
                "frequent": _frequent(tokenizer, found.counts),
            }
            numbers["lengths"] = length_bars(found.lengths)
            numbers["loss"] = stated_loss(tokenizer)
            if isinstance(tokenizer, FittedTokenizer):
                numbers["fit"] = tokenizer.facts
        return numbers


def _frequent(tokenizer: Tokenizer, counts: np.ndarray) -> list[tuple[str, int]]:
    """The most frequent codes with how often they occur: pieces of text as such, others by their id."""
    top = np.argsort(-counts, kind="stable")[:_FREQUENT]
    vocabulary = tokenizer.vocabulary if isinstance(tokenizer, VocabularyTokenizer) else None
    names = [vocabulary.token(int(code)) if vocabulary else str(code) for code in top]
    return [(readable(name, 40), int(counts[code])) for name, code in zip(names, top, strict=True) if counts[code]]


def made_randomly(cards: Mapping[str, ModalityCard]) -> set[str]:
    """The modalities that random weights made, and all that were made from these."""
    random = {name for name, card in cards.items() if card.weights and card.weights.random}
    while found := {name for name, card in cards.items() if name not in random and random & set(card.requires)}:
        random |= found
    return random


def layout(kind: Kind) -> str:
    """How a kind's cells are laid out: texts as "lines", records as a "table", the rest as "squares", and so palettes:
    records whose fields are numbers of colours."""
    if isinstance(kind, Text):
        return "lines"
    return "table" if isinstance(kind, Record) and not all(name.isdigit() for name in kind.fields) else "squares"


def _describe(name: str, card: ModalityCard) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": name,
        "kind": card.kind["kind"],
        "layout": layout(card.label_kind),
        "labeler": card.labeler,
        "version": card.version,
        "params": card.params,
        "licence": card.licence,
        "generation": card.generation if card.fitted else None,
        "requires": sorted(card.requires),
        "keeps_tokens": card.keeps_tokens,
        "keeps_labels": card.keeps_labels,
        "weights": None,
        "tokens": None,
    }
    if card.weights:
        weights = card.weights
        described["weights"] = {"source": weights.source, "sha256": weights.sha256, "licence": weights.licence}
    if card.tokens:
        spec = card.tokens.spec
        described["tokens"] = {"tokenizer": card.tokens.tokenizer, "params": card.tokens.params}
        if spec:
            described["tokens"] |= {
                "type": spec.type,
                "vocabulary": spec.vocabulary,
                "length": spec.length,
                "max_length": spec.max_length,
                "grid": spec.grid,
            }
    return described
