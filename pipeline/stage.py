"""A stage at work: one actor that takes units through its steps and writes what they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..labelers.kinds import Kind
from ..labelers.labeler import Batch, Labeler
from ..labelers.registry import LABELERS, find
from ..labelers.views import View, ViewSettings
from ..tokenizers.tokenizer import Tokenizer
from .commit import Result, label_path, write_rejections, write_result
from .corpus import Sample
from .labeling import Fault, Outcome, Runner
from .parcel import Failure, Parcel
from .pixels import Chunk, Decoder, Wanted
from .plan import Stage, Step, Weave
from .shards import Rows, ShardMeta, read_labels, write_labels
from .storage import Store
from .tokenizer_store import FIT, load_tokenizer
from .weights import localise

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class StageConfig:
    """What an actor of a stage has to know.

    carries: modalities whose labels later stages need. pixels_later: whether later stages look at images. collect:
    set in the pass before fitting, where the labels of these modalities are put aside and nothing else is written.
    """

    stage: Stage
    weave: Weave
    output: str
    storage_options: Mapping[str, Any]
    seed: int
    views: ViewSettings
    carries: frozenset[str] = frozenset()
    pixels_later: bool = False
    collect: frozenset[str] = frozenset()
    last: bool = True


@dataclass
class _Made:
    """What a unit's chunks have come to so far, by modality."""

    results: dict[str, Result] = field(default_factory=dict)
    decodes: int = 0

    def of(self, name: str) -> Result:
        return self.results.setdefault(name, Result())


Poison = Mapping[tuple[int, str], Fault]
"""Samples (index in the unit) and steps that are known to kill the process."""


