"""A store before which things go wrong: what passes is tried again, what doesn't stops at once with its cause."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
from faulty_s3 import Fault, FaultyS3, Kind, passing_faults
from tokenloom.pipeline.storage.errors import StorageError
from tokenloom.pipeline.storage.objects import ObjectFiles
from tokenloom.pipeline.storage.store import Store

BODY = bytes(range(256)) * 4

QUICK = {"read_timeout": 0.5, "connect_timeout": 1}
"""Of the client: a stalled request is given up soon."""

STALLED, REFUSED = 0.6, 0.1
"""Seconds."""


@pytest.fixture(scope="module")
def proxy(s3_server: Any) -> Iterator[FaultyS3]:
    with FaultyS3(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultyS3, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Through the proxy. It doesn't wait long between attempts."""
    monkeypatch.setattr("tokenloom.pipeline.storage.store._FIRST_WAIT", 0.02)
    monkeypatch.setattr("tokenloom.pipeline.storage.store._LONGEST_WAIT", 0.1)
    return Store(s3_url, {"endpoint_url": proxy.endpoint, "config_kwargs": QUICK})


@pytest.fixture
def signatures(s3_server: Any) -> None:
    """Of requests are checked."""
    if not s3_server.name.startswith("Ceph"):
        pytest.skip("moto's server takes any credentials")


def _create(store: Store) -> None:
    assert store.create("new", BODY)
    assert store.read("new") == BODY


def _delete(store: Store) -> None:
    store.delete("old")
    assert not store.exists("old")


OPERATIONS: dict[str, tuple[Callable[[Store], Any], Any]] = {
    "GET": (lambda store: (store.read("old"), store.read_range("old", 5, 50)), (BODY, BODY[5:50])),
    "HEAD": (lambda store: (store.size("old"), store.exists("old"), store.exists("none")), (len(BODY), True, False)),
    "LIST": (lambda store: ([one.name for one in store.list()], store.children()), (["old"], ["old"])),
    "PUT": (_create, None),
    "DELETE": (_delete, None),
}
PASSING = [
    replace(fault, chance=1.0, times=2, seconds=STALLED if fault.kind is Kind.STALL else REFUSED)
    for fault in passing_faults(1, 0)
    if fault.operations[0] in OPERATIONS
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.operations[0]}-{fault.kind.name}-{fault.status}")
def test_what_passes_is_tried_again(fault, proxy, store):
    store.create("old", BODY)
    work, expected = OPERATIONS[fault.operations[0]]
    with proxy.having(fault) as requests:
        assert work(store) == expected
    assert sum(one.fault is fault.kind for one in requests) == 2


def test_an_object_whose_answer_was_lost_is_ones_own(proxy, store):
    with proxy.having(Fault(Kind.LOST, ("PUT",), times=1)) as requests:
        assert store.create("a", BODY)
    assert [one.operation for one in requests] == ["PUT", "PUT", "GET"]
    with proxy.having(Fault(Kind.LOST, ("PUT",), times=1)):
        assert not store.create("a", b"another's")
    assert store.read("a") == BODY


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.TRUNCATE, Kind.TRUNCATE_UNSEEN])
def test_a_body_that_is_cut_is_never_taken_for_whole(kind, proxy, store, monkeypatch):
    monkeypatch.setattr("tokenloom.pipeline.storage.store._ATTEMPTS", 2)
    store.create("a", BODY)
    for after in (0, 1, 500, len(BODY) - 1):
        with proxy.having(Fault(kind, ("GET",), after=after)):
            with pytest.raises(StorageError, match=r"/a: could not read it, 2 times in \d+ s"):
                store.read("a")
            with pytest.raises(StorageError, match=r"/a: could not read it, 2 times in \d+ s"):
                store.read_range("a", 10, 10**6)
    with (
        proxy.having(Fault(kind, ("LIST",), after=300)),
        pytest.raises(StorageError, match="could not list it, 2 times"),
    ):
        store.list()


