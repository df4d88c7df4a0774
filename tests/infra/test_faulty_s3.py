"""The faults of the proxy before the S3 server do happen, and leave the server as they say."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from faulty_s3 import ERRORS, OPERATIONS, Fault, FaultyS3, Kind, passing_faults

BODY = bytes(range(256)) * 40


class Raw:
    """Requests without a client that would hide anything. `url` is signed for the proxy, and passed on as it is."""

    def __init__(self, proxy: FaultyS3) -> None:
        import botocore.config
        import botocore.session

        config = botocore.config.Config(signature_version="s3v4", s3={"addressing_style": "path"})
        self._client = botocore.session.Session().create_client("s3", endpoint_url=proxy.endpoint, config=config)
        self.bucket = self.prefix = ""

    def __call__(self, method: str, name: str = "", body: bytes | None = None, timeout: float = 5) -> tuple[int, bytes]:
        """The status and the body. Without a name, a listing."""
        operation = f"{method.lower()}_object" if name else "list_objects_v2"
        what = {"Key": f"{self.prefix}/{name}"} if name else {"Prefix": f"{self.prefix}/"}
        url = urlsplit(self._client.generate_presigned_url(operation, {"Bucket": self.bucket, **what}))
        connection = http.client.HTTPConnection(url.netloc, timeout=timeout)
        try:
            connection.request(method, f"{url.path}?{url.query}", body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def proxy(s3_server: Any) -> Iterator[FaultyS3]:
    with FaultyS3(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def raw(proxy: FaultyS3) -> Raw:
    return Raw(proxy)


@pytest.fixture
def ask(raw: Raw, s3_url: str) -> Raw:
    """Of the test's own prefix."""
    raw.bucket, _, raw.prefix = s3_url.removeprefix("s3://").partition("/")
    return raw


def test_without_faults_all_passes_and_is_recorded(proxy, ask):
    with proxy.having() as requests:
        assert ask("PUT", "a", BODY)[0] == 200
        assert ask("GET", "a") == (200, BODY)
        assert ask("HEAD", "a") == (200, b"")
        assert ask("GET", "b")[0] == 404
        assert _listed(ask) == ["a"]
        assert ask("DELETE", "a")[0] == 204
    operations = [(one.operation, one.path.removeprefix(f"{ask.bucket}/{ask.prefix}/"), one.fault) for one in requests]
    names = [("PUT", "a"), ("GET", "a"), ("HEAD", "a"), ("GET", "b"), ("LIST", ""), ("DELETE", "a")]
    assert operations == [(*name, None) for name in names]


@pytest.mark.parametrize(("status", "code"), [*ERRORS, (400, "ExpiredToken")])
def test_an_error_takes_the_place_of_what_was_asked(status, code, proxy, ask):
    with proxy.having(Fault(Kind.ERROR, ("PUT",), status=status, code=code, times=1)):
        found, body = ask("PUT", "a", BODY)
        assert (found, code.encode() in body) == (status, True)
        assert ask("GET", "a")[0] == 404
        assert ask("PUT", "a", BODY)[0] == 200


def test_connections_are_refused_for_a_while(proxy, ask):
    with proxy.having(Fault(Kind.REFUSE, ("GET",), times=1, seconds=0.2)):
        with pytest.raises(ConnectionResetError):
            ask("GET", "a")
        with pytest.raises(ConnectionRefusedError):
            ask("GET", "a")
        assert _when_accepted(lambda: ask("GET", "a"))[0] == 404


def _when_accepted(request: Callable[[], tuple[int, bytes]]) -> tuple[int, bytes]:
    for _ in range(1000):
        try:
            return request()
        except ConnectionRefusedError:
            time.sleep(0.01)
    raise AssertionError


def test_a_stalled_request_is_never_answered(proxy, ask):
    with proxy.having(Fault(Kind.STALL, ("PUT",), seconds=0.3)):
        with pytest.raises(socket.timeout):
            ask("PUT", "a", BODY, timeout=0.1)
        with pytest.raises(http.client.RemoteDisconnected):
            ask("PUT", "a", BODY)
        assert ask("GET", "a")[0] == 404


def test_a_request_is_reset_in_the_middle_of_its_body(proxy, ask):
    with proxy.having(Fault(Kind.RESET_REQUEST, ("PUT",), after=100, times=1)):
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            ask("PUT", "a", BODY)
        assert ask("GET", "a")[0] == 404


