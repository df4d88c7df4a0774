"""infra/dev sets up one environment per set of pins, whatever interrupts it, and the pins are exact and complete.

The set-up runs offline here, in a copy of the project, with programs in place of Python and apt-get that write down
how they were called.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.metadata import metadata, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]

# Makes "virtual environments" whose python is this program too; `pip install` fails while FAKE_PIP_FAILS is set.
PYTHON = """case "$*" in
    *ensurepip*) [[ -z ${FAKE_NO_VENV:-} || -e $FAKE_LOG.apt ]] ;;
    *base_prefix*) echo /usr 3.11 ;;
    *version_info*) [[ $* != *print* ]] || echo 3.11 ;;
    --version) echo Python 3.11.0 ;;
    *purelib*) echo "${0%/bin/python}/lib/python3.11/site-packages" ;;
    "-m venv "*) env=${!#}; mkdir -p "$env/bin" "$env/lib/python3.11/site-packages" && cp "$0" "$env/bin/python" ;;
    *"pip install"*) echo "$*" >>"$FAKE_LOG"; sleep "${FAKE_PIP_SECONDS:-0}"
        [[ -z ${FAKE_PIP_FAILS:-} ]] || { echo no space; exit 1; } ;;
    *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""
APT_GET = 'echo "$*" >>"$FAKE_LOG.apt"'
TOOLS = ("basename", "bash", "cat", "cp", "cut", "dirname", "env", "flock", "grep", "id", "ln", "mkdir", "mktemp", "rm")
TOOLS += ("setsid", "sha256sum", "sleep", "tail", "true")