PERMANENT = [
    (403, "AccessDenied", "Check the credentials, and that they may list, read, write and delete there"),
    (400, "ExpiredToken", "The credentials have expired: get new ones, and run it again"),
    (403, "RequestTimeTooSkewed", "The clocks of this machine and of the store differ"),
    (404, "NoSuchBucket", "The bucket does not exist: create it"),
    (400, "AuthorizationHeaderMalformed", "The bucket is in another region: set AWS_REGION"),
    (501, "NotImplemented", "If-None-Match"),
]


@pytest.mark.parametrize(("status", "code", "way_out"), PERMANENT, ids=lambda value: str(value).split(" ")[0])
def test_what_does_not_pass_stops_at_once_with_its_cause(status, code, way_out, proxy, store):
    actions = [lambda: store.read("a"), lambda: store.size("a"), lambda: store.create("a", b"1")]
    actions += [store.list, store.children, lambda: store.exists("a"), lambda: store.delete("a")]
    renewed = code == "ExpiredToken"
    for action in actions[:2] if renewed else actions:
        fault = Fault(Kind.ERROR, status=status, code=code)
        with proxy.having(fault) as requests, pytest.raises(StorageError, match=way_out):
            action()
        # A HEAD's answer doesn't tell the cause, and the client asks for the bucket's region. Once more, where there
        # may be other credentials by now.
        assert len(requests) <= 3 * (1 + renewed)


def test_what_does_not_pass_is_tried_so_often_and_so_long_at_most(proxy, store, monkeypatch):
    with (
        proxy.having(Fault(Kind.ERROR)) as requests,
        pytest.raises(StorageError, match=r"could not read it, 10 times in \d+ s .*overloaded or down: run it again"),
    ):
        store.read("a")
    assert len(requests) == 10
    monkeypatch.setattr("tokenloom.pipeline.storage.store._SECONDS", 0.0)
    with proxy.having(Fault(Kind.ERROR)) as requests, pytest.raises(StorageError, match="could not read it "):
        store.read("a")
    assert len(requests) == 1


