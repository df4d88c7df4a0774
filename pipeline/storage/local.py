"""Files below a folder of this machine, written so that a reader never sees half of one."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

TEMPORARY = ".tmp-"
"""How the names of files begin that are still being written."""

_WRITING = 5.0
"""Seconds after which a file that is still being written is taken for a dead writer's."""
_AGAIN = 100
"""Times, at most, that a folder is made for a file, and that a file is written anew."""
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_TRANSIENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENETRESET}


class Entry(NamedTuple):
    """One object of a listing. name: relative to the listed prefix; size: bytes; modified: seconds since the epoch.
    is_file: not a link to nothing, a pipe or a device. tag: an object store's own mark of its content, where it has
    one."""

    name: str
    size: int
    modified: float
    is_file: bool = True
    tag: str = ""

    @property
    def version(self) -> str:
        """What tells it from others that may have the name at other times."""
        return self.tag or str(self.modified)


class LocalFiles:
    """The files below `root`. Paths are relative, with `/`, and have been checked by the caller."""

    def __init__(self, root: str) -> None:
        self.root = root

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def list_page(self, prefix: str, recursive: bool, token: str) -> tuple[list[Entry], str]:
        """As `ObjectFiles.list_page`: here all at once."""
        return list(self._below(prefix, recursive)), ""

    def _below(self, prefix: str, recursive: bool) -> Iterator[Entry]:
        """All below the folder `prefix` but folders, in no particular order; follows links, but never in a circle."""
        top = self._full(prefix)
        folders = [""]
        while folders:
            folder = folders.pop()
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(os.path.join(top, folder)) as entries:  # noqa: PTH118
                for entry in entries:
                    if entry.name.startswith(TEMPORARY):
                        continue
                    if not _is_folder(entry):
                        yield from _seen(entry, folder)
                    elif recursive and not _leads_upwards(entry):
                        folders.append(folder + entry.name + "/")

    def children_page(self, prefix: str, token: str) -> tuple[list[str], str]:
        """As `ObjectFiles.children_page`: here all at once."""
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._full(prefix)) as entries:
            return [entry.name + "/" * _is_folder(entry) for entry in entries], ""
        return [], ""

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        with open(self._full(path), "rb", buffering=0) as file:
            file.seek(start)
            parts = []
            while start < stop and (part := file.read(stop - start)):
                parts.append(part)
                start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read(self, path: str) -> bytes:
        return Path(self._full(path)).read_bytes()

    def stat(self, path: str) -> Entry:
        status = Path(self._full(path)).stat()
        return Entry(path, status.st_size, status.st_mtime)

    def exists(self, path: str) -> bool:
        return Path(self._full(path)).is_file()

    def create(self, path: str, data: bytes) -> bool:
        """Write `data` at `path` unless something is there. A link, unlike a rename, fails where a file exists."""
        final = Path(self._full(path))
        if final.exists():
            return False
        return _placed(final, data, _link)

    def replace(self, path: str, data: bytes, content_type: str = "") -> None:
        """content_type: files have none."""
        _placed(Path(self._full(path)), data, _rename)

    def delete(self, path: str) -> None:
        """And the folders that it leaves empty, as object stores have none: a run marks each unit in one of its own."""
        file = Path(self._full(path))
        file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or a link
            for folder in file.parents[: path.count("/")]:
                folder.rmdir()

    def remove_stale_temporaries(self) -> None:
        """Remove the temporary files of writers that died, on this host or another, where nobody can ask for them: they
        are old by the file system's own clock. A writer that is alive all the same writes again. Another user's may
        have to stay."""
        names = (Path(folder, name) for folder, _, names in os.walk(self.root) for name in names)
        left = [path for path in names if path.name.startswith(TEMPORARY)]
        now = _clock(Path(self.root)) if left else 0.0
        for path in left:
            if _is_stale(path, now):
                with suppress(PermissionError):
                    path.unlink(missing_ok=True)

    def is_transient(self, error: BaseException) -> bool:
        return isinstance(error, OSError) and error.errno in _TRANSIENT

    client = None

    def renew(self, error: BaseException, client: object) -> bool:
        """As `ObjectFiles.renew`: there are no credentials."""
        return False

    def way_out(self, error: BaseException) -> str:
        """What the user can do about `error`; empty when there is nothing special to say."""
        code = getattr(error, "errno", None)
        if code in (errno.EACCES, errno.EPERM):
            return "Give this user access to it, or choose another path"
        if code == errno.EROFS:
            return "The file system is read-only: choose another path"
        if code in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(_existing(Path(self.root))).free / 2**20
            return f"Only {free:.0f} MiB are free there: make room and run it again; what is written stays valid"
        if code in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            return "A file is in the way of a folder of that name, or a folder in the way of a file: move it"
        return ""


