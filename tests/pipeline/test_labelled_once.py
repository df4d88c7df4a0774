"""What is labelled for the fitting sample isn't labelled again, and the dataset is the same as if it were."""

from __future__ import annotations

import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import odd_labelers
import pytest
from corpus_files import tar_bytes
from in_process import weave, without_ray
from lock_step import Driver, Killed, LockStep
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.corpus.corpus import Corpus, CorpusSettings, UnitLimits
from tokenloom.pipeline.dataset.aside import NOTHING_ASIDE, LabelsAside
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import Recipe
from tokenloom.pipeline.plan.sampling import sample_works
from tokenloom.pipeline.run import execute
from tokenloom.pipeline.storage.store import Store
from weaving import digests, odd, recipe

pytestmark = pytest.mark.slow

SMALL = {"units": {"samples": 2}, "views": {"size": 32, "count": 2, "min_scale": 0.5}}
CODES = {"name": "codebook", "params": {"size": 4}}
PATCHES = {"name": "patch_codebook", "params": {"size": 4}}
PARTS = {"name": "product_codebook", "params": {"size": 2}}


@pytest.fixture(scope="module")
def corpus(small_corpus: Path) -> Path:
    return small_corpus


def made(corpus: Path, output: str, keep: str = "tokens", units: int = 16, **more: Any) -> Recipe:
    """Labels of views and of whole images, with failures, some needed by others."""
    modalities = {
        "grid": odd("Grid", keep=keep, tokenizer=CODES),
        "grey_image": odd("GreyImage", keep=keep, tokenizer=PATCHES),
        "mean_colour": odd("Raises", keep=keep, tokenizer=PARTS),
        "doubled": odd("Doubled"),
        "caption": {"keep": keep},
    }
    return recipe(corpus, output, modalities, fit={"units": units}, **{**SMALL, **more})


@pytest.fixture
def asked(monkeypatch) -> Counter[str]:
    """How many of a sample's views the labeler of grid was asked for."""
    counted, label = Counter(), odd_labelers.Grid.label

    def count(self, batch):
        counted.update(batch.keys)
        return label(self, batch)

    monkeypatch.setattr(odd_labelers.Grid, "label", count)
    return counted


@pytest.fixture
def output() -> str:
    return f"memory://{uuid.uuid4()}"


@pytest.fixture(scope="module")
def twice(corpus) -> dict[str, dict[str, str]]:
    """The digests of datasets whose samples are labelled twice, by what they keep."""
    found = {}
    for keep in ("tokens", "both"):
        output = f"memory://{uuid.uuid4()}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LabelsAside, "below", lambda *_: NOTHING_ASIDE)
            weave(made(corpus, output, keep))
        found[keep] = digests(output)
    return found


@pytest.mark.parametrize("keep", ["tokens", "both"])
@pytest.mark.parametrize("stages", [[], [["grid"], ["grey_image"]], [["caption"], ["mean_colour"]]], ids=str)
def test_a_corpus_no_larger_than_the_sample_is_labelled_once(keep, stages, corpus, output, twice, asked, captions):
    pools = [{"modalities": names} for names in stages]
    weave(made(corpus, output, keep, resources={"stages": pools}))
    assert asked == dict.fromkeys(captions, 2)  # its two views
    assert digests(output) == twice[keep]
    assert verify(output, deep=True).faults == []
    assert Store(output).list("fit") == []


def test_of_a_larger_one_the_sample_is(corpus, output, asked, captions):
    weave(made(corpus, output, units=2))
    assert asked == dict.fromkeys(captions, 2)
    assert verify(output, deep=True).faults == []


def test_with_a_limit_the_rest_of_the_sample_is_labelled_once_too(corpus, output, twice, asked, captions):
    for limit in (2, None):
        weave(made(corpus, output), limit=limit)
    assert asked == dict.fromkeys(captions, 2)
    assert digests(output) == twice["tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["tokens", "both"])
def test_a_kill_costs_the_unit_that_was_being_labelled(keep, corpus, twice, asked):
    step = 5
    while True:
        output = f"memory://{uuid.uuid4()}"
        again = made(corpus, output, keep)
        asked.clear()
        one = Driver(lambda again=again: execute(make_plan(again)), dies_at=step)
        with without_ray():
            LockStep(one).run(0)
        if one.error is None:
            break
        assert isinstance(one.error, Killed), step
        weave(again)
        assert asked.total() <= 2 * (6 + 2), step
        left = {name: digest for name, digest in digests(output).items() if not name.startswith(("fit/", "attempts/"))}
        assert left == twice[keep], step
        assert Store(output).list("fit/__labels") == []
        step += 23
    assert step > 60


def test_what_another_run_has_removed_meanwhile_is_labelled_again(corpus, output, twice):
    wanted = made(corpus, output)
    weave(wanted, limit=2)
    with without_ray():
        plan = make_plan(wanted)
        assert plan.aside.units
        store = Store(output)
        for entry in store.list("fit"):
            store.delete(f"fit/{entry.name}")
        execute(plan)
    assert digests(output) == twice["tokens"]


@pytest.mark.parametrize(("units", "starts"), [(2, [0, 3]), (3, [0, 2, 4]), (9, [0, 1, 2, 3, 4, 5])])
def test_the_sample_of_few_shards_is_from_all_over_them(units, starts, corpus):
    folder = Corpus(CorpusSettings(url=str(corpus)))
    works = sample_works(folder, folder.shards(), units, UnitLimits(1), {})
    assert [(work.start, work.stop) for work in works] == [(at, None if at == 5 else at + 1) for at in starts]


def test_the_sample_of_many_shards_is_their_first_units(corpus, tmp_path):
    for name in "abcd":
        (tmp_path / name).mkdir()
        for path in corpus.glob("c*"):
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    folder = Corpus(CorpusSettings(url=str(tmp_path)))
    works = sample_works(folder, folder.shards(), 2, UnitLimits(1), {})
    assert [(work.shard.path, work.start) for work in works] == [("b", 0), ("d", 0)]


def test_a_large_shard_among_small_ones_gives_the_most_of_the_sample(corpus, photos, tmp_path):
    """All over it, though its units are many and small."""
    photographs = [photos[name] for name in sorted(photos)]
    large = [(f"{index:04d}.jpg", photographs[index % len(photographs)]) for index in range(120)]
    (tmp_path / "large.tar").write_bytes(tar_bytes(large))
    for index in range(9):
        (tmp_path / f"small-{index}.tar").write_bytes(tar_bytes(large[index : index + 1]))
    tars = Corpus(CorpusSettings(url=str(tmp_path / "*.tar")))
    works = sample_works(tars, tars.shards(), 8, UnitLimits(2), {})
    assert len(works) == 8
    starts = [work.start for work in works if work.shard.path == "large.tar"]
    size = (tmp_path / "large.tar").stat().st_size
    assert len(starts) >= 7
    assert starts[-1] > 0.7 * size
