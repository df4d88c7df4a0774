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
            self._labels.inc(rows, {"modality": name})
            if failed:
                self._failed.inc(failed, {"modality": name})
        self._units.inc(1, {"stage": stage})
        seconds = max((seconds for _, _, seconds in mine.values()), default=0.0)
        if seconds:
            self._seconds.inc(seconds, {"stage": stage})
