"""`tokenloom submit` without a cluster: what is sent, and what a user gets wrong."""

from __future__ import annotations

import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from command import command
from tokenloom.labelers.contract.labeler import Labeler
from tokenloom.labelers.plugins.origin import origin_of
from tokenloom.labelers.plugins.registry import LABELER_GROUP, RegistryError
from tokenloom.pipeline.cluster.in_job import JOB
from tokenloom.pipeline.cluster.jobs import new_job
from tokenloom.pipeline.cluster.package import MOST, Package, SendError
from tokenloom.pipeline.commands import attached


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    content = {"corpus": "photos", "output": "out", "modalities": {"mine": {"labeler": "mine_labelers.a:Mine"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "mine_labelers").mkdir()
    (tmp_path / "mine_labelers/a.py").write_text("import beside_mine, numpy, random, photos\nfrom . import b\n")
    (tmp_path / "mine_labelers/table.bin").write_bytes(b"1")
    (tmp_path / "beside_mine.py").write_text("def f():\n    from further_mine.c import d\n")
    (tmp_path / "further_mine").mkdir()
    (tmp_path / "further_mine/c.py").write_text("raise SystemExit('nothing is run')\n")
    for name in ("random.py", "other.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/0.jpg").write_bytes(b"1")
    return tmp_path


def test_a_plugin_goes_with_what_it_imports_and_nothing_else(recipe):
    origin = origin_of(LABELER_GROUP, "mine_labelers.a:Mine", Labeler, recipe)
    sent = {str(path.relative_to(recipe)) for path in origin.files}
    assert sent == {"mine_labelers/a.py", "mine_labelers/table.bin", "beside_mine.py", "further_mine/c.py"}


def test_what_is_installed_is_named_with_its_version(tmp_path):
    origin = origin_of(LABELER_GROUP, "depth", Labeler, tmp_path)
    assert (origin.distribution, origin.files) == ("tokenloom", ())
    assert origin_of(LABELER_GROUP, "yaml:Mine", Labeler, tmp_path).distribution == "PyYAML"
    with pytest.raises(RegistryError, match="neither installed nor in"):
        origin_of(LABELER_GROUP, "nowhere_at_all:Mine", Labeler, tmp_path)


def test_what_is_too_large_is_refused_with_its_sizes(recipe):
    with (recipe / "mine_labelers/weights.bin").open("wb") as large:
        large.truncate(MOST)
    ended = command("submit", "mine.yaml", "--address", "127.0.0.1:1")
    assert ended.code == 2
    assert ended.err.startswith("tokenloom: the recipe and its plugins are 100.0 MiB, and Ray takes 100: ")
    assert "mine_labelers/weights.bin 100.0 MiB" in ended.err


def test_what_is_written_for_a_job_names_files_as_they_lay(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    Package({"mine_labelers/a.py": recipe / "mine_labelers/a.py"}, {"tokenloom": "1"}, ["mine.yaml"]).write(folder)
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"a.py", "in_job.py", JOB}


def test_a_token_that_isnt_there_is_one_line(recipe, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("HOME", str(recipe))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for _ in range(2):
        ended = command("submit", "mine.yaml", "--address", "127.0.0.1:1")
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "RAY_AUTH_MODE is token, and there is none here: RAY_AUTH_TOKEN" in ended.err
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/no/such/file")


def test_paths_are_told_and_a_dead_address_is_one_line(recipe):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    ended = command("submit", "mine.yaml", "--address", address, "--report", "r.html")
    assert f"report: {recipe}/r.html: a path, on the disk of the cluster's head" in ended.out
    assert f"corpus: {recipe}/photos: a path, which every machine of the cluster has to see" in ended.out
    assert f"output: {recipe}/out: a path" in ended.out
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert f"--address {address}: nothing answers there (Connection refused)" in ended.err


def test_through_ray_client_all_options_go_along(recipe, monkeypatch):
    packages: list[Package] = []
    monkeypatch.setattr(attached, "have_driven", lambda address, package, write: packages.append(package) or 3)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    options = ["--set", "seed=1", "--replace", "mine", "--take-changes"]
    paths = ["--corpus", f"{recipe}/photos", "--output", f"{recipe}/out"]
    for words in (["run", "--limit", "2", "--dry-run", "--report", "s3://b/r.html"], ["plan", "--price", "2.5"]):
        assert command(words[0], "mine.yaml", *options, *words[1:]).code == 3
        more = words[1:] if words[0] == "run" else ["--calibrate", "32", *words[1:]]
        sent = packages.pop()
        assert list(sent.words) == [words[0], "./mine.yaml", *options[:2], *paths, *options[2:], *more]
        assert {"mine.yaml", "mine_labelers/a.py", "beside_mine.py"} < sent.files.keys()


def test_a_dead_address_of_ray_client_is_one_line(recipe, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{server.getsockname()[1]}")
    ended = command("run", "mine.yaml")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "nothing answers there (Connection refused)" in ended.err


def test_another_server_is_not_a_dashboard(recipe):
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        ended = command("submit", "mine.yaml", "--address", f"127.0.0.1:{server.server_port}")
    assert ended.code == 2
    assert "what answers there isn't Ray's dashboard" in ended.err.splitlines()[-1]  # the server logs there, too


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "", "http://"])
def test_an_address_that_is_no_dashboards_is_refused(recipe, address):
    ended = command("submit", "mine.yaml", "--address", address)
    assert (ended.code, ended.err) == (
        2,
        f"tokenloom: --address {address}: name the cluster's dashboard, as http://HEAD:8265\n",
    )


def test_a_labeler_that_is_nowhere_is_named_with_its_key(recipe):
    ended = command("submit", "mine.yaml", "--address", "127.0.0.1:1", "--set", "modalities.mine.labeler=gone_mine:M")
    assert ended.code == 2
    assert "modalities.mine.labeler: gone_mine:M: there is no module 'gone_mine'" in ended.err


def test_a_size_below_the_limit_is_taken(recipe):
    Package({"a": recipe / "mine.yaml"}, {}, []).check_size()
    with pytest.raises(SendError):
        Package({str(n): _large(recipe) for n in range(3)}, {}, []).check_size()


def _large(folder: Path) -> Path:
    with (folder / "large.bin").open("wb") as large:
        large.truncate(MOST // 2)
    return folder / "large.bin"


def test_a_jobs_id_is_fit_for_urls_and_commands():
    """Whatever the recipe's file is called."""
    assert re.fullmatch(r"tokenloom-my-recipe-1-[0-9a-f]{8}", new_job("my recipe #1 ü"))
    assert re.fullmatch(r"tokenloom-recipe-[0-9a-f]{8}", new_job("ü"))
