"""Drivers on one output, in lock-step through schedules that are drawn from seeds: whatever they do to each other, no
generation is mixed, no card is lost, and none reports what it did not see.

TOKENLOOM_RACES=100 tries so many schedules of each race, and kills runs before every operation instead of some.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_process import given, weave, without_ray
from lock_step import Driver, Killed, LockStep
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import DatasetError, require_manifest
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import Recipe
from tokenloom.pipeline.retry import retry
from tokenloom.pipeline.run import execute
from tokenloom.pipeline.storage.store import Store
from weaving import digests, odd, recipe

pytestmark = pytest.mark.slow
MORE = {"units": {"samples": 3}, "views": {"size": 32}, "fit": {"units": 2}}
CODES = {"labeler": "odd_labelers:Grid", "keep": "both", "tokenizer": {"name": "codebook", "params": {"size": 4}}}
FEWER = {**CODES, "tokenizer": {"name": "codebook", "params": {"size": 3}}}
COLOUR = {"mean_colour": odd("MeanColour")}
DOUBLED = {**COLOUR, "doubled": odd("Doubled")}
MANY = int(os.environ.get("TOKENLOOM_RACES", "0"))
SEEDS = range(MANY or 4)


@pytest.fixture(scope="module")
def corpus(small_corpus: Path) -> Path:
    return small_corpus


@pytest.fixture
def output() -> str:
    return f"memory://{uuid.uuid4()}"


def driver(made: Recipe, *replacing: str, **more: Any) -> Driver:
    return Driver(lambda: execute(make_plan(made, replacing)), **more)


def race(seed: int, *drivers: Driver) -> None:
    """Runs them, and lets pass no error but those that tell the user that another driver was in the way."""
    with without_ray():
        LockStep(*drivers).run(seed)
    for one in drivers:
        if one.error is not None and not isinstance(one.error, (DatasetError, Killed)):
            raise one.error


def failed_once(corpus: Path, output: str, now: Path) -> tuple[dict[str, Any], Driver]:
    """Makes a dataset in which a label has failed that would succeed now: its modality, and a driver that retries."""
    waits = {"mean_colour": odd("WaitsFor", params={"file": str(now)})}
    given(recipe(corpus, output, waits, **MORE))
    now.touch()
    return waits, Driver(lambda: retry(output))


def is_whole(output: str, *names: str) -> None:
    """Every modality is there, sound and current; nothing is foreign."""
    assert verify(output, deep=True).faults == []
    assert set(names) <= set(require_manifest(Store(output)).modalities)


def saw_what_it_reports(made: Recipe, one: Driver) -> None:
    """A driver that ended well left its modalities as it was asked to, and complete."""
    if one.error is None:
        with without_ray():
            plan = make_plan(made)
        assert plan.works == []
        assert plan.manifest == require_manifest(Store(made.output))


@pytest.mark.parametrize("seed", sorted({*SEEDS, 11, 26}))  # by these one clears the sample away that the other reads
def test_one_recipe_twice(seed, corpus, output):
    made = recipe(corpus, output, {**DOUBLED, "grid": CODES, "caption": {}}, **MORE)
    alone = made.model_copy(update={"output": f"memory://{uuid.uuid4()}"})
    given(alone)
    both = [driver(made), driver(made)]
    race(seed, *both)
    assert [one.error for one in both] == [None, None]
    is_whole(output, "grid", "doubled", "caption")
    assert digests(output) == digests(alone.output)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_recipes_with_one_modality_in_common(seed, corpus, output):
    recipes = [
        recipe(corpus, output, {**COLOUR, "grid": CODES}, **MORE),
        recipe(corpus, output, {**DOUBLED, "canny_edge": {"keep": "labels"}}, **MORE),
    ]
    both = [driver(one) for one in recipes]
    race(seed, *both)
    assert [one.error for one in both] == [None, None]
    is_whole(output, "grid", "mean_colour", "doubled", "canny_edge")


@pytest.mark.parametrize("seed", SEEDS)
def test_two_recipes_that_contradict_each_other(seed, corpus, output):
    """The first to write its manifest makes its own; the other one is told."""
    recipes = [recipe(corpus, output, {**COLOUR, "grid": codes}, **MORE) for codes in (CODES, FEWER)]
    both = [driver(one) for one in recipes]
    race(seed, *both)
    (told,) = [one.error for one in both if one.error]
    assert "--replace grid" in str(told)
    is_whole(output, "grid")
    for made, one in zip(recipes, both, strict=True):
        saw_what_it_reports(made, one)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("begun", ["complete", "in part"])
def test_a_replacement_beside_the_recipe_that_it_replaces(seed, begun, corpus, output):
    old = recipe(corpus, output, {**COLOUR, "grid": CODES}, **MORE)
    new = recipe(corpus, output, {**COLOUR, "grid": FEWER}, **MORE)
    given(old, limit=3 if begun == "in part" else None)
    both = [driver(old), driver(new, "grid")]
    race(seed, *both)
    is_whole(output, "grid", "mean_colour")
    assert both[1].error is None
    saw_what_it_reports(new, both[1])
    if both[0].error is not None:
        assert "replaced by another run meanwhile" in str(both[0].error) or "--replace grid" in str(both[0].error)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_replacements(seed, corpus, output):
    given(recipe(corpus, output, {"grid": CODES}, **MORE))
    sizes = (2, 3)
    recipes = [
        recipe(corpus, output, {"grid": {**CODES, "tokenizer": {"name": "codebook", "params": {"size": n}}}}, **MORE)
        for n in sizes
    ]
    both = [driver(one, "grid") for one in recipes]
    race(seed, *both)
    is_whole(output, "grid")
    assert any(one.error is None for one in both)
    holds = require_manifest(Store(output)).modalities["grid"].tokens
    assert holds is not None
    last = recipes[sizes.index(holds.params["size"])]
    assert both[recipes.index(last)].error is None


def test_a_driver_that_was_replaced_before_its_end_says_so(corpus, output):
    given(recipe(corpus, output, {"grid": CODES}, **MORE))
    mine, theirs = (
        recipe(corpus, output, {"grid": {**CODES, "tokenizer": {"name": "codebook", "params": {"size": n}}}}, **MORE)
        for n in (2, 3)
    )
    with without_ray():
        plan = make_plan(mine, ["grid"])
        weave(theirs, ["grid"])
        with pytest.raises(DatasetError, match="--replace grid"):
            weave(mine)
        with pytest.raises(DatasetError, match=r"grid was made differently|replaced by another run meanwhile"):
            execute(replace(plan, request=replace(plan.request, replacing=frozenset())))
    is_whole(output, "grid")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_retry_beside_a_replacement(seed, corpus, output, now):
    """Whichever comes first: what was reported as mended is what readers get, or an error was."""
    _, again = failed_once(corpus, output, now)
    replacing = driver(recipe(corpus, output, {"mean_colour": odd("Brighter")}, **MORE), "mean_colour")
    race(seed, again, replacing)
    assert replacing.error is None
    assert verify(output, deep=True).faults == []
    for row in open_dataset(output).iterate(["mean_colour"], labels=True):
        assert row.values["mean_colour"].max() > 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_retry_beside_a_run_that_adds_what_hangs_on_it(seed, corpus, output, now):
    waits, again = failed_once(corpus, output, now)
    more = recipe(corpus, output, {**waits, "doubled": odd("Doubled")}, **MORE)
    adding = driver(more)
    race(seed, again, adding)
    assert [again.error, adding.error] == [None, None]
    assert {fault.problem for fault in verify(output, deep=True).faults} <= {"stale"}  # made before it was mended
    weave(more)
    assert verify(output, deep=True).faults == []
    for row in open_dataset(output).iterate(labels=True):
        assert all(value is not None for value in row.values.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_two_retries(seed, corpus, output, now):
    waits = {"mean_colour": odd("WaitsFor", params={"file": str(now)}), "doubled": odd("Doubled")}
    given(recipe(corpus, output, waits, **MORE))
    now.touch()
    both = [Driver(lambda: retry(output)) for _ in range(2)]
    race(seed, *both)
    assert [one.error for one in both] == [None, None]
    assert verify(output, deep=True).faults == []
    for row in open_dataset(output).iterate(labels=True):
        assert all(value is not None for value in row.values.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_reader_sees_one_generation_until_another_is_complete(seed, corpus, output):
    old, new = (recipe(corpus, output, {"grid": codes}, **MORE) for codes in (CODES, FEWER))
    given(old)

    def read() -> list[tuple[str, int]]:
        dataset = open_dataset(output)
        vocabulary = dataset.modalities["grid"].vocabulary
        rows = list(dataset.iterate(["grid"]))
        assert len(rows) == len(dataset) == 6
        assert vocabulary is not None
        return [(row.key, vocabulary) for row in rows if int(row.values["grid"].max()) < vocabulary]

    reader = Driver(lambda: [read() for _ in range(3)])
    race(seed, reader, driver(new, "grid"))
    assert reader.error is None
    assert [len(rows) for rows in reader.outcome] == [6, 6, 6]
    assert all(len({vocabulary for _, vocabulary in rows}) == 1 for rows in reader.outcome)


def killed_and_run_again(made: Recipe, begin: Callable[[], None], step: int, *replacing: str) -> bool:
    """Kills a run before its operation number `step`, and runs it again without `--replace`, unless it ended before."""
    begin()
    one = driver(made, *replacing, dies_at=step)
    race(0, one)
    if one.error is None:
        return False
    try:
        weave(made)
    except DatasetError:  # killed before it had written that it replaces
        weave(made, replacing)
    return True


@pytest.mark.parametrize("replaces", [False, True])
def test_a_run_killed_before_any_operation_leaves_what_one_that_was_not_killed_leaves(replaces, corpus):
    def at(output: str) -> tuple[Recipe, Callable[[], None], tuple[str, ...]]:
        old = recipe(corpus, output, {**COLOUR, "grid": CODES}, **MORE)
        new = recipe(corpus, output, {**DOUBLED, "grid": FEWER}, **MORE)
        return (new, lambda: given(old), ("grid",)) if replaces else (old, lambda: None, ())

    def left(output: str) -> dict[str, str]:
        return {name: digest for name, digest in digests(output).items() if not name.startswith(("fit/", "attempts/"))}

    whole, begin, replacing = at(f"memory://{uuid.uuid4()}")
    begin()
    weave(whole, replacing)
    expected, step = left(whole.output), 0
    while True:
        made, begin, replacing = at(f"memory://{uuid.uuid4()}")
        if not killed_and_run_again(made, begin, step, *replacing):
            break
        assert left(made.output) == expected, step
        step += 1 if MANY else 13
    assert step > 50
