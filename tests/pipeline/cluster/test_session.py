"""Where a run finds Ray, and what its workers find in the working directory."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from tokenloom import open_dataset
from tokenloom.pipeline.cluster import session
from tokenloom.pipeline.cluster.session import EngineError, check_address

HELPERS = Path(__file__).parents[2] / "helpers"


def test_an_address_where_nothing_answers_is_named_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(EngineError, match=rf"RAY_ADDRESS is {address}, and nothing answers there .*unset it"):
        check_address(address)


def test_ray_client_is_refused_with_the_way_out():
    """Ray Data doesn't work through it; tests/cluster shows that."""
    with pytest.raises(
        EngineError, match=r"doesn't work through Ray Client: .*submit RECIPE --address http://head:8265"
    ):
        check_address("ray://head:10001")


def test_a_server_that_says_nothing_is_not_ray(monkeypatch):
    monkeypatch.setattr(session, "_ANSWER", 0.2)
    refused = pytest.raises(EngineError, match=r"what answers there isn't Ray: .*ray start --head")
    with socket.create_server(("127.0.0.1", 0)) as server, refused:
        check_address(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_server_of_pages_is_not_ray():
    """As Ray's own dashboard."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(EngineError, match="the dashboard's won't do"):
            check_address(f"127.0.0.1:{server.server_port}")


def test_a_cluster_answers(ray_session):
    import ray

    check_address(ray.get_runtime_context().gcs_address)


@pytest.mark.parametrize("address", ["local", "auto", "anyscale://somewhere"])
def test_what_names_no_port_is_left_to_ray(address):
    check_address(address)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the tests' command line begins in its folder there")
def test_nothing_in_the_working_directory_takes_the_place_of_a_module(command_line, corpus_folder, tmp_path):
    """And no other cluster of this machine is taken for ours; a plugin beside them is found, and what is relative means
    the working directory. (`colorsys` is what Ray's workers have not imported by themselves.)"""
    for name in ("random", "types", "colorsys"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    (tmp_path / "beside.py").write_text(
        "import colorsys\nfrom odd_labelers import MeanColour\nclass Beside(MeanColour):\n    pass\n"
    )
    shutil.copy(HELPERS / "odd_labelers.py", tmp_path)
    modalities = {"mean_colour": {"labeler": "beside:Beside", "keep": "labels"}}
    content = {"corpus": "corpus", "output": "out", "modalities": modalities, "resources": {"workers": 1}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    folder = Path(os.environ["RAY_TMPDIR"]) / "other"
    (folder / "ray").mkdir(parents=True)
    (folder / "ray/ray_current_cluster").write_text("127.0.0.1:1")
    process = command_line.start("run", "mine.yaml", PYTHONSAFEPATH="1", RAY_TMPDIR=str(folder))
    command_line.end(process)
    assert open_dataset(str(tmp_path / "out")).modalities["mean_colour"] is not None
