"""Weights: from a hub id, a local path or any fsspec URL to files on this machine, and their hash."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...labelers.contract.labeler import Labeler
from ...labelers.contract.licences import TINY
from ...labelers.networks.hub import package_path, quiet_transformers
from ..storage.errors import without_credentials, without_secrets
from ..storage.objects import file_system

if TYPE_CHECKING:
    from .recipe import Recipe

PACKAGE = "package:"
"""Prefix of weights that an installed package ships: package:NAME/path/inside."""

HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
"""Those of a repository on the hub that are fetched."""


class WeightsError(ValueError):
    """Weights that can't be had; the message says how to give them."""


@dataclass(frozen=True)
class LocalWeights:
    """path: a file or folder here. sha256: over all its files."""

    path: str
    sha256: str


@dataclass(frozen=True)
class WeightsSource:
    """Weights for every machine of a cluster to fetch. source: as the user named it; options: of its file system."""

    source: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, recipe: Recipe, named: str) -> WeightsSource:
        """Of weights that the recipe names: a path is the same for every process, wherever that works. The output's
        options are for its own bucket or host; other places are reached by what the environment tells of them."""
        return cls(absolute_source(named), recipe.storage_options if _place(named) == _place(recipe.output) else {})

    def resolve(self, labeler_class: type[Labeler] | None = None) -> LocalWeights:
        """As the function of that name."""
        return resolve(self.source, self.options, labeler_class)

    def fetch(self, sha256: str | None, labeler_class: type[Labeler] | None = None) -> str:
        """Their path here. WeightsError where they aren't those with that hash. labeler_class: as of `localise`."""
        found = self.resolve(labeler_class)
        if sha256 not in (None, found.sha256):
            raise WeightsError(
                f"weights {without_credentials(self.source)}: their SHA-256 is {found.sha256} here and was {sha256} "
                f"when they were chosen: give these ones back, or another name to those"
            )
        return found.path


def localise(source: str, options: Mapping[str, Any] | None = None, labeler_class: type[Labeler] | None = None) -> str:
    """The local path of the weights; fetched into the user's cache first where they lie elsewhere.

    labeler_class: whose weights they are; it writes those that are called `tiny`.
    """
    if source == TINY and labeler_class is not None:
        return _write_tiny(labeler_class)
    if source.startswith(PACKAGE):
        return str(package_path(source))
    if "://" in source:
        return _download(source, dict(options or {}))
    path = Path(source).expanduser()
    if path.exists():
        return str(path.resolve())
    if path.is_absolute() or source.startswith((".", "~")) or source.count("/") != 1:
        raise WeightsError(f"weights {source}: no such file or folder")
    return _from_hub(source)


def told(source: str) -> str:
    """The source as a dataset tells it: a path that is the same from every folder, and no credentials."""
    return without_credentials(absolute_source(source))


def absolute_source(source: str) -> str:
    """The source, made absolute where it is a path here: it may be a hub id."""
    path = Path(source).expanduser()
    is_path = source != TINY and not source.startswith(PACKAGE) and "://" not in source and path.exists()
    return str(path.absolute()) if is_path else source


def _place(url: str) -> tuple[str, str]:
    """The protocol and the bucket or host of a URL."""
    parts = urlsplit(without_credentials(url))
    return parts.scheme, parts.netloc


def resolve(
    source: str, options: Mapping[str, Any] | None = None, labeler_class: type[Labeler] | None = None
) -> LocalWeights:
    """`localise`, and the SHA-256 of what is there."""
    path = localise(source, options, labeler_class)
    return LocalWeights(path, hash_files(Path(path)))


def hash_files(path: Path) -> str:
    """SHA-256 over the names and contents of a file or of all files below a folder."""
    if path.is_file():
        return _hash_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
    if not files:
        raise WeightsError(f"weights {path}: an empty folder")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path).as_posix()}\n{_hash_file(file)}\n".encode())
    return digest.hexdigest()


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _hash_file(path: Path) -> str:
    """SHA-256 of a file, read once by this process as long as the file stays as it is."""
    stat = path.stat()
    return _hash_content(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=4096)
def _hash_content(path: Path, state: tuple[int, ...]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def cached(url: str) -> Path:
    """Where weights from a URL lie on this machine, once they were fetched."""
    safe = without_credentials(url)
    return (
        _cache() / hashlib.sha256(safe.encode()).hexdigest()[:24] / (safe.rstrip("/").rsplit("/", 1)[-1] or "weights")
    )


def _download(url: str, options: dict[str, Any]) -> str:
    safe, target = without_credentials(url), cached(url)
    if target.exists():
        return str(target)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        filesystem, remote = file_system(url, options)
        filesystem.get(remote, str(partial), recursive=filesystem.isdir(remote))
        partial.rename(target)
    except FileNotFoundError:
        raise WeightsError(f"weights {safe}: nothing there") from None
    except Exception as error:  # clients of web servers and of Azure have errors of their own
        if not target.exists():  # another process may have been quicker
            said = without_secrets(str(error), options)
            raise WeightsError(f"weights {safe}: can't be fetched ({type(error).__name__}: {said})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
    return str(target)


def _write_tiny(labeler_class: type[Labeler]) -> str:
    """The labeler's tiny weights in the cache, by all that has a part in writing them."""
    version = hashlib.sha256("\n".join((*_writers(labeler_class), sys.version)).encode()).hexdigest()[:16]
    home = _cache() / TINY / f"{labeler_class.__name__}-{version}"
    pointer = home / "weights.path"
    if not pointer.is_file():
        home.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=home.parent, prefix=f".{home.name}-"))
        try:
            folder = unfinished / "checkpoint"
            folder.mkdir()
            with quiet_transformers():
                written = labeler_class.write_tiny(folder)
            (unfinished / pointer.name).write_text(str(written.relative_to(unfinished)))
            unfinished.rename(home)
        except NotImplementedError as error:
            raise WeightsError(f"weights: {error}; give a path or a hub id") from None
        except OSError:
            if not pointer.is_file():  # another process may have been quicker
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return str(home / pointer.read_text())


def _writers(labeler_class: type[Labeler]) -> Iterator[str]:
    """Hashes of the modules that may have a part in a labeler's tiny weights: its own and the labelers' room; and the
    versions of the packages that do."""
    own = Path(sys.modules[labeler_class.__module__].__file__ or "")
    for path in sorted({own, *Path(__file__).parents[2].joinpath("labelers").rglob("*.py")}):
        yield _hash_file(path)
    for package in ("torch", "transformers", "safetensors", "numpy"):
        with suppress(metadata.PackageNotFoundError):
            yield f"{package} {metadata.version(package)}"


def _from_hub(repository: str) -> str:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError:
        raise WeightsError(f"weights {repository}: a hub id needs `pip install 'tokenloom[hub]'`") from None
    way_out = "give a local folder or an fsspec URL with `weights:` in the recipe"
    try:
        return snapshot_download(repository, allow_patterns=list(HUB_FILES))
    except RepositoryNotFoundError:
        raise WeightsError(
            f"weights {repository}: neither a file here nor a repository on the hub; {way_out}"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise WeightsError(
            f"weights {repository}: the hub can't be reached ({type(error).__name__}) and there is no copy in its "
            f"cache; {way_out}"
        ) from None


def _cache() -> Path:
    return Path(os.environ.get("TOKENLOOM_CACHE", "~/.cache/tokenloom")).expanduser() / "weights"