class Project:
    """A copy of what infra/dev reads, and a PATH of nothing but the programs above and basic tools."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.log = folder / "log"
        self.bin = folder / "bin"
        (self.root / "infra").mkdir(parents=True)
        script = (ROOT / "infra/dev").read_text()
        assert " /usr/bin/python3;" in script
        (self.root / "infra/dev").write_text(script.replace(" /usr/bin/python3;", ";"))  # the one not looked up in PATH
        (self.root / "infra/dev").chmod(0o755)
        (self.root / "constraints.txt").write_text("numpy==2.0.0\n")
        (self.root / "pyproject.toml").write_text("[project]\n")
        self.bin.mkdir()
        for name, text in (("python3", PYTHON), ("apt-get", APT_GET), ("sudo", 'shift; exec "$@"')):
            self.add_program(name, text)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or pytest.fail(f"{tool} is missing"))

    def add_program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/bash\n{text}\n")
        (self.bin / name).chmod(0o755)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.root / "infra/dev"), *arguments],
            env={"PATH": str(self.bin), "FAKE_LOG": str(self.log), "HOME": os.environ.get("HOME", "/"), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environment)
        out, errors = process.communicate(timeout=600)
        return process.returncode, out, errors

    def environments(self) -> list[str]:
        return sorted(path.parent.parent.name for path in self.root.glob(".venv/*/bin/python"))

    def pip_calls(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_an_environment_is_built_once_and_kept(project):
    code, out, errors = project.run("run", "bash", "-c", "echo $VIRTUAL_ENV; echo given: $0", "an argument")
    assert code == 0, errors
    (environment,) = project.environments()
    assert out.splitlines() == [str(project.root / ".venv" / environment), "given: an argument"]
    assert "setting up" in errors
    calls = project.pip_calls()
    assert calls > 0

    assert project.run("run", "true") == (0, "", "")
    assert project.pip_calls() == calls


def test_the_commands_exit_code_is_passed_on(project):
    assert project.run("run", "bash", "-c", "exit 7")[0] == 7


def test_a_failed_set_up_shows_why_and_is_done_again(project):
    code, _, errors = project.run("run", "true", FAKE_PIP_FAILS="yes")
    assert code == 1
    assert "no space" in errors
    assert str(project.root / ".venv/pip.log") in errors
    failed = project.pip_calls()

    assert project.run("run", "true")[0] == 0
    assert project.pip_calls() > failed


def test_changed_pins_make_a_new_environment_and_remove_the_old(project):
    project.run("run", "true")
    (old,) = project.environments()
    (project.root / "constraints.txt").write_text("numpy==2.0.1\n")
    project.run("run", "true")
    (new,) = project.environments()
    assert new != old


def test_an_environment_in_use_is_not_removed(project):
    project.run("run", "true")
    (old,) = project.environments()
    user = project.start("run", "bash", "-c", "echo inside; exec sleep 600")
    try:
        assert user.stdout is not None
        assert user.stdout.readline() == "inside\n"
        (project.root / "constraints.txt").write_text("numpy==2.0.1\n")
        project.run("run", "true")
        assert old in project.environments()
        assert len(project.environments()) == 2
    finally:
        user.kill()
        user.communicate()


def test_changed_project_metadata_is_installed_into_the_same_environment(project):
    project.run("run", "true")
    before = project.environments(), project.pip_calls()
    (project.root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    code, _, errors = project.run("run", "true")
    assert code == 0
    assert "updating" in errors
    assert project.environments() == before[0]
    assert project.pip_calls() > before[1]


def test_two_at_once_build_once(project):
    alone = Project(project.root.parent / "alone")
    alone.run("run", "true")
    both = [project.start("run", "true", FAKE_PIP_SECONDS="0.2") for _ in range(2)]
    errors = "".join(process.communicate(timeout=600)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert errors.count("setting up") == 1
    assert project.pip_calls() == alone.pip_calls()


def test_a_python_without_venv_gets_its_package(project):
    code, _, errors = project.run("run", "true", FAKE_NO_VENV="yes")
    assert code == 0, errors
    assert "python3.11-venv" in Path(f"{project.log}.apt").read_text()


def test_without_apt_it_says_what_to_run(project):
    (project.bin / "apt-get").unlink()
    code, _, errors = project.run("run", "true", FAKE_NO_VENV="yes")
    assert code == 1
    assert "sudo apt-get install python3.11-venv" in errors


def test_help_sets_nothing_up(project):
    code, out, _ = project.run()
    assert code == 0
    assert "infra/dev demo" in out
    assert not (project.root / ".venv").exists()


@pytest.mark.parametrize(("failing", "code"), [("", 0), ("ruff", 1), ("pytest", 1), ("pyright", 1)])
def test_what_any_check_complains_of_is_shown_and_fails_all(project, failing, code):
    for name in ("ruff", "pytest", "pyright"):
        project.add_program(name, f'echo "{name} $*"; [[ {name} != "{failing}" ]]')
    ended, out, errors = project.run("test", "tests/infra")
    assert ended == code, errors
    assert "ruff check\n" in out
    if failing != "ruff":
        assert re.search(r"^pytest .*--durations 20 .* tests/infra$", out, re.MULTILINE)
        assert out.endswith("pyright \n")


def test_the_fast_tests_do_without_what_is_slow(project):
    for name in ("ruff", "pytest", "pyright"):
        project.add_program(name, f'echo "{name} $*"')
    code, out, errors = project.run("test", "--fast", "-k", "some")
    assert code == 0, errors
    assert "-m not (ray or s3 or browser or process or slow) --hypothesis-profile quick --budget " in out
    assert out.endswith(" -k some\n")
    assert "ruff format --check" in out
    assert "pyright" not in out
    assert not Path(f"{project.log}.apt").exists()


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        ([], "1 tests/cluster"),
        (["-k", "some"], "1 tests/cluster -k some"),
        (["tests/cluster/test_jobs.py::test_a", "-x"], "1 tests/cluster/test_jobs.py::test_a -x"),
    ],
)
def test_the_tests_of_clusters_are_all_or_those_named(project, words, taken):
    project.add_program("pytest", 'echo "$*"')
    project.add_program("chmod", "")
    project.add_program("touch", "")
    code, out, errors = project.run("test", "--cluster", *words)
    assert code == 0, errors
    assert out.endswith(f" --durations-min {taken}\n")


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_pins_are_exact_and_come_from_an_index():
    for pin in pins():
        assert pin.url is None, pin
        assert [specifier.operator for specifier in pin.specifier] == ["=="], pin
        assert "+" not in str(pin.specifier), f"{pin}: a local version, which no index has"


@pytest.mark.parametrize("python_version", ["3.10", "3.11", "3.12", "3.13"])
def test_every_requirement_has_one_pin_that_suits_it(python_version):
    pinned: dict[str, str] = {}
    for pin in pins():
        if pin.marker is None or pin.marker.evaluate({"python_version": python_version}):
            assert canonical(pin.name) not in pinned, f"{pin.name} is pinned twice on Python {python_version}"
            pinned[canonical(pin.name)] = next(iter(pin.specifier)).version
    extras = metadata("tokenloom").get_all("Provides-Extra") or []
    environments = [{"python_version": python_version, "extra": extra} for extra in ("", *extras)]
    for text in requires("tokenloom") or ():
        requirement = Requirement(text)
        wanted = requirement.marker is None or any(map(requirement.marker.evaluate, environments))
        if wanted and canonical(requirement.name) != "tokenloom":
            assert requirement.specifier.contains(pinned[canonical(requirement.name)]), text