def without_dots(path: Path) -> Path:
    """The absolute path without `..`, which behind a link means the folder above that to which the link leads."""
    at = Path("/")
    for part in path.parts[1:]:
        at = at / part if part != ".." else (at.resolve() if at.is_symlink() else at).parent
    return at


def names_by_links(address: str, folders: Iterable[str]) -> list[str]:
    """All absolute paths that lead to one: itself, its real path, and those through links among the folders, and among
    those that they lie in."""
    above: set[str] = set()
    for folder in folders:
        while folder and folder not in above:
            above.add(folder)
            folder = folder.rpartition("/")[0]
    real = Path(address).resolve()
    links = {link: link.resolve() for link in map(Path, sorted(above)) if link.is_symlink()}
    found = [link / real.relative_to(there) for link, there in links.items() if real.is_relative_to(there)]
    return list(dict.fromkeys([address, str(real), *map(str, found)]))


def _existing(path: Path) -> Path:
    return path if path.exists() or path == path.parent else _existing(path.parent)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def _seen(entry: os.DirEntry[str], folder: str) -> Iterator[Entry]:
    """What isn't a folder, as a listing shows it; nothing for what is gone since."""
    try:
        status = entry.stat()
        yield Entry(folder + entry.name, status.st_size, status.st_mtime, stat.S_ISREG(status.st_mode))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        if entry.is_symlink():
            yield Entry(folder + entry.name, 0, 0.0, is_file=False)


def _leads_upwards(entry: os.DirEntry[str]) -> bool:
    """Whether a folder is a link to one of the folders that it lies in."""
    return entry.is_symlink() and Path(entry.path).parent.resolve().is_relative_to(Path(entry.path).resolve())


def _host() -> str:
    """This host and its process ids: containers of one host count as several where each has its own ids."""
    try:
        return f"{socket.gethostname()}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return socket.gethostname()


def _placed(final: Path, data: bytes, place: Callable[[Path, Path], bool]) -> bool:
    """What `place(temporary, final)` says, of a file with the data beside it: of another one where somebody who cleans
    up has taken that for a dead writer's."""
    for attempt in range(_AGAIN):
        temporary = _write_temporary(final.parent, data)
        try:
            placed = place(temporary, final)
        except FileNotFoundError:
            if attempt == _AGAIN - 1:
                raise
            continue
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(final.parent)
        return placed
    raise AssertionError


def _link(temporary: Path, final: Path) -> bool:
    """Whether nothing was there."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if final.exists():
            return False
        temporary.replace(final)
    return True


def _rename(temporary: Path, final: Path) -> bool:
    temporary.replace(final)
    return True


def _temporary(folder: Path) -> Path:
    return folder / f"{TEMPORARY}{_host()}-{os.getpid()}-{secrets.token_hex(8)}"


def _write_temporary(folder: Path, data: bytes) -> Path:
    temporary = _temporary(folder)
    try:
        with _opened(temporary) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _opened(path: Path) -> BinaryIO:
    """A new file, in a folder that is made for it: again where somebody deletes it meanwhile, who finds it empty."""
    for attempt in range(_AGAIN):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return open(path, "xb")
        except (FileNotFoundError, FileExistsError):  # the latter of a folder that was there a moment ago, too
            if attempt == _AGAIN - 1:
                raise
    raise AssertionError


def _sync_folder(folder: Path) -> None:
    """Make a new name outlast a power cut; some network file systems can't, and need not."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # the file is deleted again already, by somebody else
        return
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clock(folder: Path) -> float:
    """What time it is to the file system: those of hosts differ."""
    path = _temporary(folder)
    with _opened(path) as file:
        try:
            return os.fstat(file.fileno()).st_mtime
        finally:
            path.unlink(missing_ok=True)


def _is_stale(path: Path, now: float) -> bool:
    try:
        host, pid, _ = path.name[len(TEMPORARY) :].rsplit("-", 2)
        if now - path.stat().st_mtime > _WRITING:
            return True
        if host != _host():
            return False
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):  # gone since, somebody else's process, or not one of our names
        return False
    return False
