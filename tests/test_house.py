"""The rules of the house: how the rooms are laid out, who may import whom, and what is nowhere to be found."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("labelers", "tokenizers", "pipeline", "training")  # lowest first
WINGS = {  # of each room, floor by floor, lowest first; ".": the files that lie in the room itself
    "labelers": (("contract",), ("networks",), ("plugins", "people", "sam"), (".",)),
    "tokenizers": (("contract", "measures"), ("text", "codebooks", "networks"), ("fitting",), ("vq",), ("instances",)),
    "pipeline": (
        ("storage", "cluster"),
        ("corpus",),
        ("dataset",),
        ("checks", "views", "plan"),
        ("engine", "fitting", "preview"),
        ("run.py",),
        ("retry.py", "compact.py", "doctor"),
        ("commands", "options.py"),
        ("ending.py", "tokenizer_cli.py"),
        ("cli.py",),
        ("start.py",),
    ),
    "training": (
        ("data",),
        ("model",),
        ("forms",),
        ("fit", "generation", "backbone"),
        ("evaluation", "retrieval", "prompt"),
        ("show", "use"),
    ),
}
HEAVY = ("cv2", "datasets", "onnxruntime", "pyarrow", "ray", "rapidocr", "scipy", "skimage", "torch", "transformers")
MAX_LINES = 400
PLUGINS = "labelers/plugins/registry.py"
"""Imports modules by the names that users give."""

COMMAND_LINE = ROOT / "tests" / "command_line.txt"

SOURCES = [ROOT / "__init__.py", *(path for room in FLOORS for path in sorted((ROOT / room).rglob("*.py")))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def source_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    """The top-level folder that a file is in; "" for the package's own __init__.py."""
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else ""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree(path)))


def imports(path: Path) -> Iterator[tuple[int, int, str]]:
    """(line, level, module) of each import, at any depth of the code; `from .. import labelers` gives its names."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, 0, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.lineno, node.level, node.module
            else:
                for alias in node.names:
                    yield node.lineno, node.level, alias.name


def files_imported(path: Path, level: int, module: str, names: tuple[str, ...] = ()) -> set[Path]:
    """The files of this package that a relative import reads, as paths below the root."""
    package = path.relative_to(ROOT).parent.parts
    base = Path(*package[: len(package) - (level - 1)], *module.split("."))
    return {
        file
        for file in (base.with_suffix(".py"), *((base / name).with_suffix(".py") for name in names))
        if (ROOT / file).is_file()
    }


def wing_of(file: Path) -> tuple[int, int, str]:
    """The floors of a file's room and of its wing, and the wing. KeyError for a place that WINGS doesn't list."""
    room, name = file.parts[0], file.parts[-1] if len(file.parts) == 1 else file.parts[1]
    places = [(floor, wing) for floor, wings in enumerate(WINGS.get(room, ())) for wing in wings]
    for floor, wing in places:
        if wing == name or (wing == "." and len(file.parts) == 2):
            return FLOORS.index(room), floor, f"{room}/{wing}"
    raise KeyError(f"{file} is in no wing: rooms import no other place, and a new folder is named in WINGS")


def may_import(importer: Path, imported: Path) -> bool:
    """Whether an import stays within its wing or goes down. Wings of one floor don't know each other."""
    room, floor, wing = wing_of(importer)
    other_room, other_floor, other_wing = wing_of(imported)
    return wing == other_wing or (other_room, other_floor) < (room, floor)


@cache
def arrows() -> dict[Path, set[Path]]:
    """Which files each file of the rooms imports, at any depth of the code, for type checkers alone too."""
    found: dict[Path, set[Path]] = {}
    for path in SOURCES:
        if not room_of(path):
            continue
        found[path.relative_to(ROOT)] = reached = set()
        for node in nodes(path):
            if isinstance(node, ast.ImportFrom) and node.level:
                names = tuple(alias.name for alias in node.names)
                reached |= files_imported(path, node.level, node.module or "", names)
    return found


def test_every_file_is_in_a_wing():
    for path in filter(room_of, SOURCES):
        wing_of(path.relative_to(ROOT))


def test_nothing_is_imported_by_name():
    by_name = {"import_module", "__import__"}
    named = {
        source_id(path)
        for path in filter(room_of, SOURCES)
        if by_name & {getattr(node.func, "attr", getattr(node.func, "id", "")) for node in calls(path)}
    }
    assert named == {PLUGINS}


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in nodes(path) if isinstance(node, ast.Call))


