"""The rules of the house: how the rooms are laid out, who may import whom, and what is nowhere to be found."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("labelers", "tokenizers", "pipeline", "training")  # lowest first
HEAVY = ("cv2", "datasets", "onnxruntime", "pyarrow", "ray", "rapidocr", "scipy", "skimage", "torch", "transformers")
MAX_LINES = 450

SOURCES = [ROOT / "__init__.py", *(path for room in FLOORS for path in sorted((ROOT / room).rglob("*.py")))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def source_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    """The top-level folder that a file is in; "" for the package's own __init__.py."""
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else ""


def imports(path: Path) -> Iterator[tuple[int, int, str]]:
    """(line, level, module) of each import, at any depth of the code; `from .. import labelers` gives its names."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, 0, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.lineno, node.level, node.module
            else:
                for alias in node.names:
                    yield node.lineno, node.level, alias.name


def room_imported(path: Path, level: int, module: str) -> str | None:
    """The room that a relative import leads to; None for an absolute one."""
    if level == 0:
        return None
    package = path.relative_to(ROOT).parent.parts
    base = package[: len(package) - (level - 1)]
    return (*base, *module.split("."))[0]


def test_rooms_have_no_init():
    """With one, `tokenizers/` would shadow Hugging Face's package wherever this folder is the working directory."""
    assert [room for room in FLOORS if (ROOT / room / "__init__.py").exists()] == []


def test_tokenizers_is_hugging_faces_from_the_root():
    code = "import tokenizers; print(tokenizers.Tokenizer.__module__, tokenizers.__file__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    module, file = run.stdout.split(maxsplit=1)
    assert module == "tokenizers"
    assert not Path(file.strip()).is_relative_to(ROOT / "tokenizers")


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_imports_between_rooms_are_relative(path):
    absolute = [
        f"{source_id(path)}:{line} imports {module}"
        for line, level, module in imports(path)
        if level == 0 and module.split(".")[0] == "tokenloom"
    ]
    assert absolute == []


@pytest.mark.parametrize("path", [path for path in SOURCES if room_of(path)], ids=source_id)
def test_no_room_imports_from_a_floor_above(path):
    floor = FLOORS.index(room_of(path))
    above = [
        f"{source_id(path)}:{line} imports {room}, which is above {FLOORS[floor]}"
        for line, level, module in imports(path)
        if (room := room_imported(path, level, module)) in FLOORS and FLOORS.index(room) > floor
    ]
    assert above == []


@pytest.mark.parametrize("path", [path for path in SOURCES if room_of(path) in FLOORS[:2]], ids=source_id)
def test_labelers_and_tokenizers_know_neither_ray_nor_storage(path):
    found = [
        f"{source_id(path)}:{line} imports {module}"
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


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_nothing_reads_pickles(path):
    found = unsafe_reads(ast.parse(path.read_text(), str(path)))
    expected = ["imports pickle"] if source_id(path) == INERT_UNPICKLER else []
    assert [what for _, what in found] == expected, source_id(path)


def test_the_one_unpickler_finds_no_class():
    tree = ast.parse((ROOT / INERT_UNPICKLER).read_text())
    used = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
    }
    assert used <= {"Unpickler", "UnpicklingError"}
    (unpickler,) = [
        n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and "pickle.Unpickler" in map(ast.unparse, n.bases)
    ]
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


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=source_id)
def test_files_are_short_enough_to_read(path):
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, f"{source_id(path)} has {lines} lines; one file, one idea, {MAX_LINES} lines at most"
