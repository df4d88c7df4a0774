"""The S3 server that the tests start does what the dataset format rests on, and can't outlive its tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_an_object_is_created_once(s3_url):
    import s3fs

    storage = s3fs.S3FileSystem()
    path = f"{s3_url}/object"
    storage.pipe_file(path, b"first", mode="create")
    with pytest.raises(OSError):  # noqa: PT011 - s3fs gives the refusal (412) no class of its own
        storage.pipe_file(path, b"second", mode="create")
    assert storage.cat_file(path) == b"first"


def test_other_processes_find_the_server(s3_url):
    import fsspec

    code = "import sys, fsspec\nwith fsspec.open(sys.argv[1], 'wb') as file: file.write(b'hello')"
    subprocess.run([sys.executable, "-c", code, f"{s3_url}/object"], check=True)
    with fsspec.open(f"{s3_url}/object", "rb") as file:
        assert file.read() == b"hello"  # type: ignore[union-attr]


def test_ray_workers_find_the_server(s3_url, ray_session):
    import fsspec
    import ray

    @ray.remote
    def write(url: str) -> int:
        import fsspec

        with fsspec.open(url, "wb") as file:
            return file.write(b"from a worker")  # type: ignore[union-attr]

    assert ray.get(write.remote(f"{s3_url}/object")) == 13
    with fsspec.open(f"{s3_url}/object", "rb") as file:
        assert file.read() == b"from a worker"  # type: ignore[union-attr]


def test_every_test_has_a_prefix_of_its_own(s3_url):
    import s3fs

    assert s3fs.S3FileSystem().find(s3_url) == []


def test_one_worker_has_all_tests_of_the_server(s3_url, request):
    """They are in one group (tests/conftest.py), with those of Ray; each worker has a folder of its own for Ray."""
    if hasattr(request.config, "workerinput"):
        assert request.node.nodeid.endswith("@servers")
        assert os.environ["RAY_TMPDIR"].endswith(f"/{os.environ['PYTEST_XDIST_WORKER']}")


needs_ceph = pytest.mark.skipif(shutil.which("radosgw") is None, reason="Ceph isn't installed")


def ceph(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "infra/s3" / script), *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600)


def processes_of(folder: Path) -> list[int]:
    """Ids of the processes whose command line names `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(folder) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@needs_ceph
@pytest.mark.s3
def test_ceph_starts_and_stops_without_leftovers(tmp_path_factory):
    """Although its monitor isn't ready when it is first asked."""
    folder, programs = tmp_path_factory.mktemp("ceph"), tmp_path_factory.mktemp("programs")
    (programs / "ceph").write_text(
        "#!/bin/bash\n"
        f'[[ -e {programs}/asked ]] && exec {shutil.which("ceph")} "$@"\n'
        f"touch {programs}/asked\n"
        "echo problem getting command descriptions from mon >&2\n"
        "exit 22\n"
    )
    (programs / "ceph").chmod(0o755)
    up = ceph("ceph-up.sh", folder, PATH=f"{programs}:{os.environ['PATH']}")
    try:
        assert up.returncode == 0, up.stderr
        assert "problem getting" in (folder / "start.log").read_text()
        exports = dict(line.removeprefix("export ").split("=", 1) for line in up.stdout.splitlines())
        assert exports["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
        assert len(processes_of(folder)) == 3

        again = ceph("ceph-up.sh", folder)
        assert again.returncode == 1
        assert "isn't empty" in again.stderr

        port = exports["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]
        elsewhere = ceph("ceph-up.sh", f"{folder}-2", port)
        assert elsewhere.returncode == 1
        assert f"port {port} is taken" in elsewhere.stderr
    finally:
        down = ceph("ceph-down.sh", folder)
    assert down.returncode == 0, down.stderr
    assert processes_of(folder) == []
    assert all(path.suffix == ".log" for path in folder.iterdir())


@pytest.mark.s3
def test_the_server_ends_with_its_pytest(tmp_path):
    """Also when pytest is killed: no server keeps its port or its memory."""
    (tmp_path / "conftest.py").symlink_to(ROOT / "tests/conftest.py")
    test = tmp_path / "test_waits.py"
    test.write_text(
        "import os, time\n"
        "def test_waits(s3_server):\n"
        f"    open({str(tmp_path / 'port')!r}, 'w').write(os.environ['AWS_ENDPOINT_URL'].rsplit(':', 1)[1])\n"
        "    time.sleep(600)\n"
    )
    running = subprocess.Popen([sys.executable, "-m", "pytest", "-q", str(test)], cwd=tmp_path)
    try:
        wait_for(lambda: (tmp_path / "port").exists() and (tmp_path / "port").read_text() != "", seconds=300)
    finally:
        running.kill()
        running.wait()
    port = int((tmp_path / "port").read_text())
    wait_for(lambda: not listens(port), seconds=120)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it didn't come true within {seconds} s"
        time.sleep(0.1)


@pytest.mark.process
@pytest.mark.skipif(not shutil.which("radosgw"), reason="Ceph's S3 gateway isn't installed")
def test_the_development_store_is_started_once_found_again_and_stopped():
    import s3fs

    short_folder = Path(tempfile.mkdtemp(prefix="loom-s3-"))  # sockets lie in it, whose paths are bounded

    def dev(*arguments: str) -> str:
        command = [ROOT / "infra/dev", "s3", *arguments]
        environment = {**os.environ, "TMPDIR": str(short_folder)}
        return subprocess.check_output(command, env=environment, text=True, timeout=120)

    try:
        exports = dev()
        known = dict(line.removeprefix("export ").split("=", 1) for line in exports.splitlines())
        key, secret = known["AWS_ACCESS_KEY_ID"], known["AWS_SECRET_ACCESS_KEY"]
        storage = s3fs.S3FileSystem(endpoint_url=known["AWS_ENDPOINT_URL"], key=key, secret=secret)
        storage.pipe_file("tokenloom/object", b"kept")
        assert dev() == exports
        assert storage.cat_file("tokenloom/object") == b"kept"
    finally:
        dev("stop")
    short_folder.rmdir()  # nothing is left in it
    port = int(known["AWS_ENDPOINT_URL"].rpartition(":")[2])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
