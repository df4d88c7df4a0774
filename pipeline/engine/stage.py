"""A stage at work: one actor that takes units through its steps and writes what they come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from ..storage.store import Store
from .attempts import SUSPICIOUS, Attempts
from .commit import UnitWriter
from .config import Mode, StageConfig
from .labeling import Made
from .payload import UnitPayload
from .probe import find_poison
from .runner import Poison
from .unit_labeler import UnitLabeler

if TYPE_CHECKING:
    import pyarrow as pa

    from .metrics import UnitMetrics


class StageWorker:
    """The actor. One call takes one block of payloads; a unit's shards are written before it is passed on."""

    def __init__(self, config: StageConfig) -> None:
        self.config = config
        self._store = Store(config.output, config.storage_options)
        self.labeler = UnitLabeler(config, self._store)
        self._writers = ThreadPoolExecutor(4, thread_name_prefix="write")
        self._metrics: UnitMetrics | None = None

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        stage = self.config.stage
        if self._metrics is None:
            from .metrics import UnitMetrics  # imports Ray, which a unit alone does not need

            self._metrics = UnitMetrics()
        for payload in UnitPayload.from_table(block):
            processed = self.process(payload)
            self._metrics.add(stage.name, processed, stage.modalities)
            yield processed.to_table()

    def process(self, payload: UnitPayload) -> UnitPayload:
        """Labels, tokenises and writes a unit. Returns the payload for the next stage, or with the results alone."""
        began = perf_counter()
        attempts = Attempts(self._store, payload.unit, self.config.stage.steps[0].name)
        poison: Poison = {}
        if attempts.begin() >= SUSPICIOUS:
            self.labeler.models.unload()  # the probe needs their memory
            poison = find_poison(self.config, payload)
        todo = [name for name in self.config.stage.modalities if name in payload.todo]
        made = self.labeler.label(payload, poison)
        self._write(payload, todo, made)
        attempts.end()
        return self._pass_on(payload, todo, made, perf_counter() - began)

    def _write(self, payload: UnitPayload, todo: Sequence[str], made: Made) -> None:
        keys = [sample.key for sample in payload.samples]
        writer = UnitWriter(self._store, payload.unit, keys, self.config.views.count)
        if self.config.mode is Mode.SAMPLE:
            write = writer.put_aside
        elif self.config.mode is Mode.REPAIR:
            write = writer.repair
        else:
            write = partial(writer.commit, rejected=writer.reject(payload.rejected))
        cards = self.config.graph.cards
        for written in [self._writers.submit(write, name, cards[name], made.of(name)) for name in todo]:
            written.result()

    def _pass_on(self, payload: UnitPayload, todo: Sequence[str], made: Made, seconds: float) -> UnitPayload:
        config = self.config
        rows = len(payload.samples) * config.views.count
        carried = config.carries & made.results.keys() & self.labeler.making(payload)
        samples = payload.samples if config.pixels_later else [replace(one, image=None) for one in payload.samples]
        return UnitPayload(
            unit=payload.unit,
            todo=payload.todo,
            samples=[] if config.last else samples,
            rejected=payload.rejected,
            chunks=payload.chunks,
            labels={name: labels for name, labels in payload.labels.items() if name in config.carries}
            | {name: made.of(name).labels for name in carried},
            failures=payload.failures + [failure for name in carried for failure in made.of(name).failures],
            done=payload.done | {name: (rows, len(made.of(name).failures), seconds) for name in todo},
            bytes=payload.bytes,
            decodes=payload.decodes + made.decodes,
        )
