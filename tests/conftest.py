"""What tests share: photographs and small corpora of them, an S3 server, Ray, and the folder of reference data."""

from __future__ import annotations

import atexit
import io
import logging
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest
from budget import pytest_addoption as pytest_addoption
from budget import pytest_configure as pytest_configure

# How long examples take says more about what else the machine does than about the code.
hypothesis.settings.register_profile(
    "tokenloom", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("tokenloom"), max_examples=20)
hypothesis.settings.load_profile("tokenloom")

ROOT = Path(__file__).resolve().parent.parent
BUCKET = "tokenloom-tests"

CAPTIONS = {
    "astronaut": "An astronaut in an orange suit smiles in front of a flag and a model of the Space Shuttle.",
    "chelsea": "A tabby cat looks past the camera.",
    "china": "A temple with a curved roof stands behind trees.",
    "coffee": "A cup of espresso on a saucer with a spoon, on a wooden table.",
    "flower": "A pink dahlia in front of dark leaves.",
    "rocket": "A rocket lifts off at night among lightning towers.",
}


def _free_port() -> int:
    """One below those that the kernel gives to clients, and that infra/s3/ceph-up.sh takes: the server takes it only
    when the first test asks for it."""
    while True:
        port = random.randrange(20_000, 25_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


if "PYTEST_XDIST_WORKER" in os.environ:  # its exit runs nothing: whoever started it cleans up
    CACHE = tempfile.mkdtemp(dir=os.environ["TOKENLOOM_CACHE"])
    RAY = f"{os.environ['RAY_TMPDIR']}/{os.environ['PYTEST_XDIST_WORKER']}"  # of each its own: Ray finds others' there
    Path(RAY).mkdir()
else:
    CACHE = tempfile.mkdtemp(prefix="tokenloom-cache-")
    RAY = tempfile.mkdtemp(prefix="loom-ray-")  # short: sockets lie in it, whose paths are bounded
    for folder in (CACHE, RAY):
        atexit.register(shutil.rmtree, folder, ignore_errors=True)

# Set before anything starts, so that every process of a test, Ray's workers among them, has the same environment, and
# none of them can reach a real object store or hub with the credentials of whoever runs the tests.
S3_PORT = _free_port()
os.environ.update(
    AWS_ENDPOINT_URL=f"http://127.0.0.1:{S3_PORT}",
    AWS_ACCESS_KEY_ID="tokenloom",
    AWS_SECRET_ACCESS_KEY="tokenloom-secret",
    AWS_REGION="us-east-1",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",  # several processes work at once, and all shall round alike
    RAY_TMPDIR=RAY,  # else it connects to a cluster that was started on this machine for something else
    RAY_USAGE_STATS_ENABLED="0",
    RAY_idle_worker_killing_time_threshold_ms="600000",  # else the next test starts what this one's tasks ran in
    RAY_memory_monitor_refresh_ms="0",  # else it ends processes when others take the machine's memory
    RAY_worker_niceness="0",  # else others' work comes first
    TOKENIZERS_PARALLELISM="false",
    TOKENLOOM_CACHE=CACHE,
)
for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "RAY_ADDRESS"):
    os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def no_ray_without_a_fixture(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that starts Ray by itself wouldn't be marked, and would start a second one beside the tests' own."""
    ray = sys.modules.get("ray")
    before = ray is not None and ray.is_initialized()
    yield
    ray = sys.modules.get("ray")
    if not before and ray is not None and ray.is_initialized() and not request.node.get_closest_marker("ray"):
        ray.shutdown()
        pytest.fail("it started Ray: ask for the fixture ray_session", pytrace=False)


# --- which tests need what --------------------------------------------------------------------------------------------

MARKS = {
    "ray_session": "ray",
    "s3_server": "s3",
    "chromium": "browser",
    "command_line": "process",
    "cluster": "process",
    "project": "process",
    "head": "ray",
}
"""What a test that uses a fixture is marked with."""

SERVERS = "servers"
"""The group of all tests that use S3 or Ray."""

LONG = (("ray", "s3"), ("process",), ("slow",))
"""Marks of what takes long, the longest first."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks tests by the fixtures that they use, and groups them for the workers that run at the same time.

    Tests go by their files, since most of a file's tests share what its fixtures made; all that use S3 or Ray go to one
    worker, for one server and one Ray. What takes longest comes first, and what is quick last: so no worker waits for
    the other.
    """
    groups: dict[pytest.Item, str] = {}
    ranks: dict[str, int] = {}
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in MARKS:
                item.add_marker(MARKS[fixture])
        groups[item] = SERVERS if any(map(item.get_closest_marker, ("s3", "ray"))) else item.path.name
        item.add_marker(pytest.mark.xdist_group(groups[item]))
        rank = next((at for at, marks in enumerate(LONG) if any(map(item.get_closest_marker, marks))), len(LONG))
        ranks[groups[item]] = min(rank, ranks.get(groups[item], rank))
    if hasattr(config, "workerinput"):  # else a file's tests stay together
        items.sort(key=lambda item: ranks[groups[item]])


# --- S3 ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class S3Server:
    """An S3 server on loopback. `name` tells whose; `endpoint` is also in AWS_ENDPOINT_URL."""

    name: str
    endpoint: str


def _has_ceph() -> bool:
    return all(shutil.which(program) for program in ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin"))


def _server_name() -> str:
    if not _has_ceph():
        return "moto's server (Ceph isn't installed)"
    version = subprocess.run(["radosgw", "--version"], capture_output=True, text=True, check=True).stdout
    return "Ceph's gateway " + version.split()[2]


def pytest_report_header() -> str:
    return f"S3 tests use {_server_name()}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says it in quiet mode too, which has no header."""
    if terminalreporter.verbosity < 0:
        terminalreporter.write_line(pytest_report_header())


# Both servers end when their standard input does: also when pytest is killed and can stop nothing any more.
_CEPH = 'infra/s3/ceph-up.sh "$1" "$2" || exit; echo ready; cat >/dev/null; infra/s3/ceph-down.sh "$1"; rm -r "$1"'
_MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", int(sys.argv[1]))
server.start()
print("ready", flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Ceph's S3 gateway where it is installed, else moto's server; started once, at AWS_ENDPOINT_URL."""
    folder = tempfile.mkdtemp(prefix="tokenloom-s3-")  # short: sockets lie in it, whose paths are bounded
    if _has_ceph():
        command = ["bash", "-c", _CEPH, "bash", f"{folder}/ceph", str(S3_PORT)]
    else:
        command = [sys.executable, "-c", _MOTO, str(S3_PORT)]
    with open(f"{folder}/log", "wb") as log:
        server = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
    assert server.stdin is not None
    assert server.stdout is not None
    if not any(line.strip() == b"ready" for line in server.stdout):
        pytest.fail(f"the S3 server didn't start:\n{Path(folder, 'log').read_text()}", pytrace=False)
    try:
        import s3fs

        s3fs.S3FileSystem(skip_instance_cache=True).mkdir(BUCKET)
        yield S3Server(_server_name(), os.environ["AWS_ENDPOINT_URL"])
    finally:
        server.stdin.close()
        try:
            server.wait(timeout=120)
        except subprocess.TimeoutExpired:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def s3_url(s3_server: S3Server, request: pytest.FixtureRequest) -> str:
    """A fresh prefix on the S3 server, which every process started by the test reaches by its environment alone."""
    assert request.node.get_closest_marker("s3"), "a test that asks for this by name has to be marked s3"
    return f"s3://{BUCKET}/{re.sub(r'[^a-zA-Z0-9]+', '-', request.node.name).strip('-')}-{time.monotonic_ns()}"


# --- Ray --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Ray in this process, of 2 CPUs and a small object store, for all tests that ask for it."""
    import ray
    from ray.cluster_utils import Cluster

    # A cluster, which does without an autoscaler's monitor and one of logs: each takes as long to start as a worker.
    head = {"num_cpus": 2, "object_store_memory": 300 * 2**20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        # For plugins that tests bring; by a runtime_env each worker would be started twice.
        patch.setenv("PYTHONPATH", str(ROOT / "tests/helpers"))
        cluster = Cluster(
            initialize_head=True, head_node_args={**head, "no_monitor": True, "include_log_monitor": False}
        )
        ray.init(cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    yield
    ray.shutdown()
    cluster.shutdown()


# --- a browser --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def chromium() -> str:
    """The program."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium is installed: apt-get install chromium")


# --- images and corpora -----------------------------------------------------------------------------------------------


def package_folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture(scope="session")
def captions() -> dict[str, str]:
    """What the photographs show, by name."""
    return CAPTIONS


@pytest.fixture(scope="session")
def photos() -> dict[str, bytes]:
    """A few photographs that scikit-image and scikit-learn ship, by name, as RGB JPEGs of 300 to 640 pixels a side."""
    from PIL import Image

    folders = [package_folder("skimage") / "data", package_folder("sklearn") / "datasets/images"]
    photos = {}
    for name in CAPTIONS:
        path = next(path for folder in folders for path in folder.glob(f"{name}.*"))
        if path.suffix == ".jpg":
            photos[name] = path.read_bytes()
        else:
            jpeg = io.BytesIO()
            Image.open(path).convert("RGB").save(jpeg, "JPEG", quality=92)
            photos[name] = jpeg.getvalue()
    return photos


@pytest.fixture(scope="session")
def corpus(photos: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the photographs, each with its caption beside it: NAME.jpg, NAME.txt. For all tests: not to be
    changed."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, photo in photos.items():
        (folder / f"{name}.jpg").write_bytes(photo)
        (folder / f"{name}.txt").write_text(CAPTIONS[name])
    return folder


@pytest.fixture(scope="session")
def small_corpus(photos: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of 96 pixels at most, for tests of what becomes of labels, whatever these show."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("small-corpus")
    for name, photo in photos.items():
        picture = Image.open(io.BytesIO(photo))
        picture.thumbnail((96, 96))
        picture.save(folder / f"{name}.jpg", quality=92)
        (folder / f"{name}.txt").write_text(CAPTIONS[name])
    return folder


@pytest.fixture
def corpus_folder(corpus: Path, tmp_path: Path) -> Path:
    """A copy of that folder, for one test."""
    return Path(shutil.copytree(corpus, tmp_path / "corpus"))


@pytest.fixture
def corpus_tar(photos: dict[str, bytes], tmp_path: Path) -> Path:
    """A WebDataset shard of the photographs and their captions."""
    path = tmp_path / "photos-00000.tar"
    with tarfile.open(path, "w") as tar:
        for name, photo in photos.items():
            for suffix, data in (("jpg", photo), ("txt", CAPTIONS[name].encode())):
                member = tarfile.TarInfo(f"{name}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the repository, for tests that compare with it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"there is no reference data at {folder}")
    return folder
