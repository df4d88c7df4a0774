"""Estimates: what a run will take, and what of it will fail, from a few samples tried in this process."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from ..corpus.corpus import Corpus, Rejection, Sample, UnitLimits
from ..corpus.unit_sets import lists_by_shard
from ..corpus.units import Unit
from ..dataset.failed_labels import failed_views
from ..dataset.finished import is_complete, units_of
from ..dataset.ledger import Failure
from ..plan.plan import Plan, at_work
from ..plan.sampling import Tried, try_samples
from ..plan.worklist import Work
from .trial import Labels, label_in_process

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Failing:
    """Labels that fail alike, of the same views of the same samples. count: of each modality; first: of the
    failures."""

    modalities: list[str]
    count: int
    first: Failure


@dataclass(frozen=True)
class Estimate:
    """samples, bytes: labelled; labels: of these, by modality, one for each view; tried: samples, with those that the
    reader refused. shards: from how many they are. seconds: by step, for all of them together, on one core or GPU
    without loading. overhead: the seconds of the trial that no step accounts for: decoding, above all. null: modalities
    of which none of the samples has a label, with how many labels didn't fail. fields: those that lie beside their
    images. refused, left_out: as of `Tried`, the latter in lines. untried: modalities that are left to make, and can't
    be made in this process: their labelers have environments, or need what is made in one."""

    samples: int
    labels: Mapping[str, int]
    tried: int
    shards: int
    bytes: int
    seconds: Mapping[str, float]
    overhead: float
    failing: list[Failing]
    null: dict[str, int]
    fields: list[str]
    refused: list[Rejection]
    left_out: list[str]
    untried: list[str] = field(default_factory=list)

    @property
    def per_sample(self) -> float:
        return (sum(self.seconds.values()) + self.overhead) / max(1, self.samples)

    def worker_seconds(self, steps: Iterable[str], left: float) -> float:
        """What `left` bytes of encoded images will cost all workers together of a stage of these steps. Each stage that
        has something to do decodes for itself."""
        own = sum(self.seconds.get(name, 0.0) for name in steps)
        return (own + self.overhead) * left / max(1, self.bytes) if own else 0.0

    def units(self, plan: Plan, left: Iterable[float]) -> int:
        """How many units so many bytes of each shard come to, about, of which none is cut among workers."""
        limits = plan.recipe.units
        per_byte = max(1 / limits.bytes, self.samples / max(1, self.bytes) / limits.samples)
        return sum(max(1, math.ceil(size * per_byte - _ROUNDING)) for size in left)

    def left(self, plan: Plan) -> list[float]:
        """How many bytes are left of each shard of which something is, about: its own, less those of units that lack
        nothing. Samples are taken to be of one size in a shard, and in one that isn't complete of the size of those
        that were tried."""
        units = lists_by_shard(units_of(plan.finished.values()))
        return [self._left(shard.size, own, [*units.get(shard.id, ())]) for shard, own in plan.works.by_shard()]

    def _left(self, size: int, works: Sequence[Work], units: Collection[Unit]) -> float:
        """Of one shard of that size, of which these units are there in part."""
        known = sum(unit.count for unit in units)
        whole = known if is_complete(units) else max(known + 1, size * self.samples / max(1, self.bytes))
        lacking = sum(unit.count for unit in units if any(work.has(unit) for work in works))
        return size * (whole - known + lacking) / max(1, whole)


def corpus_fields(plan: Plan, count: int = 8) -> list[str]:
    """What lies beside the images of the corpus' first samples."""
    units = Corpus(plan.recipe.corpus).read(plan.shards[0], limits=UnitLimits(samples=count))
    return sorted({name for unit in islice(units, 1) for sample in unit.samples for name in sample.fields})


def calibrate(plan: Plan, count: int) -> Estimate | None:
    """Makes for up to `count` samples what they lack of labels. None where nothing is. Tokenising isn't timed:
    tokenizers may have to be fitted first."""
    if not plan.works:
        return None
    tried = try_samples(Corpus(plan.recipe.corpus), plan.works, count)
    apart = [name for step in plan.graph.steps if step.environment for name in step.modalities]
    untried = plan.graph.downstream(apart)
    seconds, overhead, labels = _labelled(plan, tried, untried)
    views = plan.recipe.views.count
    per_sample = {name: plan.graph.cards[name].labels_per_sample(views) for name in labels}
    made = {name: len(found.labels) // per_sample[name] * views for name, found in labels.items()}
    failed = {name: len(_failed(found.failures, views)) for name, found in labels.items()}
    sound = {name: made[name] - failed[name] for name in labels}
    return Estimate(
        samples=len(tried.samples),
        labels=made,
        tried=tried.count,
        shards=len(tried.shards),
        bytes=sum(sample.size for sample in tried.samples),
        seconds=seconds,
        overhead=overhead,
        failing=list(_failing(labels, views)),
        null={name: sound[name] for name, found in labels.items() if sound[name] and _is_null(found)},
        fields=sorted({name for sample in tried.samples for name in sample.fields}),
        refused=tried.refused,
        left_out=tried.left_out.told(),
        untried=[name for name in untried if name in at_work(plan.graph, plan.works)],
    )


def _labelled(plan: Plan, tried: Tried, untried: Collection[str]) -> tuple[dict[str, float], float, dict[str, Labels]]:
    """Seconds by step, those that no step accounts for, and the labels, by modality: of what the samples lack, less
    what is `untried`. Labels that are there and needed are made, too, and not counted: reading them takes less."""
    seconds, labels = defaultdict[str, float](float), dict[str, Labels]()
    overhead, views = 0.0, plan.recipe.views.count
    alike = defaultdict[frozenset[str], list[Sample]](list)
    for sample, work in zip(tried.samples, tried.works, strict=True):
        alike[frozenset(plan.graph.made_for(work.todo, work.kept)).difference(untried)].append(sample)
    for making, samples in alike.items():
        if not making:
            continue
        # loads what is loaded once: libraries, weights into the page cache
        label_in_process(plan.recipe, samples[:1], making, views)
        began = time.perf_counter()
        trial = label_in_process(plan.recipe, samples, making, views)
        spent = time.perf_counter() - began - trial.loading
        overhead += max(0.0, spent - sum(trial.seconds.values()))
        for step in plan.graph.steps:
            if making & set(step.modalities):
                seconds[step.name] += trial.seconds[step.name]
        for name in making:
            found, before = trial.labels[name], labels.get(name)
            labels[name] = found.after(before) if before else found
    return seconds, overhead, labels


def _is_null(found: Labels) -> bool:
    return all(label is None for label in found.labels)


def _failed(failures: Sequence[Failure], views: int) -> frozenset[tuple[str, int]]:
    """The labels that there aren't, by key and view."""
    return frozenset((failure.key, view) for failure in failures for view in failed_views(failure, views))


def _failing(labels: Mapping[str, Labels], views: int) -> Iterator[Failing]:
    """What failed, put together: an image that can't be read fails in many modalities."""
    alike: defaultdict[tuple[str, frozenset[tuple[str, int]]], list[Failure]] = defaultdict(list)
    for found in labels.values():
        by_finding: defaultdict[str, list[Failure]] = defaultdict(list)
        for failure in found.failures:
            by_finding[failure.error].append(failure)
        for finding, own in by_finding.items():
            alike[finding, _failed(own, views)].append(own[0])
    for (_, failed), firsts in alike.items():
        yield Failing([failure.modality for failure in firsts], len(failed), firsts[0])
