"""Figures of a run for Ray's dashboard and Prometheus, where Ray puts `ray_` before their names."""

from __future__ import annotations

from ray.util.metrics import Counter

from .payload import UnitPayload


class UnitMetrics:
    """Counts what one actor has done. A counter ends with its actor's node, so sums are of rates: sum(rate(...))."""

    def __init__(self) -> None:
        def counter(name: str, what: str, *tags: str) -> Counter:
            return Counter(f"tokenloom_{name}_total", what, tag_keys=tags)

        self._labels = counter("labels", "Labels made, failed ones included.", "modality")
        self._failed = counter("failed_labels", "Labels that went to quarantine.", "modality")
        self._refused = counter("refused_samples", "Samples that the corpus reader refused.")
        self._units = counter("units", "Units that a stage has finished.", "stage")
        self._samples = counter("samples", "Samples of these units.", "stage")
        self._bytes = counter("corpus_bytes", "Bytes of these units' images or texts, as the corpus has them.", "stage")
        self._seconds = counter("stage_seconds", "Seconds of a stage's workers, by what went on.", "stage", "activity")
        self._model_seconds = counter("labeler_seconds", "Seconds of labelers, of those of models.", "labeler")

    def add(self, payload: UnitPayload, processed: UnitPayload) -> None:
        """Adds what became of the unit in this actor: the first stage's counts the reading, too."""
        for name in processed.done.keys() - payload.done.keys():
            rows, failed = processed.done[name]
            _add(self._labels, rows, modality=name)
            _add(self._failed, failed, modality=name)
        first = len(payload.spent) <= 1
        if first:
            _add(self._refused, sum(not one.is_note for one in payload.rejected))
        for spent in processed.spent if first else processed.spent[len(payload.spent) :]:
            _add(self._units, 1, stage=spent.stage)
            _add(self._samples, payload.unit.count, stage=spent.stage)
            _add(self._bytes, payload.bytes, stage=spent.stage)
            for activity, seconds in spent.seconds.items():
                _add(self._seconds, seconds, stage=spent.stage, activity=activity)
            for name, seconds in spent.models.items():
                _add(self._model_seconds, seconds, labeler=name)


def _add(counter: Counter, value: float, **tags: str) -> None:
    if value:  # Ray refuses to add nothing, and a unit may hold no sample
        counter.inc(value, tags)
