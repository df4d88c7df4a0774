"""Estimates: what a run will take, from a few samples tried in this process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice

from ..corpus.corpus import Corpus, UnitLimits
from ..plan.plan import Plan
from .trial import label_in_process


@dataclass(frozen=True)
class Estimate:
    """samples, bytes: tried. seconds: by step, for all of them together, on one core or GPU without loading. overhead:
    the seconds of the trial that no step accounts for: decoding, above all. null: modalities of which none of the
    samples has a label. fields: those that lie beside their images."""

    samples: int
    bytes: int
    seconds: dict[str, float]
    overhead: float
    null: list[str]
    fields: list[str]

    @property
    def per_sample(self) -> float:
        return (sum(self.seconds.values()) + self.overhead) / self.samples

    def worker_seconds(self, left: int) -> float:
        """What `left` bytes of encoded images will cost all workers together."""
        return self.per_sample * self.samples * left / max(1, self.bytes)


def corpus_fields(plan: Plan, count: int = 8) -> list[str]:
    """What lies beside the images of the corpus' first samples."""
    units = Corpus(plan.recipe.corpus).read(plan.shards[0], limits=UnitLimits(samples=count))
    return sorted({name for unit in islice(units, 1) for sample in unit.samples for name in sample.fields})


def calibrate(plan: Plan, count: int) -> Estimate | None:
    """Labels up to `count` samples of what is left. None where nothing is. Tokenising isn't timed: tokenizers may have
    to be fitted first."""
    if not plan.works:
        return None
    work = plan.works[0]
    corpus, limits = Corpus(plan.recipe.corpus), UnitLimits(samples=count)
    units = corpus.read(work.shard, work.start, work.stop, limits)
    samples = [sample for unit in islice(units, 1) for sample in unit.samples]
    if not samples:
        return None
    label_in_process(plan.recipe, samples[:1])  # loads what is loaded once: libraries, weights into the page cache
    began = time.perf_counter()
    trial = label_in_process(plan.recipe, samples)
    spent = time.perf_counter() - began - trial.loading
    overhead = max(0.0, spent - sum(trial.seconds.values()))
    labels = {name: found for name, found in trial.labels.items() if not found.failures}
    return Estimate(
        samples=len(samples),
        bytes=sum(len(sample.image or b"") for sample in samples),
        seconds=trial.seconds,
        overhead=overhead,
        null=[name for name, found in labels.items() if all(label is None for label in found.labels)],
        fields=sorted({name for sample in samples for name in sample.fields}),
    )