class StageWorker:
    """The actor. One call takes one block of parcels; a parcel's shards are written before it is passed on."""

    def __init__(self, config: StageConfig) -> None:
        self.config = config
        self._weave = config.weave
        self._store = Store(config.output, config.storage_options)
        self._device = "cuda" if config.stage.num_gpus else "cpu"
        self._steps = config.stage.steps
        wanted = Wanted(any(s.on == "view" for s in self._steps), any(s.on == "image" for s in self._steps))
        threads = max(2, int(config.stage.num_cpus))
        self._decoder = Decoder(config.views, config.seed, wanted, threads)
        self._runners: dict[str, Runner] = {}
        self._tokenizers: dict[str, Tokenizer] = {}
        self._writers = ThreadPoolExecutor(4, thread_name_prefix="write")

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        for parcel in Parcel.from_table(block):
            yield self.process(parcel).to_table()

    def process(
        self, parcel: Parcel, poison: Poison | None = None, announce: Callable[[int, str], None] | None = None
    ) -> Parcel:
        """Labels, tokenises and writes a unit. Returns the parcel for the next stage, or with the results alone.

        announce: told (sample, step) before a sample's batch goes to that step.
        """
        began = perf_counter()
        todo = [name for name in self.config.stage.modalities if name in parcel.todo]
        making = self._weave.made_for(parcel.todo, kept=not self.config.collect)
        steps = [step for step in self._steps if making & set(step.modalities)]
        made = _Made()
        if steps:
            known = self._known_labels(parcel, steps, making)
            for chunk in self._decoder.chunks(parcel.samples):
                made.decodes += chunk.decodes
                _Labelling(self, parcel, chunk, steps, known, poison or {}, made).run(making)
        self._write(parcel, todo, made)
        return self._pass_on(parcel, todo, making, made, perf_counter() - began)

    def runner(self, step: Step) -> Runner:
        """The step's labeler, loaded on first use."""
        if step.name not in self._runners:
            labeler_class = find(LABELERS, step.labeler, Labeler)
            path = localise(step.weights, self.config.storage_options) if step.weights else None
            labeler = labeler_class(labeler_class.Params.model_validate(step.params), path)
            self._runners[step.name] = Runner(labeler, step.modalities, step.batch_size, self._device)
        return self._runners[step.name]

    def tokenizer(self, modality: str) -> Tokenizer:
        if modality not in self._tokenizers:
            self._tokenizers[modality] = load_tokenizer(self._store, modality, self._weave.cards[modality])
        return self._tokenizers[modality]

    def keeps_encoded(self, modality: str) -> bool:
        """Whether the encoded labels outlive their chunk."""
        return (
            self._weave.cards[modality].keeps_labels
            or modality in self.config.carries
            or modality in self.config.collect
        )

    def _known_labels(self, parcel: Parcel, steps: Sequence[Step], making: set[str]) -> dict[str, list[Outcome]]:
        """Labels that the steps need and don't make here: from earlier stages, or kept in the dataset."""
        here = {name for step in steps for name in step.modalities}
        faults = {(f.modality, f.key, f.view): Fault(f.reason, f.error) for f in parcel.failures}
        known: dict[str, list[Outcome]] = {}
        for name in dict.fromkeys(need for step in steps for need in step.needs):
            if name in here:
                continue
            card = self._weave.cards[name]
            encoded = parcel.labels[name] if name in making else self._kept_labels(parcel, name)
            kind = card.label_kind
            rows = _item_rows(parcel.samples, self.config.views.count, card.on)
            known[name] = [
                faults.get((name, *row)) if label is None else kind.decode(label)
                for row, label in zip(rows, encoded, strict=True)
            ]
        return known

    def _kept_labels(self, parcel: Parcel, name: str) -> list[bytes | None]:
        return read_labels(self._store.read(label_path(name, parcel.unit))).labels

    def _write(self, parcel: Parcel, todo: Sequence[str], made: _Made) -> None:
        keys = [sample.key for sample in parcel.samples]
        views = self.config.views.count
        if self.config.collect:
            for name in self.config.collect & set(todo):
                meta = ShardMeta(parcel.unit.name, name, self._weave.cards[name].fingerprint)
                rows = Rows([str(index) for index in range(len(made.of(name).labels))], [0] * len(made.of(name).labels))
                extension = self._weave.cards[name].label_kind.extension
                data = write_labels(rows, made.of(name).labels, extension, meta)
                self._store.create(f"{FIT}/{name}/{parcel.unit.name}.tar", data)
            return
        rejected = write_rejections(self._store, parcel.unit, parcel.rejected)
        writes = [
            self._writers.submit(
                write_result, self._store, parcel.unit, name, self._weave.cards[name], keys, views, made.of(name), rejected
            )
            for name in todo
        ]
        for write in writes:
            write.result()

    def _pass_on(self, parcel: Parcel, todo: Sequence[str], making: set[str], made: _Made, seconds: float) -> Parcel:
        config = self.config
        rows = len(parcel.samples) * config.views.count
        done = {name: (rows, len(made.of(name).failures), seconds) for name in todo}
        carried = [name for name in config.carries & set(made.results) if name in making]
        return Parcel(
            unit=parcel.unit,
            todo=parcel.todo,
            samples=[] if config.last else [s if config.pixels_later else replace(s, image=None) for s in parcel.samples],
            rejected=parcel.rejected,
            labels={name: labels for name, labels in parcel.labels.items() if name in config.carries}
            | {name: made.of(name).labels for name in carried},
            failures=parcel.failures + [failure for name in carried for failure in made.of(name).failures],
            done=parcel.done | done,
            bytes=parcel.bytes,
            decodes=parcel.decodes + made.decodes,
        )


