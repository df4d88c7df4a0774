"""The engine: units stream through Ray Data, from the corpus' reader through the stages to result rows."""

from __future__ import annotations

import gc
import json
import math
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count, groupby
from typing import TYPE_CHECKING, Any

from ..checks.reasons import Group
from ..cluster.runtime_env import runtime_env, why_unmade
from ..cluster.session import EngineError
from ..cluster.waiting import nodes_for
from ..corpus.corpus import Corpus, CorpusSettings, Rejection, Shard, UnitLimits
from ..corpus.units import Unit
from ..dataset.aside import NOTHING_ASIDE, LabelsAside
from ..dataset.ledger import Failure
from ..plan.stages import UNBOUNDED, Stage
from ..plan.worklist import Work
from .config import StageConfig
from .payload import UnitPayload
from .spent import IDLE, READ, READING, Spent, Watch
from .stage import StageWorker

if TYPE_CHECKING:
    import pyarrow as pa

MOST_BLOCKS = 1000
"""Blocks of work given to Ray at once; with more work, a block holds several pieces."""

_AHEAD = 2
"""Units that a worker has in hand and waiting: enough that it never idles, few enough for the object store."""


_LOOK = 5.0
"""Seconds for which the nodes are known on which there may be workers."""

_RAYS_ADVICE = "\nFailed to apply UDF transform"

_RAISED = re.compile(r"(?s:.*)^  File .*\n(?: +.*\n)*([\w.]+)(?:: |$)((?s:.*))", re.MULTILINE)
"""What a worker has raised while it was made, of which Ray keeps a traceback's text alone: behind its last frame."""


@dataclass(frozen=True)
class UnitResult:
    """A unit that is done: per modality labels, and failed ones among them; the bytes of its images or texts, the
    samples that the corpus reader refused, how many times an image was decoded, why parts of the corpus shard can't be
    read, and all that was refused. again, reasons, spent: as of UnitPayload. failures: of labels for the fitting
    sample."""

    unit: Unit
    done: dict[str, tuple[int, int]]
    bytes: int
    rejected: int
    decodes: int
    broken: tuple[str, ...] = ()
    refused: tuple[Rejection, ...] = ()
    again: int = 0
    failures: tuple[Failure, ...] = ()
    reasons: tuple[Group, ...] = ()
    spent: tuple[Spent, ...] = ()


@dataclass(frozen=True)
class ReaderConfig:
    """What a reading task has to know. limit: stop after so many samples. aside: where labels were put aside."""

    corpus: CorpusSettings
    limits: UnitLimits
    limit: int | None
    aside: LabelsAside = NOTHING_ASIDE


def stream(works: Sequence[Work], reader: ReaderConfig, stages: Sequence[StageConfig]) -> Iterator[UnitResult]:
    """Runs every unit in `works` through the stages, yielding results as they come, in any order.

    Raises EngineError with the cause when a unit can't be read or written, whatever is tried.
    """
    import ray.data
    from ray.data import ActorPoolStrategy
    from ray.exceptions import RayError

    dataset = ray.data.from_items(_blocks(works, reader.limit), override_num_blocks=_block_count(works, reader.limit))
    # No CPUs are set aside for reading: it waits for the disk or the network, and differs in that from the stages, so
    # that Ray doesn't fuse it into their actors.
    with warnings.catch_warnings():
        # Nothing else gives each worker a place of its own. Ray drops it with 2.64, which pyproject.toml excludes.
        warnings.filterwarnings("ignore", "`ray_remote_args_fn` is deprecated")
        dataset = dataset.map_batches(
            read_units,  # type: ignore[arg-type] - Ray wants a type variable that pyarrow.Table can't bind
            fn_args=(reader,),
            batch_format="pyarrow",
            num_cpus=0,
            ray_remote_args_fn=_beside(stages[0].stage, ray.get_runtime_context().gcs_address),
            concurrency=_readers(stages),
        )
        for config in stages:
            stage = config.stage
            dataset = dataset.map_batches(
                StageWorker,
                fn_constructor_args=(config,),
                batch_format="pyarrow",
                batch_size=1,  # a unit, as its block has it: Ray wants it said where GPUs are asked for
                num_cpus=stage.num_cpus,
                num_gpus=stage.num_gpus or None,
                memory=stage.memory,
                **_environment(stage.environment),
                ray_remote_args_fn=_placing(stage.nodes),
                compute=ActorPoolStrategy(
                    min_size=stage.min_workers, max_size=stage.max_workers, max_tasks_in_flight_per_actor=_AHEAD
                ),
            )
    try:
        for row in dataset.iter_rows():
            yield result_of(json.loads(row["head"]))
        return
    except RayError as error:
        reason = cause(error)
    # Ray's own error holds the workers, and with them the CPUs that the next run waits for. So it isn't the context of
    # what is raised, which somebody may keep; and it is in a circle.
    gc.collect()
    raise EngineError(reason)


def _environment(pins: Sequence[str]) -> dict[str, Any]:
    """Of a stage that has none its workers get no runtime_env: by one, Ray would start each of them twice."""
    return {"runtime_env": runtime_env(pins)} if pins else {}


