"""Whole runs from and to an object store on whose requests things go wrong, and how many requests a run makes."""

from __future__ import annotations

import io
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from faulty_s3 import Fault, FaultyS3, Kind, Request, passing_faults
from in_process import said, weave
from tokenloom.pipeline.cluster.session import EngineError
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import Recipe, parse_recipe
from tokenloom.pipeline.plan.requests import Requests, requests_left
from tokenloom.pipeline.storage.errors import StorageError
from tokenloom.pipeline.storage.store import Store
from weaving import digests, shards_of

MODALITIES = {"caption": {"keep": "both"}, "canny_edge": {"keep": "labels"}, "metadata": {"keep": "labels"}}
LABELS = {"caption": {"keep": "labels"}, "canny_edge": {"keep": "labels"}}
"""Without tokenizers, which would have to be fitted."""


@pytest.fixture(scope="module")
def proxy(s3_server: Any) -> Iterator[FaultyS3]:
    with FaultyS3(s3_server.endpoint, seed=3) as proxy:
        yield proxy


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenloom.pipeline.storage.store._FIRST_WAIT", 0.02)


class Weaver:
    """Runs through the proxy. place: below which the corpus lies, three tars of six photographs, and the outputs."""

    def __init__(self, proxy: FaultyS3, place: str, photos: Path) -> None:
        self.place = place
        client = {"read_timeout": 0.5, "connect_timeout": 1}
        self.options = {"endpoint_url": proxy.endpoint, "config_kwargs": client}
        paths = sorted(photos.iterdir())
        for shard in range(3):
            Store(place).replace(f"corpus/{shard}.tar", _tar(paths, f"{shard}-"))

    def recipe(self, output: str, **more: Any) -> Recipe:
        corpus = {"url": f"{self.place}/corpus", "storage_options": self.options}
        fixed = {
            "modalities": MODALITIES,
            "units": {"samples": 6},
            "views": {"size": 64},
            "storage_options": self.options,
        }
        return parse_recipe({"corpus": corpus, "output": f"{self.place}/{output}", **fixed, **more})

    def run(self, output: str) -> dict[str, str]:
        weave(self.recipe(output))
        return digests(f"{self.place}/{output}")


def _tar(paths: list[Path], prefix: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for path in paths:
            tar.add(path, f"{prefix}{path.name}")
    return data.getvalue()


@pytest.fixture(scope="module")
def weaver(proxy: FaultyS3, s3_server: Any, small_corpus: Path) -> Weaver:
    """At a place that is always the same: its names are what chances are drawn from."""
    return Weaver(proxy, "s3://tokenloom-tests/faulty-runs", small_corpus)


@pytest.fixture(scope="module")
def calm(proxy: FaultyS3, weaver: Weaver) -> tuple[dict[str, str], list[Request]]:
    """What a run leaves with which nothing goes wrong, and its requests."""
    with proxy.having() as requests:
        made = weaver.run("calm")
    return made, list(requests)


@pytest.mark.s3
@pytest.mark.parametrize("share", [0.01, 0.1])
def test_a_run_through_faults_leaves_the_same_bytes(share, proxy, weaver, calm, quick):
    with proxy.having(*passing_faults(share, 0.6)) as requests:
        made = weaver.run(f"faulty-{share}")
    assert made == calm[0]
    assert sum(one.fault is not None for one in requests) >= 100 * share


@pytest.mark.s3
def test_a_run_whose_credentials_expire_ends_at_once_and_goes_on_later(proxy, weaver, calm, quick):
    half = Fault(Kind.SLOW, times=len(calm[1]) // 2, seconds=0.0)  # with these nothing goes wrong
    expired = Fault(Kind.ERROR, status=400, code="ExpiredToken")
    with proxy.having(half, expired), pytest.raises(StorageError, match="credentials have expired"):
        weaver.run("expired")
    with proxy.having():
        assert weaver.run("expired") == calm[0]


@pytest.mark.s3
def test_a_run_on_old_listings_makes_again_what_they_lack(proxy, weaver, calm, quick):
    """Without tokenizers, which are fitted to what a listing shows. Where none of what it wrote is to be seen, it ends
    with that, and goes on when it is run again."""
    with proxy.having():
        weave(weaver.recipe("fresh", modalities=LABELS))
    with proxy.having(Fault(Kind.STALE, ("LIST",), chance=0.2, seconds=0.6)) as requests:
        for _ in range(5):
            with suppress(EngineError):
                weave(weaver.recipe("stale", modalities=LABELS))
                break
    assert any(one.fault for one in requests)
    assert shards_of(f"{weaver.place}/stale") == shards_of(f"{weaver.place}/fresh")


@pytest.mark.s3
def test_a_unit_takes_one_put_for_what_is_kept_and_three_requests_for_its_mark(proxy, weaver, tmp_path):
    """However the corpus is cut, it is read by the same requests."""
    counts, kept = {}, len(LABELS)
    for samples, units in ((6, 3), (2, 9)):
        recipe = weaver.recipe(f"units-of-{samples}", modalities=LABELS, units={"samples": samples})
        plan = make_plan(recipe)
        assert requests_left(plan, units, 1) == Requests(writes=units * (kept + 2), reads=6)
        with proxy.having() as requests:
            weave(recipe)
        counts[units] = Counter(one.operation for one in requests)
    more = Counter(PUT=6 * (kept + 1), LIST=6, DELETE=6)
    assert counts[9] == counts[3] + more
    read = Counter(one.operation for one in requests if "/corpus/" in one.path and one.path.endswith(".tar"))
    assert read == {"HEAD": 3, "GET": 3}, "of each tar its size and its one piece"


@pytest.mark.s3
def test_a_plan_tells_the_requests_and_their_price(weaver, tmp_path):
    content = weaver.recipe("planned", modalities=LABELS).model_dump(mode="json", exclude_defaults=True)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    asked = "PUT and LIST, 6 GET and HEAD, $0.00 by the list prices of S3 standard ($0.005 and $0.0004 a thousand)"
    line = f"requests to object storage: at least 12 {asked}"
    assert line in said("plan", tmp_path / "recipe.yaml", "--calibrate", 0)
    assert re.search(rf"about \d+ {re.escape(asked)}", said("plan", tmp_path / "recipe.yaml", "--calibrate", 1))
    assert "requests" not in said("plan", tmp_path / "recipe.yaml", "--output", tmp_path / "here", "--calibrate", 0)