@dataclass
class _Labelling:
    """One chunk going through a stage's steps."""

    worker: StageWorker
    parcel: Parcel
    chunk: Chunk
    steps: Sequence[Step]
    known: Mapping[str, list[Outcome]]
    poison: Poison
    made: _Made

    def run(self, making: set[str]) -> None:
        labels: dict[str, list[Outcome]] = {name: self._of_chunk(name, all_) for name, all_ in self.known.items()}
        for step in self.steps:
            labels.update(self._step(step, labels))
            for name in step.modalities:
                if name in making:
                    self._keep(name, labels[name])

    def _of_chunk(self, name: str, labels: list[Outcome]) -> list[Outcome]:
        per_sample = self._views if self._on(name) == "view" else 1
        start = self.chunk.start * per_sample
        return labels[start : start + len(self.chunk.samples) * per_sample]

    @property
    def _views(self) -> int:
        return self.worker.config.views.count

    def _on(self, name: str) -> str:
        return self.worker.config.weave.cards[name].on

    def _kind(self, name: str) -> Kind:
        return self.worker.config.weave.cards[name].label_kind

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
            else:
                given[place] = hindrance
        outcomes = {name: [given.get(place) for place in range(len(items))] for name in step.modalities}
        if ready:
            found = self.worker.runner(step).run(self._batch(step, items, ready, needs))
            for name in step.modalities:
                for place, outcome in zip(ready, found[name], strict=True):
                    outcomes[name][place] = outcome
        return outcomes

    def _hindrance(self, step: Step, index: int, required: Mapping[str, Outcome]) -> Any:
        """Why the step can't label a sample: a Fault; None when it lacks something that it may lack; else _READY."""
        deadly = self.poison.get((self.chunk.start + index, step.name))
        if deadly is not None:
            return deadly
        if step.on != "nothing" and index in self.chunk.faults:
            return self.chunk.faults[index]
        for need, label in required.items():
            if isinstance(label, Fault):
                return Fault(f"needs {need}, which failed: {label.reason}", label.error)
        return None if any(label is None for label in required.values()) else _READY

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
                need: [None if isinstance(labels[place], Fault) else labels[place] for place in ready]
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
        kind = self._kind(name)
        rows: list[Outcome] = []
        for index, label in enumerate(labels):
            for view in range(self._views):
                if not kind.spatial or label is None or isinstance(label, Fault):
                    rows.append(label)
                else:
                    rows.append(_crop(kind, label, self.chunk.views[index][view]))
        return rows

    def _keep(self, name: str, outcomes: list[Outcome]) -> None:
        """Tokens, encoded labels and failures of one modality's outcomes in this chunk."""
        result, card = self.made.of(name), self.worker.config.weave.cards[name]
        rows = self._in_frame(name, outcomes, "view")
        tokens: list[np.ndarray | Fault | None] = []
        if card.keeps_tokens and not self.worker.config.collect:
            tokens = _tokenise(self.worker.tokenizer(name), rows)
            result.tokens += [None if isinstance(ids, Fault) else ids for ids in tokens]
        if self.worker.keeps_encoded(name):
            kind = card.label_kind
            result.labels += [
                None if label is None or isinstance(label, Fault) else kind.encode(label) for label in outcomes
            ]
        result.failures += self._failures(name, outcomes, tokens)

    def _failures(
        self, name: str, outcomes: Sequence[Outcome], tokens: Sequence[np.ndarray | Fault | None]
    ) -> Iterator[Failure]:
        """One line per failed item; a fault of a row's crop or tokens alone is that view's."""
        per_sample = self._views if self._on(name) == "view" else 1
        for place, outcome in enumerate(outcomes):
            index, view = divmod(place, per_sample)
            if isinstance(outcome, Fault):
                yield self._failure(name, index, view if per_sample > 1 else None, outcome)
                continue
            first = index * self._views + view
            for row in range(first, first + (self._views if per_sample == 1 else 1)):
                fault = tokens[row] if tokens else None
                if isinstance(fault, Fault):
                    yield self._failure(name, index, row % self._views if self._views > 1 else None, fault)

    def _failure(self, name: str, index: int, view: int | None, fault: Fault) -> Failure:
        key, unit = self.chunk.samples[index].key, self.parcel.unit.name
        return Failure(key, name, fault.reason, fault.error, unit, view)


_READY = object()


def _item_rows(samples: Sequence[Sample], views: int, on: str) -> list[tuple[str, int | None]]:
    """(key, view) of every item, as the quarantine names them: no view where a sample has only one."""
    if on != "view" or views == 1:
        return [(sample.key, None) for sample in samples]
    return [(sample.key, view) for sample in samples for view in range(views)]


def _crop(kind: Kind, label: Any, view: View) -> Outcome:
    try:
        return kind.crop(label, view)
    except Exception as error:  # a plugin's kind may raise anything
        return Fault.of(error)


def _tokenise(tokenizer: Tokenizer, rows: Sequence[Outcome]) -> list[np.ndarray | Fault | None]:
    """Tokens per row; where the batch as a whole can't be tokenised, row by row, so that one bad label costs itself."""
    places = [place for place, label in enumerate(rows) if label is not None and not isinstance(label, Fault)]
    tokens: list[np.ndarray | Fault | None] = [label if isinstance(label, Fault) else None for label in rows]
    try:
        encoded: Sequence[np.ndarray | Fault] = tokenizer.encode([rows[place] for place in places]) if places else []
    except Exception:
        encoded = [_tokenise_one(tokenizer, rows[place]) for place in places]
    for place, ids in zip(places, encoded, strict=True):
        tokens[place] = ids
    return tokens


def _tokenise_one(tokenizer: Tokenizer, label: Any) -> np.ndarray | Fault:
    try:
        return tokenizer.encode([label])[0]
    except Exception as error:
        return Fault.of(error)
