"""Where the runs read and write: a corpus of real photographs, a folder, and a bucket of a server started for it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "tokenloom-chaos"

_PHOTOS = ("astronaut", "chelsea", "china", "coffee", "flower", "rocket")
_CEPH = ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
_MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


def write_corpus(folder: Path, shards: int, samples: int, size: tuple[int, int] = (400, 300)) -> None:
    """Tars of photographs that scikit-image and scikit-learn ship, each a little differently cropped, with captions."""
    photos = [Image.open(_photo(name)).convert("RGB") for name in _PHOTOS]
    folder.mkdir(parents=True)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(shard * samples, (shard + 1) * samples):
                name, photo = _PHOTOS[number % len(_PHOTOS)], photos[number % len(_PHOTOS)]
                box = (number % 40, number % 30, photo.width - number % 20, photo.height - number % 10)
                jpeg = io.BytesIO()
                photo.crop(box).resize(size).save(jpeg, "JPEG", quality=90)
                _add(tar, f"{number:06d}.jpg", jpeg.getvalue())
                _add(tar, f"{number:06d}.txt", f"Photograph {number}, which shows: {name}.".encode())


def _photo(name: str) -> Path:
    for package, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        for path in (Path(spec.origin).parent / folder).glob(f"{name}.*"):
            return path
    raise FileNotFoundError(f"neither scikit-image nor scikit-learn has the photograph {name}")


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """A server with an empty bucket, by its name: Ceph's gateway where it is installed, else moto's. The environment
    leads there, and nowhere else, for this process and those it starts."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        os.environ.pop(name, None)
    if all(shutil.which(program) for program in _CEPH):
        up = [ROOT / "infra/s3/ceph-up.sh", folder]
        exports = subprocess.run(up, capture_output=True, text=True, check=True).stdout
        os.environ.update(dict(line.removeprefix("export ").split("=", 1) for line in exports.splitlines()))
        try:
            yield _with_bucket("Ceph's gateway")
        finally:
            subprocess.run([ROOT / "infra/s3/ceph-down.sh", folder], check=True)
        return
    command = [sys.executable, "-c", _MOTO]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        os.environ.update(
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{int(server.stdout.readline())}",
            AWS_ACCESS_KEY_ID="tokenloom",
            AWS_SECRET_ACCESS_KEY="tokenloom-secret",
            AWS_REGION="us-east-1",
            AWS_DEFAULT_REGION="us-east-1",
        )
        try:
            yield _with_bucket("moto's server (Ceph isn't installed)")
        finally:
            server.stdin.close()


def _with_bucket(server: str) -> str:
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(BUCKET)
    return server
