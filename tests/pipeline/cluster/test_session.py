"""Where a run finds Ray."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from command import command
from tokenloom.pipeline.cluster import session
from tokenloom.pipeline.cluster.session import EngineError, check_address, refuse_ray_client


def test_an_address_where_nothing_answers_is_named_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
    for address in (host, f"ray://{host}"):
        with pytest.raises(EngineError, match=rf"RAY_ADDRESS is {address}, and nothing answers there .*unset it"):
            check_address(address)
        with pytest.raises(EngineError, match=rf"^--address is {address}, .*leave it out") as refused:
            check_address(address, "--address")
        assert "RAY_ADDRESS" not in str(refused.value)


@pytest.mark.parametrize("words", [["plan", "quickstart"], ["run", "quickstart"], ["doctor", "quickstart"]])
def test_a_dashboards_address_is_named_before_anything_is_done(words, monkeypatch, tmp_path):
    """By which `ray job` finds a cluster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    ended = command(*words)
    assert (ended.code, ended.out) == (1, "")
    assert "http://head:8265, the address of a dashboard: unset it and give that to `tokenloom submit`" in ended.err


def test_ray_client_is_refused_with_the_way_out():
    """By what needs Ray here; Ray Data doesn't work through it, as tests/cluster shows."""
    with pytest.raises(EngineError, match=r"^ray://head:10001: .*`run`, .*, with RAY_ADDRESS=head:6379$"):
        refuse_ray_client("ray://head:10001")


def test_a_server_that_says_nothing_is_not_ray(monkeypatch):
    monkeypatch.setattr(session, "_ANSWER", 0.2)
    refused = pytest.raises(EngineError, match=r"what answers there isn't Ray: .*ray start --head")
    with socket.create_server(("127.0.0.1", 0)) as server, refused:
        check_address(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_server_of_pages_is_not_ray():
    """As Ray's own dashboard."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(EngineError, match="a dashboard's begins with http://"):
            check_address(f"127.0.0.1:{server.server_port}")


def test_a_cluster_answers(ray_session):
    import ray

    check_address(ray.get_runtime_context().gcs_address)


@pytest.mark.parametrize("address", ["local", "auto", "anyscale://somewhere"])
def test_what_names_no_port_is_left_to_ray(address):
    check_address(address)