def test_no_import_runs_up():
    above = [
        f"{importer} imports {imported}"
        for importer, reached in arrows().items()
        for imported in sorted(reached)
        if not may_import(importer, imported)
    ]
    assert above == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("labelers/contract/kinds.py", "labelers/networks/hub.py"),
        ("labelers/sam/models.py", "labelers/det.py"),
        ("labelers/sam/models.py", "labelers/people/crops.py"),
        ("tokenizers/vq/vq.py", "tokenizers/instances/instances.py"),
        ("tokenizers/vq/vq.py", "pipeline/storage/store.py"),
        ("pipeline/plan/plan.py", "pipeline/engine/stage.py"),
        ("pipeline/engine/stage.py", "pipeline/fitting/fit.py"),
        ("pipeline/run.py", "pipeline/retry.py"),
        ("pipeline/commands/run.py", "pipeline/cli.py"),
    ],
)
def test_an_import_that_runs_up_or_aside_is_found(importer, imported):
    assert (ROOT / importer).is_file()
    assert (ROOT / imported).is_file()
    assert not may_import(Path(importer), Path(imported))
    assert may_import(Path(importer), Path(importer))


def test_no_files_import_each_other_in_a_circle():
    TopologicalSorter(arrows()).prepare()  # raises CycleError, which names the circle


def test_arrows_are_seen():
    """Without which the two tests above would be passed by anything."""
    found = arrows()
    assert Path("pipeline/run.py") in found[Path("pipeline/retry.py")]
    assert Path("labelers/contract/codecs.py") in found[Path("labelers/contract/kinds.py")]  # from . import codecs
    assert Path("pipeline/commands/run.py") in found[Path("pipeline/cli.py")]  # within a function
    assert Path("labelers/contract/kinds.py") in found[Path("pipeline/dataset/cards.py")]  # for type checkers


def test_rooms_have_no_init():
    """With one, `tokenizers/` would shadow Hugging Face's package wherever this folder is the working directory."""
    assert [source_id(path) for room in FLOORS for path in (ROOT / room).rglob("__init__.py")] == []


def test_every_public_name_is_there():
    import tokenloom

    assert [name for name in tokenloom.__all__ if getattr(tokenloom, name, None) is None] == []


def test_every_folder_is_installed():
    listed = (ROOT / "pyproject.toml").read_text().partition("\npackages = [")[2].partition("]")[0]
    packages = re.findall(r'"([\w.]+)"', listed)
    folders = {path.parent.relative_to(ROOT).parts for path in SOURCES}
    assert sorted(packages) == sorted(".".join(("tokenloom", *parts)) for parts in folders)


def test_the_flat_files_of_labelers_are_the_registered_labelers():
    registered = {entry.value.partition(":")[0] for entry in entry_points(group="tokenloom.labelers")}
    ours = {name.rpartition(".")[2] for name in registered if name.startswith("tokenloom.labelers.")}
    assert {path.stem for path in (ROOT / "labelers").glob("*.py")} == ours


def test_tokenizers_is_hugging_faces_from_the_root():
    code = "import tokenizers; print(tokenizers.Tokenizer.__module__, tokenizers.__file__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    module, file = run.stdout.split(maxsplit=1)
    assert module == "tokenizers"
    assert not Path(file.strip()).is_relative_to(ROOT / "tokenizers")


def test_imports_between_rooms_are_relative():
    absolute = [
        f"{source_id(path)}:{line} imports {module}"
        for path in SOURCES
        for line, level, module in imports(path)
        if level == 0 and module.split(".")[0] == "tokenloom"
    ]
    assert absolute == []


def test_labelers_and_tokenizers_know_neither_ray_nor_storage():
    found = [
        f"{source_id(path)}:{line} imports {module}"
        for path in SOURCES
        if room_of(path) in FLOORS[:2]
        for line, level, module in imports(path)
        if level == 0 and module.split(".")[0] in ("ray", "fsspec", "s3fs")
    ]
    assert found == []


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from tokenloom.pipeline.cli import main\n"
        "sys.argv = ['tokenloom', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"print('heavy:', *sorted(set(sys.modules) & set({HEAVY!r})))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1].split() == ["heavy:"]