def test_what_was_done_stays_done_where_the_answer_is_lost(proxy, ask):
    with proxy.having(Fault(Kind.LOST, ("PUT", "DELETE"))):
        with pytest.raises(ConnectionResetError):
            ask("PUT", "a", BODY)
        assert ask("GET", "a") == (200, BODY)
        with pytest.raises(ConnectionResetError):
            ask("DELETE", "a")
        assert ask("GET", "a")[0] == 404


def test_a_body_is_cut(proxy, ask):
    assert ask("PUT", "a", BODY)[0] == 200
    with proxy.having(Fault(Kind.RESET, ("GET",), after=10)), pytest.raises(ConnectionResetError):
        ask("GET", "a")
    with proxy.having(Fault(Kind.TRUNCATE, ("GET",), after=10)):
        with pytest.raises(http.client.IncompleteRead) as cut:
            ask("GET", "a")
        assert cut.value.partial == BODY[:10]
    with proxy.having(Fault(Kind.TRUNCATE, ("GET",), after=10**6)):
        with pytest.raises(http.client.IncompleteRead) as cut:
            ask("GET", "a")
        assert cut.value.partial == BODY[:-1]
    with proxy.having(Fault(Kind.TRUNCATE_UNSEEN, ("GET",), after=10)):
        assert ask("GET", "a") == (200, BODY[:10])


def test_a_slow_body_is_whole(proxy, ask):
    assert ask("PUT", "a", BODY)[0] == 200
    with proxy.having(Fault(Kind.SLOW, ("GET",), seconds=0.2)):
        began = time.monotonic()
        assert ask("GET", "a") == (200, BODY)
        assert time.monotonic() - began >= 0.2


def test_a_stale_listing_is_of_the_past(proxy, ask):
    for name in "ab":
        assert ask("PUT", name, BODY)[0] == 200
    written = time.time()
    assert _listed(ask) == ["a", "b"]
    time.sleep(1.5)
    assert ask("DELETE", "b")[0] == 204
    assert ask("PUT", "c", BODY)[0] == 200
    assert _listed(ask) == ["a", "c"]
    with proxy.having(Fault(Kind.STALE, ("LIST",), seconds=time.time() - written - 0.1)):
        assert _listed(ask) == ["a", "b"]
    with proxy.having(Fault(Kind.STALE, ("LIST",), seconds=3600)):
        assert _listed(ask) == []
        assert b"<KeyCount>0<" in ask("GET")[1]


def _listed(ask: Raw) -> list[str]:
    keys = re.findall("<Key>(.*?)</Key>", ask("GET")[1].decode())
    return [unquote(key).rsplit("/", 1)[1] for key in keys]


def test_faults_come_by_operation_path_chance_and_number(proxy, ask):
    with proxy.having(Fault(Kind.ERROR, ("HEAD",), path=r"/b$", times=2)):
        assert [ask(method, name)[0] for method, name in (("HEAD", "a"), ("GET", "b"))] == [404, 404]
        assert [ask("HEAD", "b")[0] for _ in range(3)] == [503, 503, 404]


def test_a_seed_says_what_goes_wrong(s3_server):
    """Whatever is asked between."""
    faults = passing_faults(0.3, 0.0)
    proxies = [FaultyS3(s3_server.endpoint, faults, seed) for seed in (1, 1, 2)]
    for number in range(200):
        proxies[1].draw("GET", f"/other/{number}")
    drawn = [[proxy.draw("PUT", "/bucket/a")[1] for _ in range(500)] for proxy in proxies]
    assert drawn[0] == drawn[1] != drawn[2]
    kinds = {fault.kind for fault in drawn[0] if fault}
    assert kinds == {Kind.ERROR, Kind.REFUSE, Kind.STALL, Kind.LOST, Kind.RESET_REQUEST}
    assert 100 < sum(fault is not None for fault in drawn[0]) < 200


def test_all_that_passes_is_among_the_passing_faults():
    kinds = {fault.kind for fault in passing_faults(0.1, 1.0)}
    assert kinds == set(Kind) - {Kind.STALE}, "which nobody sees"
    for operation in OPERATIONS:
        chances = [fault.chance for fault in passing_faults(0.1, 1.0) if operation in fault.operations]
        assert sum(chances) == pytest.approx(0.1)
