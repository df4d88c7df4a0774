"""The pages of documentation: their blocks of code, and the commands in these and in lines of text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

PROGRAMS = ("tokenloom", "infra/dev", "python", "pip", "pytest", "duckdb")
CHECKED = ("infra/dev", "python", "pip", "pytest")
"""Programs whose commands take long: they aren't run."""
ON_CLUSTER = ("tokenloom submit ", "tokenloom doctor ")
"""Want a cluster with its dashboard, which tests/cluster has."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced block of code. file: the name in its first line, if that is a comment that names a file."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        named = re.match(r"# ([\w.-]+\.\w+)\n", self.text)
        return named[1] if named else None


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\S*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)]


def without_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def spans(page: Path) -> list[str]:
    """Code in a line of text."""
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", without_blocks(page))]


def written_commands(text: str) -> list[str]:
    """The commands of a block in the shell's language, without comments."""
    lines = (line.strip() for line in text.replace("\\\n", " ").splitlines())
    return [re.sub(r"\s+# .*", "", line) for line in lines if line and not line.startswith("#")]


def commands(page: Path) -> list[str]:
    """All commands of a page, in blocks and in lines of text; there the name of one alone, `tokenloom run`, is none."""
    in_blocks = [line for block in blocks(page) if block.language == "sh" for line in written_commands(block.text)]
    in_lines = [span for span in spans(page) if span.split()[0] in PROGRAMS and " " in span]
    return in_blocks + [span for span in in_lines if span.removeprefix("tokenloom ") not in help_of_tokenloom()]


def is_run(command: str) -> bool:
    return program_of(command) not in CHECKED and not command.startswith(ON_CLUSTER)


def program_of(command: str) -> str:
    """The program that a command starts; of `infra/dev run PROGRAM` that one."""
    return shlex.split(command.removeprefix("infra/dev run "))[0]


@cache
def help_of_tokenloom() -> dict[str, str]:
    """The help of every command of the command line, by its name: `run`, `tokenizer fit`."""
    import typer
    from tokenloom.pipeline.cli import app

    def walk(command, name: str) -> Iterator[tuple[str, str]]:
        below = getattr(command, "commands", {})
        if not below:
            yield name, command.get_help(typer.Context(command, info_name=name))
        for word, one in below.items():
            yield from walk(one, f"{name} {word}".strip())

    return dict(walk(typer.main.get_command(app), ""))