def test_reading_tokens_imports_neither_ray_nor_labelers():
    code = (
        "import sys\n"
        "import tokenloom.pipeline.dataset.reader\n"
        "heavy = {'ray', 'torch', 'PIL', 'cv2', 'pydantic', 'yaml'} & set(sys.modules)\n"
        "files = {name for name, module in sys.modules.items() if getattr(module, '__file__', None)}\n"
        "print('heavy:', *sorted(heavy))\n"
        "print('labelers:', *sorted(name for name in files if name.startswith('tokenloom.labelers')))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["heavy:", "labelers: tokenloom.labelers.contract.licences"]


def test_heavy_packages_are_installed():
    """Without which the test above would be passed by anything."""
    from importlib.util import find_spec

    assert [name for name in HEAVY if find_spec(name) is None] == []


def unsafe_reads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Whatever runs code that comes with data: pickle and its kin, numpy's and torch's pickles, YAML's objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                if name.split(".")[0] in ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"):
                    yield node.lineno, f"imports {name}"
        elif isinstance(node, ast.Call):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            called = ast.unparse(node.func)
            if given.get("allow_pickle", "False") != "False":
                yield node.lineno, f"calls {called} with allow_pickle"
            if given.get("weights_only", "True") != "True":
                yield node.lineno, f"calls {called} without weights_only"
            if called == "torch.load" and "weights_only" not in given:
                yield node.lineno, "calls torch.load without saying weights_only=True"
            if called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
                yield node.lineno, f"calls {called}, not yaml.safe_load"


INERT_UNPICKLER = "labelers/people/hmr2_converter.py"
"""Derives an unpickler that finds no class and calls no function; its own tests feed it hostile files."""


def test_nothing_reads_pickles():
    found = {source_id(path): list(unsafe_reads(tree(path))) for path in SOURCES}
    reading = {source: [what for _, what in reads] for source, reads in found.items() if reads}
    assert reading == {INERT_UNPICKLER: ["imports pickle"]}


def test_the_one_unpickler_finds_no_class():
    found = nodes(ROOT / INERT_UNPICKLER)
    used = {n.attr for n in found if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "pickle"}
    assert used <= {"Unpickler", "UnpicklingError"}
    (unpickler,) = [n for n in found if isinstance(n, ast.ClassDef) and "pickle.Unpickler" in map(ast.unparse, n.bases)]
    assert "find_class" in [node.name for node in unpickler.body if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from cloudpickle import loads",
        "np.load(file, allow_pickle=True)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
    ],
)
def test_an_unsafe_read_is_found(code):
    assert len(list(unsafe_reads(ast.parse(code)))) == 1


def test_files_are_short_enough_to_read():
    """One file, one idea."""
    lines = {source_id(path): len(path.read_text().splitlines()) for path in (*SOURCES, *TESTS)}
    assert {source: count for source, count in lines.items() if count > MAX_LINES} == {}


# --- the command line -------------------------------------------------------------------------------------------------


def command_line() -> str:
    """Every command with its help, arguments and options, as text."""
    from tokenloom.pipeline.cli import app
    from typer.main import get_command

    return "\n".join(described("tokenloom", get_command(app))) + "\n"


def described(name: str, command: Any) -> Iterator[str]:
    yield f"{name}: {' '.join((command.help or '').split())}"
    for option in command.params:
        names = " ".join([*option.opts, *option.secondary_opts]) if option.param_type_name == "option" else ""
        default = f" [{option.default}]" if option.default else ""
        metavar = option.metavar or option.name.upper()
        words = f"{names} {metavar} ({type_of(option)})".strip() if not getattr(option, "is_flag", False) else names
        marks = [mark for mark in ("required", "multiple", "hidden") if getattr(option, mark, False)]
        yield f"    {', '.join([words, *marks])}{default}: {' '.join((option.help or '').split())}"
    for child, one in getattr(command, "commands", {}).items():
        yield from described(f"{name} {child}", one)


def type_of(option: Any) -> str:
    """What an argument or option takes, with the bounds of a number."""
    annotation = option.type_descriptor.annotation
    bounds = [f"{name} {bound}" for name in ("min", "max") if (bound := getattr(option, name, None)) is not None]
    return ", ".join([getattr(annotation, "__name__", str(annotation)), *bounds])


def test_the_command_line_is_as_it_was_written_down():
    """A change of commands, options, defaults or help has to show in a diff: `python tests/test_house.py` writes it."""
    assert command_line() == COMMAND_LINE.read_text()


if __name__ == "__main__":
    COMMAND_LINE.write_text(command_line())
