"""Labelling one chunk of a unit: its samples go through a stage's steps, and what comes out becomes tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...labelers.contract.kinds import Kind
from ...labelers.contract.labeler import Batch
from ...labelers.contract.views import View
from ...tokenizers.contract.tokenizer import Tokenizer
from ..dataset.ledger import MADE_WITHOUT, Failure
from ..plan.steps import Step
from .chunks import Chunk
from .config import Mode
from .loaded_models import LoadedModels
from .payload import UnitPayload
from .runner import Failed, Outcome, Poison
from .spent import LOAD, MODEL, TOKENISE, Watch

DECODING = ""
"""In the place of a step's name: what comes before all steps."""


@dataclass
class Result:
    """One modality of one unit. tokens: per row (sample and view). labels: encoded, per row or, for labelers that
    don't work on views, per sample. failures: why labels are missing; untokenised: why, beside these, tokens are.
    notes: what was made without another label, which it wants.
    sample: encoded as a tokenizer gets them, cut by the views; for fitting alone."""

    tokens: list[np.ndarray | None] = field(default_factory=list)
    labels: list[bytes | None] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    untokenised: list[Failure] = field(default_factory=list)
    notes: list[Failure] = field(default_factory=list)
    sample: list[bytes | None] = field(default_factory=list)


@dataclass
class Made:
    """What a unit's chunks have come to so far, by modality, and what the time went to. notes: of labels that were made
    without others, here or before, by modality and key."""

    results: dict[str, Result] = field(default_factory=dict)
    notes: dict[tuple[str, str], list[Failure]] = field(default_factory=dict)
    decodes: int = 0
    watch: Watch = field(default_factory=Watch)

    def of(self, name: str) -> Result:
        return self.results.setdefault(name, Result())


