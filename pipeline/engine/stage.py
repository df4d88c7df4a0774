"""A stage at work: one actor that takes units through its steps and writes what they come to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from ..checks.reasons import Group, ReasonCounts
from ..cluster.environments import check_installed
from ..dataset.failed_labels import failed_views
from ..dataset.layout import ASIDE
from ..dataset.ledger import Failure
from ..dataset.reader import ColumnReader
from ..storage.store import Store
from .attempts import SUSPICIOUS, Attempts
from .commit import UnitWriter, Written
from .config import Mode, StageConfig
from .departure import Departure
from .labeling import Made, Result
from .payload import UnitPayload
from .probe import find_poison
from .runner import Poison
from .spent import IDLE, OTHER, SEARCH, WRITE, Watch
from .unit_labeler import UnitLabeler

if TYPE_CHECKING:
    import pyarrow as pa

    from .metrics import UnitMetrics


class StageWorker:
    """The actor. One call takes one block of payloads; a unit's shards are written before it is passed on."""

    def __init__(self, config: StageConfig) -> None:
        check_installed(config.stage.environment)
        self.config = config
        self._store = Store(config.output, config.storage_options)
        self.labeler = UnitLabeler(config, self._store)
        self._writers = ThreadPoolExecutor(4, thread_name_prefix="write")
        self._metrics: UnitMetrics | None = None
        self._departure = Departure()  # at once: a worker may wait for its first unit on a node that drains
        self._watch = Watch()

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        self._watch.lap(IDLE)
        if self._metrics is None:
            from .metrics import UnitMetrics  # imports Ray, which a unit alone does not need

            self._metrics = UnitMetrics()
        with self._departure.put_off():
            for payload in UnitPayload.from_table(block):
                processed = self.process(payload)
                self._metrics.add(payload, processed)
                table = processed.to_table()
                self._watch.lap(OTHER)  # of the next unit: this one's table has been made
                yield table
                self._watch.lap(IDLE)

    def process(self, payload: UnitPayload) -> UnitPayload:
        """Labels, tokenises and writes a unit. Returns the payload for the next stage, or with the results alone."""
        self._watch.lap(OTHER)
        attempts = Attempts(self._store, payload.unit, self.config.stage.steps[0].name)
        poison: Poison = {}
        before = attempts.begin()
        self._watch.lap(WRITE)
        if before >= SUSPICIOUS:
            self.labeler.models.unload()  # the probe needs their memory
            poison = find_poison(self.config, payload)
            self._watch.lap(SEARCH)
        wanted = set(payload.todo)
        if self.config.mode is Mode.SAMPLE:
            wanted |= self.labeler.making(payload)  # what is made in passing isn't made again either
        todo = [name for name in self.config.stage.modalities if name in wanted]
        made = self.labeler.label(payload, poison, watch=self._watch)
        written = self._write(payload, todo, made)
        attempts.end()
        self._watch.lap(WRITE)
        return self._pass_on(payload, written, made)

    def _write(self, payload: UnitPayload, todo: Sequence[str], made: Made) -> dict[str, Written]:
        """Writes what was made of the modalities `todo`."""
        writer = UnitWriter(
            store=self._store,
            unit=payload.unit,
            keys=[sample.key for sample in payload.samples],
            views=self.config.views.count,
            kept=set(payload.kept) - payload.labels.keys(),  # what was put aside is not in the dataset yet
            revisions=payload.revisions,
        )
        write = {Mode.COMMIT: self._commit, Mode.REPAIR: self._repair, Mode.SAMPLE: self._put_aside}[self.config.mode]
        running = {name: self._writers.submit(write, writer, payload, name, made.of(name)) for name in todo}
        return {name: written.result() for name, written in running.items()}

    def _commit(self, writer: UnitWriter, payload: UnitPayload, name: str, result: Result) -> Written:
        card = self.config.graph.cards[name]
        return writer.commit(name, card, result, writer.reject(payload.rejected, card.corpus_generation))

    def _repair(self, writer: UnitWriter, payload: UnitPayload, name: str, result: Result) -> Written:
        assert payload.keys is not None
        result.failures, result.notes = (self._waiting(payload, lines) for lines in (result.failures, result.notes))
        return writer.repair(name, self.config.graph.cards[name], result, payload.keys[name])

    def _waiting(self, payload: UnitPayload, lines: Sequence[Failure]) -> list[Failure]:
        """The lines, of which none waits for a label that the dataset has: one that was made again in passing, and
        failed. That is no more than a failure."""
        needs = {line.without for line in lines} - {"", *payload.todo}
        lacking = {need: self._lacking(payload, need) for need in needs}
        there = ((line, line.without in needs and line.key not in lacking[line.without]) for line in lines)
        return [replace(line, without="") if is_there else line for line, is_there in there]

    def _lacking(self, payload: UnitPayload, name: str) -> set[str]:
        """The samples of which the dataset lacks a modality."""
        cards, revisions = self.config.graph.cards, {name: {payload.unit: payload.revisions.get(name, 0)}}
        reader = ColumnReader(self._store, cards, self.config.views.count, revisions)
        try:
            column = (reader.tokens if cards[name].keeps_tokens else reader.labels)(payload.unit, name)
        except FileNotFoundError:
            return {sample.key for sample in payload.samples}
        return {line.key for line in reader.failures(payload.unit, column) if not line.is_note}

    def _put_aside(self, writer: UnitWriter, payload: UnitPayload, name: str, result: Result) -> Written:
        card = self.config.graph.cards[name]
        written = Written(0, 0)
        if name in payload.todo:
            written = writer.put_aside(name, card, result, self.config.sample)
        if name in self.labeler.making(payload):
            sources = self.config.graph.made_for([name], ())
            tries = sum(payload.revisions.get(source, 0) for source in sources)
            place = replace(writer, store=self._store.below(ASIDE), revisions={name: tries})
            written = self._commit_labels(place, payload, name, result)
        return written

    def _commit_labels(self, writer: UnitWriter, payload: UnitPayload, name: str, result: Result) -> Written:
        """Writes labels alone, as they are kept: with the tokens that will hang on them the unit is done."""
        card = replace(self.config.graph.cards[name], keeps_tokens=False, keeps_labels=True)
        return writer.commit(name, card, result, writer.reject(payload.rejected, card.corpus_generation))

    def _pass_on(self, payload: UnitPayload, written: dict[str, Written], made: Made) -> UnitPayload:
        config = self.config
        carried = config.carries & made.results.keys() & self.labeler.making(payload)
        samples = payload.samples if config.pixels_later else [replace(one, image=None) for one in payload.samples]
        return UnitPayload(
            unit=payload.unit,
            todo=payload.todo,
            samples=[] if config.last else samples,
            rejected=payload.rejected,
            chunks=payload.chunks,
            kept=payload.kept,
            revisions=payload.revisions,
            keys=payload.keys,
            labels={name: labels for name, labels in payload.labels.items() if name in config.carries}
            | {name: made.of(name).labels for name in carried},
            failures=payload.failures + self._told(payload, made, carried),
            done=payload.done | {name: (rows, failed) for name, (rows, failed) in written.items()},
            reasons=payload.reasons + self._reasons(written, made),
            spent=[*payload.spent, self._watch.take(config.stage.name)],
            bytes=payload.bytes,
            again=payload.again,
            decodes=payload.decodes + made.decodes,
        )

    def _reasons(self, names: Collection[str], made: Made) -> list[Group]:
        counts, views = ReasonCounts(), self.config.views.count
        for one in (one for name in names for one in made.of(name).failures + made.of(name).untokenised):
            counts.add([Group(one.modality, one.error, one.reason, one.key, len(failed_views(one, views)))])
        return counts.groups()

    def _told(self, payload: UnitPayload, made: Made, carried: Collection[str]) -> list[Failure]:
        """Failures that later stages need to know, or of a sample all that weren't known, for the driver to tell."""
        names = made.results.keys() - payload.labels.keys() if self.config.mode is Mode.SAMPLE else carried
        return [line for name in names for line in (*made.of(name).failures, *made.of(name).notes)]
