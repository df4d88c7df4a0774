"""A stage at work: one actor that takes units through its steps and writes what they come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from ..dataset.layout import FIT, label_path, ledger_path
from ..dataset.ledger import Failure
from ..dataset.shards import Rows, ShardMeta, read_labels, write_labels
from ..plan.steps import Step
from ..storage.store import Store
from .attempts import SUSPICIOUS, Attempts, find_poison
from .chunks import Decoder, Wanted
from .commit import amend_result, write_rejections, write_result
from .config import StageConfig
from .labeling import ChunkLabeling, Made, Poison
from .loaded_models import LoadedModels
from .payload import UnitPayload
from .runner import Fault, Outcome
from .unit_labeler import _item_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from .metrics import UnitMetrics


class StageWorker:
    """The actor. One call takes one block of payloads; a payload's shards are written before it is passed on."""

    def __init__(self, config: StageConfig) -> None:
        self.config = config
        self._graph = config.graph
        self._store = Store(config.output, config.storage_options)
        self._models = LoadedModels(config, self._store)
        threads = max(2, int(config.stage.num_cpus))
        self._decoder = Decoder(config.views, config.seed, threads)
        self._metrics: UnitMetrics | None = None
        self._writers = ThreadPoolExecutor(4, thread_name_prefix="write")

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        stage = self.config.stage
        if self._metrics is None:
            from .metrics import UnitMetrics

            self._metrics = UnitMetrics()
        for payload in UnitPayload.from_table(block):
            processed = self.process(payload)
            self._metrics.add(stage.name, processed, stage.modalities)
            yield processed.to_table()

    def process(self, payload: UnitPayload) -> UnitPayload:
        """Labels, tokenises and writes a unit. Returns the payload for the next stage, or with the results alone."""
        began = perf_counter()
        attempts = Attempts(self._store, payload.unit.name, self.config.stage.steps[0].name)
        poison = find_poison(StageWorker, self.config, payload) if attempts.begin() >= SUSPICIOUS else {}
        todo = [name for name in self.config.stage.modalities if name in payload.todo]
        making = self._making(payload)
        made = self.make(payload, [step for step in self.config.stage.steps if making & set(step.modalities)], poison)
        self._write(payload, todo, made)
        attempts.end()
        return self._pass_on(payload, todo, making, made, perf_counter() - began)

    def load(self) -> None:
        """Loads all labelers of the stage; otherwise each is loaded when it is first needed."""
        for step in self.config.stage.steps:
            self._models.runner(step)

    def try_out(self, payload: UnitPayload, step: str, poison: Poison) -> None:
        """Labels and tokenises by the steps up to `step`, and writes nothing."""
        making = self._making(payload)
        steps = self.config.stage.steps
        last = next(index for index, one in enumerate(steps) if one.name == step)
        self.make(payload, [one for one in steps[: last + 1] if making & set(one.modalities)], poison)

    def _making(self, payload: UnitPayload) -> set[str]:
        return self._graph.made_for(payload.todo, kept=not self.config.collect)

    def make(self, payload: UnitPayload, steps: Sequence[Step], poison: Poison) -> Made:
        """Labels and tokenises a unit by some of the stage's steps, and writes nothing."""
        made = Made()
        if not steps:
            return made
        making = self._making(payload)
        known = self._known_labels(payload, steps, making)
        wanted = Wanted(any(step.on == "view" for step in steps), any(step.on == "image" for step in steps))
        for chunk in self._decoder.chunks(payload.samples, payload.chunks, wanted):
            made.decodes += chunk.decodes
            ChunkLabeling(self._models, payload.unit, chunk, steps, known, poison, made).run(making)
        return made

    def _known_labels(self, payload: UnitPayload, steps: Sequence[Step], making: set[str]) -> dict[str, list[Outcome]]:
        """Labels that the steps need and don't make here: from earlier stages, or kept in the dataset."""
        here = {name for step in steps for name in step.modalities}
        known: dict[str, list[Outcome]] = {}
        for name in dict.fromkeys(need for step in steps for need in step.needs):
            if name in here:
                continue
            card = self._graph.cards[name]
            encoded, failures = (
                (payload.labels[name], payload.failures) if name in making else self._kept_labels(payload, name)
            )
            faults = {(f.key, f.view): Fault(f.reason, f.error) for f in failures if f.modality == name}
            kind = card.label_kind
            known[name] = [
                faults.get(row) if label is None else kind.decode(label)
                for row, label in zip(
                    _item_rows(payload.samples, self.config.views.count, card.on), encoded, strict=True
                )
            ]
        return known

    def _kept_labels(self, payload: UnitPayload, name: str) -> tuple[list[bytes | None], list[Failure]]:
        """The stored labels of the payload's samples, which may be fewer than the unit's, and the unit's failures."""
        shard = read_labels(self._store.read(label_path(name, payload.unit)))
        by_row = dict(zip(zip(shard.rows.keys, shard.rows.views, strict=True), shard.labels, strict=True))
        views = self.config.views.count if self._graph.cards[name].on == "view" else 1
        labels = [by_row[sample.key, view] for sample in payload.samples for view in range(views)]
        ledger = self._store.read(ledger_path(name, payload.unit)) if shard.meta.ledger else b""
        return labels, [Failure.from_line(line) for line in ledger.splitlines()]

    def _write(self, payload: UnitPayload, todo: Sequence[str], made: Made) -> None:
        keys = [sample.key for sample in payload.samples]
        views = self.config.views.count
        if self.config.collect:
            for name in self.config.collect & set(todo):
                meta = ShardMeta(payload.unit.name, name, self._graph.cards[name].fingerprint)
                sample = made.of(name).sample
                rows = Rows([str(index) for index in range(len(sample))], [0] * len(sample))
                data = write_labels(rows, sample, self._graph.cards[name].label_kind.extension, meta)
                self._store.create(f"{FIT}/{name}/{payload.unit.name}.tar", data)
            return
        if self.config.amends:
            for name in todo:
                card = self._graph.cards[name]
                amend_result(self._store, payload.unit, name, card, keys, views, made.of(name))
            return
        rejected = write_rejections(self._store, payload.unit, payload.rejected)
        writes = [
            self._writers.submit(
                write_result,
                self._store,
                payload.unit,
                name,
                self._graph.cards[name],
                keys,
                views,
                made.of(name),
                rejected,
            )
            for name in todo
        ]
        for write in writes:
            write.result()

    def _pass_on(
        self, payload: UnitPayload, todo: Sequence[str], making: set[str], made: Made, seconds: float
    ) -> UnitPayload:
        config = self.config
        rows = len(payload.samples) * config.views.count
        done = {name: (rows, len(made.of(name).failures), seconds) for name in todo}
        carried = [name for name in config.carries & set(made.results) if name in making]
        return UnitPayload(
            unit=payload.unit,
            todo=payload.todo,
            samples=[]
            if config.last
            else [s if config.pixels_later else replace(s, image=None) for s in payload.samples],
            rejected=payload.rejected,
            chunks=payload.chunks,
            labels={name: labels for name, labels in payload.labels.items() if name in config.carries}
            | {name: made.of(name).labels for name in carried},
            failures=payload.failures + [failure for name in carried for failure in made.of(name).failures],
            done=payload.done | done,
            bytes=payload.bytes,
            decodes=payload.decodes + made.decodes,
        )