@dataclass
class ChunkLabeling:
    """One chunk going through a stage's steps."""

    models: LoadedModels
    payload: UnitPayload
    chunk: Chunk
    steps: Sequence[Step]
    known: Mapping[str, list[Outcome]]
    poison: Poison
    made: Made

    def run(self, making: set[str], anew: Sequence[str], began: Callable[[str], None]) -> None:
        """Labels by all steps, and keeps what `making` names, and the tokens of known labels that are to be tokenised
        `anew`. began: told each step before it begins."""
        labels: dict[str, list[Outcome]] = {name: self._of_chunk(name, all_) for name, all_ in self.known.items()}
        for name in anew:
            self._keep(name, labels[name])
        for step in self.steps:
            began(step.name)
            labels.update({n: found for n, found in self._step(step, labels).items() if n not in self.known})
            self.made.watch.lap(MODEL, step.name)
            for name in step.modalities:
                if name in making:
                    self._keep(name, labels[name])

    def _of_chunk(self, name: str, labels: list[Outcome]) -> list[Outcome]:
        per_sample = self.models.cards[name].labels_per_sample(self._views)
        start = self.chunk.start * per_sample
        return labels[start : start + len(self.chunk.samples) * per_sample]

    @property
    def _views(self) -> int:
        return self.models.config.views.count

    def _on(self, name: str) -> str:
        return self.models.cards[name].on

    def _kind(self, name: str) -> Kind:
        return self.models.cards[name].label_kind

    def _step(self, step: Step, labels: Mapping[str, list[Outcome]]) -> dict[str, list[Outcome]]:
        """The step's outcomes for all items of the chunk; an item is a sample, or a sample's view."""
        chunk, per_sample = self.chunk, self._views if step.on == "view" else 1
        items = [(index, view) for index in range(len(chunk.samples)) for view in range(per_sample)]
        needs = {need: self._in_frame(need, labels[need], step.on) for need in step.needs}
        ready, given = [], {}
        for place, (index, _) in enumerate(items):
            hindrance = self._hindrance(step, index, {need: needs[need][place] for need in step.requires})
            if hindrance is _READY:
                ready.append(place)
                self._note(step, chunk.samples[index].key, {need: labels[place] for need, labels in needs.items()})
            else:
                given[place] = hindrance
        outcomes = {name: [given.get(place) for place in range(len(items))] for name in step.modalities}
        if ready:
            self.made.watch.lap(MODEL, step.name)
            runner = self.models.runner(step)
            self.made.watch.lap(LOAD)
            found = runner.run(self._batch(step, items, ready, needs))
            for name in step.modalities:
                for place, outcome in zip(ready, found[name], strict=True):
                    outcomes[name][place] = outcome
        return outcomes

    def _hindrance(self, step: Step, index: int, required: Mapping[str, Outcome]) -> Any:
        """Why the step can't label a sample: a Failed; None when it lacks something that it may lack; else _READY."""
        deadly = self.poison.get((self.chunk.start + index, step.name))
        if deadly is not None:
            return deadly
        if step.on != "nothing" and index in self.chunk.failed:
            return self.chunk.failed[index]
        for need, label in required.items():
            if isinstance(label, Failed):
                return Failed(f"needs {need}, which failed: {label.reason}", label.error, need)
        return None if any(label is None for label in required.values()) else _READY

    def _note(self, step: Step, key: str, needs: Mapping[str, Outcome]) -> None:
        """Notes what the labels that the step is about to make lack: those that it wants, and that failed, and what
        the others were made without."""
        lacking: dict[str, str] = {}
        for need, label in needs.items():
            if isinstance(label, Failed):
                lacking.setdefault(need, f"made without {need}, which failed: {label.reason}")
            for note in self.made.notes.get((need, key), ()):
                lacking.setdefault(note.without, note.reason)
        for name in step.modalities if lacking else ():
            notes = self.made.notes.setdefault((name, key), [])
            known = {note.without for note in notes}  # another view may have told of it
            notes += [
                Failure(key, name, reason, MADE_WITHOUT, self.payload.unit.name, without=without)
                for without, reason in lacking.items()
                if without not in known
            ]

    def _batch(
        self, step: Step, items: Sequence[tuple[int, int]], ready: Sequence[int], needs: Mapping[str, list[Outcome]]
    ) -> Batch:
        chunk = self.chunk
        chosen = [items[place] for place in ready]
        images: Any = None
        if step.on == "view":
            assert chunk.view_pixels is not None
            images = chunk.view_pixels if len(ready) == len(items) else chunk.view_pixels[np.array(ready)]
        elif step.on == "image":
            images = [chunk.images[index] for index, _ in chosen]
        return Batch(
            keys=[chunk.samples[index].key for index, _ in chosen],
            images=images,
            views=[chunk.views[index][view] for index, view in chosen] if step.on != "nothing" else [],
            fields=[chunk.samples[index].fields for index, _ in chosen],
            labels={
                need: [None if isinstance(labels[place], Failed) else labels[place] for place in ready]
                for need, labels in needs.items()
            },
        )

    def _in_frame(self, name: str, labels: list[Outcome], on: str) -> list[Outcome]:
        """The labels of a modality in the frame of a labeler that works on `on`: cropped, repeated, or of view 0."""
        own = "view" if self._on(name) == "view" else "sample"
        wanted = "view" if on == "view" else "sample"
        if own == wanted:
            return labels
        if own == "view":
            return labels[:: self._views]
        return self._cropped(name, labels)

    def _cropped(self, name: str, labels: list[Outcome]) -> list[Outcome]:
        """A row per view. Views are known only where an image was decoded, and only needed for what lies in it."""
        kind, on = self._kind(name), self._on(name)
        rows: list[Outcome] = []
        for index, label in enumerate(labels):
            if not kind.spatial or label is None or isinstance(label, Failed):
                rows += [label] * self._views
            else:
                rows += [_seen_by(kind, self.chunk.views[index][view], label, on) for view in range(self._views)]
        return rows

    def _keep(self, name: str, outcomes: list[Outcome]) -> None:
        """Tokens, encoded labels and failures of one modality's outcomes in this chunk."""
        config, card, result = self.models.config, self.models.cards[name], self.made.of(name)
        sampled, kind = config.mode is Mode.SAMPLE and name in self.payload.todo, card.label_kind
        rows = self._in_frame(name, outcomes, "view")
        tokens: list[np.ndarray | Failed | None] = []
        if card.keeps_tokens and config.mode is not Mode.SAMPLE:
            self.made.watch.lap(TOKENISE)
            tokenizer = self.models.tokenizer(name)
            self.made.watch.lap(LOAD)
            tokens = _tokenise(tokenizer, rows)
            result.tokens += [None if isinstance(ids, Failed) else ids for ids in tokens]
        if config.mode is Mode.SAMPLE or card.keeps_labels or name in config.carries:
            encoded = _encoded(kind, outcomes)
            result.labels += encoded
            if sampled:
                result.sample += _encoded(kind, rows) if kind.spatial and rows is not outcomes else encoded
        result.failures += self._failures(name, outcomes)
        result.untokenised += self._untokenised(name, outcomes, tokens)
        result.notes += [note for one in self.chunk.samples for note in self.made.notes.get((name, one.key), ())]
        self.made.watch.lap(TOKENISE)

    def _failures(self, name: str, outcomes: Sequence[Outcome]) -> Iterator[Failure]:
        per_sample = self.models.cards[name].labels_per_sample(self._views)
        for place, outcome in enumerate(outcomes):
            index, view = divmod(place, per_sample)
            if isinstance(outcome, Failed):
                yield self._failure(name, index, view if per_sample > 1 else None, outcome)

    def _untokenised(
        self, name: str, outcomes: Sequence[Outcome], tokens: Sequence[np.ndarray | Failed | None]
    ) -> Iterator[Failure]:
        """Rows that have a label and, for a reason of the tokenizer's or of the crop's, no tokens."""
        per_sample = self.models.cards[name].labels_per_sample(self._views)
        for row, ids in enumerate(tokens):
            index, view = divmod(row, self._views)
            label = outcomes[index * per_sample + view % per_sample]
            if isinstance(ids, Failed) and not isinstance(label, Failed):
                yield self._failure(name, index, view if self._views > 1 else None, ids)

    def _failure(self, name: str, index: int, view: int | None, failed: Failed) -> Failure:
        key, unit = self.chunk.samples[index].key, self.payload.unit.name
        return Failure(key, name, failed.reason, failed.error, unit, view, failed.without)


