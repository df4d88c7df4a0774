"""Where the classes that a recipe names come from: an installed package, or files beside it that can be sent along."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from .registry import RegistryError, target_of

_LEFT_OUT = ("__pycache__", ".git", ".gitignore")
"""Of a package that is sent along; by the last Ray would leave out what it names."""


@dataclass(frozen=True)
class Origin:
    """Whence a reference's class comes: of an installed distribution and its version, or of files in the folder, below
    which these paths lie: those of its module, and of the modules beside it that it imports."""

    reference: str
    distribution: str = ""
    version: str = ""
    files: tuple[Path, ...] = ()


def origin_of(group: str, reference: str, base: type, here: Path) -> Origin:
    """Found without running anything of the module's. here: the folder in which modules may lie that aren't installed.

    Raises RegistryError where the name is unknown, or the module neither installed nor in the folder.
    """
    top = target_of(group, reference, base).partition(":")[0].partition(".")[0]
    if beside := _beside(top, here):
        return Origin(reference, files=tuple(sorted(_with_imports(beside, here))))
    distributions = _distributions().get(top)
    if distributions:
        return Origin(reference, distributions[0], version(distributions[0]))
    raise RegistryError(
        f"{reference}: there is no module {top!r}, neither installed nor in {here}; put it there to be sent along, "
        f"or install it here and on the cluster"
    )


@cache
def _distributions() -> dict[str, list[str]]:
    """The distributions by the packages that they install. Read once: that reads a file of each."""
    found = {name: list(of) for name, of in packages_distributions().items()}
    return found | {"tokenloom": ["tokenloom"]}  # an editable one doesn't say


def _beside(top: str, here: Path) -> Path | None:
    """The file or folder of a top-level module that lies in the folder, and isn't hidden by an installed one."""
    spec = _installed(top, here) or PathFinder.find_spec(top, [str(here)])
    if spec is None:
        return None
    if spec.origin and spec.submodule_search_locations is None:
        place = Path(spec.origin)
    else:
        place = next((Path(one) for one in spec.submodule_search_locations or ()), Path())
        if not any(place.rglob("*.py")):  # a folder of data, which has the name of a module by chance
            return None
    return place if place.parent == here else None


def _installed(top: str, here: Path) -> ModuleSpec | None:
    if top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return ModuleSpec(top, None)
    try:
        return find_spec(top)
    except ValueError:  # of what was loaded without a spec, as __main__
        return None


def _with_imports(place: Path, here: Path) -> set[Path]:
    """The files of a module or package, and of those in the folder that they import."""
    found: set[Path] = set()
    waiting = [place]
    while waiting:
        files = set(_files(waiting.pop())) - found
        found |= files
        tops = {top for file in files if file.suffix == ".py" for top in _imported(file)}
        waiting += [other for top in sorted(tops) if (other := _beside(top, here))]
    return found


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    for path in place.rglob("*"):
        if path.is_file() and not set(path.relative_to(place).parts) & set(_LEFT_OUT):
            yield path


def _imported(file: Path) -> set[str]:
    """The top-level modules that a file imports, wherever in it. RegistryError where it isn't Python."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as error:
        raise RegistryError(f"{file}: {error}") from None
    names = [
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if not (isinstance(node, ast.ImportFrom) and node.level)
    ]
    return {name.partition(".")[0] for name in names if name}
