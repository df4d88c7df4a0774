"""Labelling one unit by the steps of a stage. Nothing is written: that is the stage's affair."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..corpus.corpus import Sample
from ..dataset.ledger import Failure
from ..dataset.merges import Places
from ..dataset.reader import ColumnReader
from ..plan.steps import Step
from ..storage.store import Store
from .chunks import Decoder, Wanted
from .config import StageConfig
from .labeling import DECODING, ChunkLabeling, Made
from .loaded_models import LoadedModels
from .payload import UnitPayload
from .runner import Failed, Outcome, Poison
from .spent import DECODE, OTHER, READ, Watch


class UnitLabeler:
    """Takes units through a stage's labelers and tokenizers."""

    def __init__(self, config: StageConfig, store: Store) -> None:
        self.config = config
        self.models = LoadedModels(config, store)
        self._decoder = Decoder(config.views, config.seed, threads=max(2, int(config.stage.num_cpus)))
        self._store, self._places = store, Places(store)

    def load(self) -> None:
        """Loads all labelers of the stage; otherwise each is loaded when it is first needed."""
        for step in self.config.stage.steps:
            self.models.runner(step)

    def making(self, payload: UnitPayload) -> set[str]:
        """The modalities whose labels have to be made: those that the unit lacks, and in passing what they need."""
        return self.config.graph.made_for(payload.todo, payload.kept)

    def label(
        self,
        payload: UnitPayload,
        poison: Poison,
        began: Callable[[str], None] = lambda step: None,
        watch: Watch | None = None,
    ) -> Made:
        """What the stage's steps, as far as the unit needs them, make of it; and tokens of labels that are kept.

        began: told each step before it begins. watch: told what the time goes to.
        """
        making, made = self.making(payload), Made(watch=watch or Watch())
        steps = [step for step in self.config.stage.steps if making & set(step.modalities)]
        anew = [name for name in self.config.stage.modalities if name in payload.todo and name not in making]
        if not (steps or anew):
            return made
        known = self._known_labels(payload, steps, making, anew, made)
        made.watch.lap(READ)
        crops = any(self.config.graph.cards[name].on == "image" for name in anew)
        wanted = Wanted(any(s.on == "view" for s in steps), any(s.on == "image" for s in steps), crops)
        undecodable = {index: failed for (index, step), failed in poison.items() if step == DECODING}
        for chunk in self._decoder.chunks(payload.samples, payload.chunks, wanted, undecodable):
            made.watch.lap(DECODE)
            made.decodes += chunk.decodes
            ChunkLabeling(self.models, payload, chunk, steps, known, poison, made).run(making, anew, began)
        for name in payload.labels.keys() & set(anew):
            made.of(name).labels = payload.labels[name]  # to encode what was decoded may give other bytes
        made.watch.lap(OTHER)
        return made

    def _known_labels(
        self, payload: UnitPayload, steps: Sequence[Step], making: set[str], anew: Sequence[str], made: Made
    ) -> dict[str, list[Outcome]]:
        """Labels that aren't made here and that the steps need, or that are to be tokenised anew: from earlier stages,
        put aside, or kept in the dataset. What they were made without is noted in `made`."""
        here = {name for step in steps for name in step.modalities if name in making}
        known: dict[str, list[Outcome]] = {}
        for name in dict.fromkeys([*anew, *(need for step in steps for need in step.needs)]):
            if name in here:
                continue
            card = self.config.graph.cards[name]
            if name in payload.labels:
                encoded, failures = payload.labels[name], payload.failures
            else:
                encoded, failures = self._kept_labels(payload, name)
            own = [one for one in failures if one.modality == name]
            for note in (one for one in own if one.is_note):
                made.notes.setdefault((name, note.key), []).append(note)
            failed = {(f.key, f.view): Failed(f.reason, f.error, f.without) for f in own if not f.is_note}
            rows = _item_rows(payload.samples, card.labels_per_sample(self.config.views.count))
            known[name] = [
                failed.get(row) if label is None else card.label_kind.decode(label)
                for row, label in zip(rows, encoded, strict=True)
            ]
        return known

    def _kept_labels(self, payload: UnitPayload, name: str) -> tuple[list[bytes | None], list[Failure]]:
        """The stored labels of the payload's samples, which may be fewer than the unit's, and the unit's failures."""
        revisions = {name: {payload.unit: payload.revisions.get(name, 0)}}
        cards, views = self.config.graph.cards, self.config.views.count
        reader = ColumnReader(self._store, cards, views, revisions, self._places)
        column = reader.labels(payload.unit, name)
        places = {key: place for place, key in enumerate(column.keys)}
        samples = [places[sample.key] for sample in payload.samples]
        labels = [column.value(sample, view) for sample in samples for view in range(column.per_sample)]
        return labels, reader.failures(payload.unit, column)


def _item_rows(samples: Sequence[Sample], per_sample: int) -> list[tuple[str, int | None]]:
    """(key, view) of every item, as the quarantine names them: no view where a sample has only one."""
    if per_sample == 1:
        return [(sample.key, None) for sample in samples]
    return [(sample.key, view) for sample in samples for view in range(per_sample)]
