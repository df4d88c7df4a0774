"""Figures of a run for Ray's dashboard and Prometheus, as the progress lines show them."""

from __future__ import annotations

from ray.util.metrics import Counter

from .payload import UnitPayload


class UnitMetrics:
    """Counts what one actor has done: labels and failures by modality, samples, and seconds at work."""

    def __init__(self) -> None:
        self._labels = Counter("tokenloom_labels", "Labels made, failed ones included.", tag_keys=("modality",))
        self._failed = Counter("tokenloom_failed", "Labels that went to quarantine.", tag_keys=("modality",))
        self._units = Counter("tokenloom_units", "Units that a stage has finished.", tag_keys=("stage",))
        self._seconds = Counter("tokenloom_seconds", "Seconds that a stage has worked.", tag_keys=("stage",))

    def add(self, stage: str, payload: UnitPayload, modalities: tuple[str, ...]) -> None:
        """Adds what the stage came to: its modalities' entries in `payload.done`."""
        mine = {name: result for name, result in payload.done.items() if name in modalities}
        for name, (rows, failed, _) in mine.items():
            _add(self._labels, rows, modality=name)
            _add(self._failed, failed, modality=name)
        _add(self._units, 1, stage=stage)
        _add(self._seconds, max((seconds for _, _, seconds in mine.values()), default=0.0), stage=stage)


def _add(counter: Counter, value: float, **tags: str) -> None:
    if value:  # Ray refuses to add nothing, and a unit may hold no sample
        counter.inc(value, tags)