def _placing(nodes: Sequence[str]) -> Callable[[], dict[str, Any]] | None:
    """Has Ray start the first workers of a stage on these nodes, and all others where it likes; a node that is no more
    counts for any."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    left = iter(nodes)

    def arguments() -> dict[str, Any]:
        node = next(left, None)
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)} if node else {}

    return arguments if nodes else None


def _beside(stage: Stage, head: str) -> Callable[[], dict[str, Any]]:
    """Has Ray start reading tasks on nodes where the stage may have workers, in turn, or if it has no more than the
    least, where it has them: what is read crosses no network on the way to a worker there, which Ray Data prefers.
    Anywhere, where no such node is there, or it is no more."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    told = stage.nodes if stage.min_workers == stage.max_workers else ()
    nodes: Sequence[str] = ()
    known = -math.inf
    turns = count()

    def arguments() -> dict[str, Any]:
        nonlocal nodes, known
        if time.monotonic() > known:
            there, known = nodes_for(stage.request, head), time.monotonic() + _LOOK
            nodes = [node for node in told if node in there] or there
        if not nodes:
            return {}
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(nodes[next(turns) % len(nodes)], soft=True)}

    return arguments


def read_units(block: pa.Table, reader: ReaderConfig) -> Iterator[pa.Table]:
    """A reading task: the payloads of the pieces of work in `block`, one table each."""
    corpus = Corpus(reader.corpus)
    left = reader.limit if reader.limit is not None else sys.maxsize
    watch = Watch()
    for text in block["work"]:
        for shard, raw in _works_in(text.as_py()):
            for unit in corpus.read(shard, raw["start"], raw["stop"], reader.limits):
                if raw["keys"] is not None:
                    wanted = frozenset().union(*raw["keys"].values())
                    unit.samples = [sample for sample in unit.samples if sample.key in wanted]
                revisions = {name: number for name, start, number in raw["revisions"] if start == unit.unit.start}
                given = reader.aside.read(unit.unit, raw["kept"])
                kept = tuple(name for name in raw["kept"] if name not in given.lost)
                known = {"kept": kept, "revisions": revisions, "keys": raw["keys"]}
                known |= {"labels": given.labels, "failures": given.failures}
                watch.lap(READ)
                yield UnitPayload.of(unit, tuple(raw["todo"]), **known, spent=[watch.take(READING)]).to_table()
                watch.lap(IDLE)
                left -= unit.unit.count
                if left <= 0:
                    return


def _blocks(works: Sequence[Work], limit: int | None) -> list[dict[str, str]]:
    count = _block_count(works, limit)
    size, extra = divmod(len(works), count)
    blocks, start = [], 0
    for index in range(count):
        stop = start + size + (index < extra)
        blocks.append({"work": works_as_text(works[start:stop])})
        start = stop
    return blocks


def works_as_text(works: Sequence[Work]) -> str:
    """As reading tasks take them. A shard, of which there may be many pieces and which may name many files, is told
    once for those that follow each other; what pieces lack and have, once for all that are alike."""
    kinds: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}
    told = []
    for _, same in groupby(works, lambda work: id(work.shard)):
        pieces = list(same)
        rows = [
            (kinds.setdefault((one.todo, one.kept), len(kinds)), one.start, one.stop, one.revisions, one.keys)
            for one in pieces
        ]
        told.append({"shard": asdict(pieces[0].shard), "pieces": rows})
    return json.dumps({"kinds": list(kinds), "shards": told})


def _works_in(text: str) -> Iterator[tuple[Shard, dict[str, Any]]]:
    told = json.loads(text)
    for one in told["shards"]:
        shard = Shard(**one["shard"])
        for kind, start, stop, revisions, keys in one["pieces"]:
            todo, kept = map(tuple, told["kinds"][kind])
            piece = {"start": start, "stop": stop, "todo": todo, "kept": kept, "revisions": revisions, "keys": keys}
            yield shard, piece


def _block_count(works: Sequence[Work], limit: int | None) -> int:
    """With a limit one task reads everything, since it has to count."""
    return 1 if limit is not None else min(len(works), MOST_BLOCKS)


def _readers(stages: Sequence[StageConfig]) -> int:
    """Reading tasks at once: as many as the first stage has workers, where that isn't bounded two for a CPU."""
    import ray

    most = stages[0].stage.max_workers
    return max(2, 2 * int(ray.cluster_resources().get("CPU", 0)) if most == UNBOUNDED else most)


def result_of(head: Mapping[str, Any]) -> UnitResult:
    """What the head of a payload says that has been through all stages."""
    done = {name: tuple(result) for name, result in head["done"].items()}
    unit = Unit.parse(head["unit"])
    assert unit is not None
    told = [Rejection(**one) for one in head["rejected"]]
    refused = tuple(one for one in told if not one.is_note)
    broken = tuple(one.reason for one in refused if one.is_of_shard)
    again, failures = head["read again"], tuple(Failure(**one) for one in head["failures"])
    counts = (head["bytes"], len(refused), head["decodes"])
    reasons, spent = tuple(Group(**one) for one in head["reasons"]), tuple(Spent(**one) for one in head["spent"])
    return UnitResult(unit, done, *counts, broken, refused, again, failures, reasons, spent)


def cause(error: BaseException) -> str:
    """The innermost error of a failed task, as its worker raised it, less what Ray Data adds to its text; or why a
    worker's environment couldn't be made."""
    from ray.exceptions import ActorDiedError, RuntimeEnvSetupError

    while isinstance(getattr(error, "cause", None), BaseException):
        error = error.cause  # type: ignore[attr-defined]
    if isinstance(error, RuntimeEnvSetupError):
        return f"a worker's environment can't be made: {why_unmade(error.error_message)}"
    text = str(error).partition(_RAYS_ADVICE)[0].strip()
    name = f"{type(error).__module__}.{type(error).__name__}"
    if isinstance(error, ActorDiedError) and (raised := _RAISED.search(text)):
        name, text = raised.groups()
    own = name.startswith("tokenloom.")
    return text if own else f"{name.rpartition('.')[2]}: {text or 'no message'}"
