"""Single samples that are tried again, in units that are finished: which, and what work that is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ..corpus.corpus import Shard
from ..corpus.units import Unit
from ..dataset.finished import Finished
from ..dataset.ledger import Failure
from .steps import StepGraph
from .worklist import Kept, Work, kept_of


def samples_again(
    failures: Iterable[Failure], finished: Mapping[str, Finished], graph: StepGraph
) -> dict[Unit, dict[str, set[str]]]:
    """By unit, in order, and modality: the keys of the samples that the failures tell of, and of what is made from
    them. Those of units that are no more are left out."""
    failed = _by_unit(failures, finished.values())
    return {unit: _with_dependants(keys, graph) for unit, keys in sorted(failed.items())}


def work_again(
    unit: Unit,
    shard: Shard,
    keys: Mapping[str, Collection[str]],
    there: Mapping[str, Collection[Unit]],
    graph: StepGraph,
    finished: Mapping[str, Finished],
) -> Work:
    """What of `keys`, by modality, there is to try of a unit. there: units by modality: one that lacks the unit is made
    whole by a run."""
    todo = [name for name in graph.cards if name in keys and unit in there.get(name, ())]
    revisions = ((name, unit.start, finished[name].revisions.get(unit, 0)) for name in graph.cards)
    return Work(
        shard,
        unit.start,
        unit.stop,
        tuple(todo),
        kept=kept_of(unit, {name: one for name, one in kept_labels(graph, finished).items() if name not in todo})[0],
        revisions=tuple(one for one in revisions if one[2]),
        keys={name: tuple(sorted(keys[name])) for name in todo},
    )


def kept_labels(graph: StepGraph, finished: Mapping[str, Finished]) -> dict[str, Kept]:
    """The labels that needn't be made for what is made from them."""
    labelled = [name for name, card in graph.cards.items() if card.keeps_labels]
    return {name: (finished[name].units, finished[name].revisions) for name in labelled}


def _by_unit(failures: Iterable[Failure], finished: Collection[Finished]) -> dict[Unit, dict[str, set[str]]]:
    failed: dict[Unit, dict[str, set[str]]] = {}
    for one in failures:
        unit = Unit.parse(one.unit)
        if unit and any(unit in found.units for found in finished):
            failed.setdefault(unit, {}).setdefault(one.modality, set()).add(one.key)
    return failed


def _with_dependants(failed: Mapping[str, set[str]], graph: StepGraph) -> dict[str, set[str]]:
    """The modalities of one unit that have failures, or that are made from such, with the keys: a label that was made
    without another is made again with it."""
    keys = {name: set(found) for name, found in failed.items()}
    for step in graph.steps:
        for name in step.modalities:
            above = set().union(*(keys.get(need, set()) for need in step.needs))
            if above:
                keys[name] = keys.get(name, set()) | above
    return keys