def test_credentials_that_are_changed_meanwhile_are_taken(signatures, proxy, s3_url, tmp_path, monkeypatch):
    """As by whoever renews what expires, in the file that the client reads."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    _write_credentials(path, "tokenloom", "tokenloom-secret")
    store = Store(s3_url, {"endpoint_url": proxy.endpoint, "config_kwargs": {**QUICK, "read_timeout": 9}})
    assert store.create("a", BODY)
    with proxy.having(Fault(Kind.ERROR, status=400, code="ExpiredToken", times=1)) as requests:
        assert store.read("a") == BODY
    assert len(requests) == 2
    _write_credentials(path, "tokenloom", "another")
    expired = Fault(Kind.ERROR, status=400, code="ExpiredToken", times=1)
    with proxy.having(expired), pytest.raises(StorageError, match="These credentials aren't known there"):
        store.read("a")
    path.write_text("[default")  # while it is being written
    with proxy.having(expired), pytest.raises(StorageError, match=r"could not read it .*expired: get new ones"):
        store.read("a")
    _write_credentials(path, "tokenloom", "tokenloom-secret")
    with proxy.having(expired):
        assert store.read("a") == BODY


def test_credentials_that_expire_for_many_threads_are_taken_anew_once(proxy, s3_url, monkeypatch):
    store = Store(s3_url, {"endpoint_url": proxy.endpoint, "config_kwargs": {**QUICK, "read_timeout": 11}})
    assert store.create("a", BODY)
    files, made, together = store._files(), [], Barrier(4)
    assert isinstance(files, ObjectFiles)
    connect = type(files.fs).connect
    monkeypatch.setattr(type(files.fs), "connect", lambda fs, **words: [made.append(1), connect(fs, **words)])

    def read(_: int) -> bytes:
        waits = iter([together.wait])
        return store._do("read", "a", lambda files: [next(waits, int)(), files.read("a")][1])

    expired = Fault(Kind.ERROR, status=400, code="ExpiredToken", times=4)
    with proxy.having(expired), ThreadPoolExecutor(4) as threads:
        assert list(threads.map(read, range(4))) == [BODY] * 4
    assert len(made) == 1


def test_settings_of_a_recipe_reach_the_store(signatures, proxy, s3_url, tmp_path, monkeypatch):
    endpoint = {"endpoint_url": proxy.endpoint}
    paying = Store(s3_url, {**endpoint, "requester_pays": True})
    with proxy.having() as requests:
        assert paying.create("a", BODY)
        assert (paying.read("a"), paying.size("a"), len(paying.list())) == (BODY, len(BODY), 1)
    assert {one.headers.get("x-amz-request-payer") for one in requests} == {"requester"}
    with proxy.having() as requests, pytest.raises(StorageError, match="Check the credentials"):
        Store(s3_url, {**endpoint, "anon": True}).read("a")
    assert ["authorization" in one.headers for one in requests] == [False]
    _write_credentials(tmp_path / "credentials", "tokenloom", "tokenloom-secret", "research")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    assert Store(s3_url, {**endpoint, "profile": "research"}).read("a") == BODY


def _write_credentials(path: Path, key: str, secret: str, profile: str = "default") -> None:
    path.write_text(f"[{profile}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")


def test_each_operation_is_one_request(proxy, s3_url):
    """However large an object is; only where there is none, it is seen whether the bucket is there."""
    store, large = Store(s3_url, {"endpoint_url": proxy.endpoint}), BODY * 64 * 128  # 8 MiB
    with proxy.having() as requests:
        assert store.create("a", large)
        assert store.read("a") == large
        store.read_range("a", 5, 50)
        store.size("a")
        store.exists("a")
        store.list()
        store.children()
        store.delete("a")
        store.exists("a")
    expected = ["PUT", "GET", "GET", "HEAD", "HEAD", "LIST", "LIST", "DELETE", "HEAD", "LIST"]
    assert [one.operation for one in requests] == expected


def test_those_who_failed_together_do_not_come_back_together(monkeypatch):
    """Waits are drawn, and double up to the longest."""
    rounds: list[list[float]] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: rounds[-1].append(seconds))
    monkeypatch.setattr("tokenloom.pipeline.storage.store.time", clock)
    monkeypatch.setattr(ObjectFiles, "exists", lambda self, path: (_ for _ in ()).throw(ConnectionResetError()))
    store = Store(f"memory://{uuid.uuid4()}")
    for _ in range(20):
        rounds.append([])
        with pytest.raises(StorageError, match="could not look for it, 10 times"):
            store.exists("a")
    for attempt, waits in enumerate(zip(*rounds, strict=True)):
        longest = min(0.2 * 2**attempt, 8.0)
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(set(waits)) == 20
        assert max(waits) - min(waits) > longest / 8


@pytest.mark.parametrize("what", ["list_page", "children_page"])
def test_of_a_long_listing_a_page_alone_is_tried_again(what, monkeypatch):
    monkeypatch.setattr("tokenloom.pipeline.storage.store._FIRST_WAIT", 0.001)
    store = Store(f"memory://{uuid.uuid4()}")
    for number in range(9):
        store.create(f"{number}", b"")
    asked, whole = [], getattr(ObjectFiles, what)

    def three(files: ObjectFiles, prefix: str, *arguments: Any):
        *recursive, token = arguments
        asked.append(token)
        if len(asked) % 2:
            raise ConnectionResetError
        start = int(token or 0)
        return sorted(whole(files, prefix, *recursive, "")[0])[start : start + 3], str(start + 3) if start < 6 else ""

    monkeypatch.setattr(ObjectFiles, what, three)
    listed = store.children() if what == "children_page" else [entry.name for entry in store.list()]
    assert listed == [f"{number}" for number in range(9)]
    assert asked == ["", "", "3", "3", "6", "6"]