_READY = object()


def _seen_by(kind: Kind, view: View, label: Any, on: str) -> Outcome:
    try:
        return kind.seen_by(view, label, on)
    except Exception as error:  # a plugin's kind may raise anything
        return Failed.of(error)


def _encoded(kind: Kind, outcomes: Sequence[Outcome]) -> list[bytes | None]:
    return [None if label is None or isinstance(label, Failed) else kind.encode(label) for label in outcomes]


def _tokenise(tokenizer: Tokenizer, rows: Sequence[Outcome]) -> list[np.ndarray | Failed | None]:
    """Tokens per row; where the batch as a whole can't be tokenised, row by row, so that one bad label costs itself."""
    places = [place for place, label in enumerate(rows) if label is not None and not isinstance(label, Failed)]
    tokens: list[np.ndarray | Failed | None] = [label if isinstance(label, Failed) else None for label in rows]
    try:
        encoded: Sequence[np.ndarray | Failed] = tokenizer.encode([rows[place] for place in places]) if places else []
    except Exception:  # of one label, which the next line finds out
        encoded = [_tokenise_one(tokenizer, rows[place]) for place in places]
    for place, ids in zip(places, encoded, strict=True):
        tokens[place] = ids
    return tokens


def _tokenise_one(tokenizer: Tokenizer, label: Any) -> np.ndarray | Failed:
    try:
        return tokenizer.encode([label])[0]
    except Exception as error:
        return Failed.of(error)
