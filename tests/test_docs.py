"""README, CONTRIBUTING and docs/: their commands and code are run, as they stand, in a folder of small photographs.

What takes long (benchmarks, kills, the demo, the tests) is checked instead: that it is there, with the options that are
named. A command that is neither fails, so does one of a program that this file doesn't know.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from in_process import without_ray
from pages import (
    PAGES,
    PROGRAMS,
    ROOT,
    blocks,
    commands,
    help_of_tokenloom,
    is_run,
    name_of,
    program_of,
    spans,
    without_blocks,
)

_IN_FOLDER = ("recipes", "labelers", "tokenizers", "dataset", "training", "exports")
IN_ORDER = ["README.md", *(f"docs/{page}.md" for page in _IN_FOLDER)]
"""Pages whose commands run, in this order: the later ones use what the earlier ones made."""

ELSEWHERE = [
    (r"s3://bucket", "{folder}/bucket"),
    (r"\{00000\.\.01242\}", "{{00000..00001}}"),
    (r"facebook/dinov2-base", "tiny"),
    (r"EPFL-VILAB/\S+?(?=\})", "{folder}/bucket/tokenizers/edges"),
    (r"ORG/NAME", "./ORG/NAME"),
    (r"(--corpus|--output|^corpus:|^output:) (?=\w)", r"\1 {folder}/"),
    (r"(?<![\w./-])dataset/", "{folder}/dataset/"),
]
"""Where commands and code find what they name: the bucket in a folder, tiny weights for a hub's, the hub in a folder.
Paths become absolute, since the workers of the tests' one Ray have another working directory than the commands."""

TINY_FIT = "{params: {encoder: vit_xt_enc, decoder: vit_xt_dec, codes: 16}, fit: {steps: 2, batch_size: 2}}"
SHORTER = [
    ("tokenloom run 4m21 ", "--dry-run"),
    ("tokenloom run ./mine.yaml --set", "--dry-run"),
    ("tokenloom run ", "--set resources.workers=1"),
    ("tokenloom plan ./mine.yaml", "--calibrate 1"),
    ("tokenloom label ", "--weights dinov2=tiny"),
    ("tokenloom train ", "--set train.steps=2"),
    ("tokenloom tokenizer fit ", f"--set 'modalities.canny_edge.tokenizer={TINY_FIT}'"),
]
"""What is added to commands that begin so, the first that fits, for them to end soon and without a download."""


# --- what is in the pages ---------------------------------------------------------------------------------------------


def test_every_block_is_of_a_language_that_is_run_here():
    found = {(name_of(page), block.language) for page in PAGES for block in blocks(page)}
    assert {language for _, language in found} <= {"sh", "python", "yaml"}, found
    fences = {name_of(page): page.read_text().count("```") for page in PAGES}
    assert fences == {name_of(page): 2 * len(blocks(page)) for page in PAGES}


def test_no_command_hides_in_an_indented_block():
    indented = rf"^(?: {{4,}}|\t)(?:\$ )?(?:{'|'.join(PROGRAMS)})\b.*"
    assert [(name_of(page), re.findall(indented, without_blocks(page), re.MULTILINE)) for page in PAGES] == [
        (name_of(page), []) for page in PAGES
    ]


def test_every_command_is_run_or_checked():
    """Pages outside IN_ORDER have no command that would have to be run in the prepared folder."""
    unknown = [(name_of(page), line) for page in PAGES for line in commands(page) if program_of(line) not in PROGRAMS]
    assert unknown == []
    assert {name_of(page) for page in PAGES if any(map(is_run, commands(page)))} - {"CONTRIBUTING.md"} == set(IN_ORDER)


# --- the prepared folder ----------------------------------------------------------------------------------------------


@dataclass
class Workplace:
    """A folder with what the pages take for granted, and what their commands have made there so far."""

    folder: Path
    ray_address: str
    ran: list[str] = field(default_factory=list)

    def follow(self, page: str) -> None:
        """Writes the files that a page gives and runs its commands, after those of the pages before it."""
        for earlier in IN_ORDER[: IN_ORDER.index(page) + 1]:
            if earlier not in self.ran:
                self.ran.append(earlier)
                for block in blocks(ROOT / earlier):
                    if block.file:
                        (self.folder / block.file).write_text(self.here(block.text))
                for command in dict.fromkeys(filter(is_run, commands(ROOT / earlier))):
                    self.run(command)

    def here(self, text: str) -> str:
        """The text with the names that mean something here."""
        for pattern, replacement in ELSEWHERE:
            text = re.sub(pattern, replacement.format(folder=self.folder), text, flags=re.MULTILINE)
        return text

    def run(self, command: str) -> str:
        """What the command prints. Fails unless it succeeds."""
        written, command = command, self.here(command.removeprefix("infra/dev run "))
        shorter = next((more for start, more in SHORTER if written.startswith(start)), "")
        words = shlex.split(f"{command} {shorter}")
        target = None
        if ">" in words:
            target, words = self.folder / words[words.index(">") + 1], words[: words.index(">")]
        plugins = [path.stem for path in self.folder.glob("*.py") if "(Labeler)" in path.read_text()]
        if any(plugin in command for plugin in plugins):  # Ray's workers import it, too
            code, printed = self._in_a_process(words)
        else:
            code, printed = self._here(words)
        assert code == 0, f"{written}\n{printed}"
        if target:
            target.write_text(printed)
        return printed

    def _here(self, words: Sequence[str]) -> tuple[int, str]:
        """In this process, which has all that is heavy loaded already, and without Ray."""
        import ray
        from tokenloom.pipeline import cli

        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", list(words))
            patch.setattr(ray, "shutdown", lambda: None)
            patch.setenv("COLUMNS", "200")
            with contextlib.redirect_stderr(printed), without_ray():
                try:
                    cli.main()
                    code = 0
                except SystemExit as end:
                    code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return code, printed.getvalue()

    def _in_a_process(self, words: Sequence[str]) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "tokenloom.pipeline.cli", *words[1:]],
            cwd=self.folder,
            env={**os.environ, "RAY_ADDRESS": self.ray_address, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def workplace(photos, captions, ray_session, tmp_path_factory) -> Workplace:
    import ray
    import torch

    folder = tmp_path_factory.mktemp("docs")
    (folder / "photos").mkdir()
    for name, photo in photos.items():
        (folder / "photos" / f"{name}.jpg").write_bytes(photo)
        (folder / "photos" / f"{name}.txt").write_text(captions[name])
    cut_off = photos["coffee"][:2000]
    (folder / "photos" / "broken.jpg").write_bytes(cut_off)
    (folder / "photo.jpg").write_bytes(photos["chelsea"])
    (folder / "bucket" / "cc12m").mkdir(parents=True)
    for shard, names in enumerate((("coffee", "chelsea"), ("rocket",))):
        with tarfile.open(folder / "bucket" / "cc12m" / f"{shard:05d}.tar", "w") as tar:
            for index, name in enumerate(names):
                for suffix, data in (("jpg", photos[name]), ("txt", captions[name].encode())):
                    member = tarfile.TarInfo(f"{1000 * shard + 123 + index:06d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    (folder / "bucket" / "c4").mkdir()
    texts = "".join(f"{json.dumps({'text': text})}\n" for text in captions.values())
    (folder / "bucket" / "c4" / "en.00000.json.gz").write_bytes(gzip.compress(texts.encode()))
    state = {"backbone.last_norm.weight": torch.ones(6), "smpl_head.init_cam": torch.ones(1, 3)}
    torch.save({"state_dict": state}, folder / "IN.ckpt")
    return Workplace(folder, ray.get_runtime_context().gcs_address)


# --- what is run ------------------------------------------------------------------------------------------------------


def test_readmes_commands_run_and_its_plugin_makes_tokens(workplace, captions):
    import tokenloom

    workplace.follow("README.md")
    keys = sorted(captions)
    assert (workplace.folder / "dataset-preview" / "index.html").is_file()
    dataset = tokenloom.open_dataset(str(workplace.folder / "sharp"))
    assert dataset.modalities["sharpness"].length == 4
    rows = [(row.key, row.values["sharpness"] is not None) for row in dataset.iterate(["sharpness"])]
    assert rows == sorted([(key, True) for key in keys] + [("broken", False)])


def test_the_commands_of_exports_run(workplace):
    workplace.follow("docs/exports.md")
    for folder in ("for-webdataset", "for-hf", "for-lm", "for-ml-4m", "ordered"):
        assert (workplace.folder / folder / "receipts/00000.json").is_file()


def test_the_commands_of_recipes_run(workplace):
    workplace.follow("docs/recipes.md")
    assert "corpus" in json.loads((workplace.folder / "recipe.schema.json").read_text())["properties"]
    listed = json.loads(workplace.run("tokenloom quarantine dataset/ --json"))
    assert set(re.findall(r'"key": "([^"]+)"', json.dumps(listed))) == {"broken"}


def test_the_commands_of_labelers_run(workplace):
    workplace.follow("docs/labelers.md")
    assert (workplace.folder / "OUT.safetensors").is_file()
    assert (workplace.folder / "test_brightness.py").is_file()


def test_the_commands_of_tokenizers_run(workplace):
    workplace.follow("docs/tokenizers.md")
    for place in ("bucket/tokenizers/edges", "ORG/NAME"):
        assert (workplace.folder / place / "model.safetensors").is_file()


def test_the_code_of_the_dataset_runs(workplace, monkeypatch):
    workplace.follow("docs/dataset.md")
    monkeypatch.chdir(workplace.folder)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", workplace.folder / "cache")
    namespace: dict = {}
    for block in blocks(ROOT / "docs/dataset.md"):
        assert block.language in ("sh", "python")
        if block.language == "python":
            exec(compile(workplace.here(block.text), "docs/dataset.md", "exec"), namespace)
    dataset = namespace["dataset"]
    assert len(namespace["row"].values["rgb"]) == dataset.modalities["rgb"].length
    assert dataset["000123"].values["dinov2"] is not None
    assert len(list(dataset.torch())) == 3


def test_the_commands_and_the_code_of_training_run(workplace, monkeypatch):
    workplace.follow("docs/training.md")
    monkeypatch.chdir(workplace.folder)
    code = "".join((workplace.folder / name).read_text() for name in ("train.py", "model.py"))
    exec(compile(code, "docs/training.md", "exec"), namespace := {})
    assert namespace["dataset"].state_dict()["position"] == 5 * 8


def test_python_is_run_where_it_stands():
    """Blocks of Python are files that commands name, or stand on the page whose code the test above runs."""
    loose = [name_of(page) for page in PAGES for b in blocks(page) if b.language == "python" and not b.file]
    assert set(loose) == {"docs/dataset.md"}


def test_parts_of_recipes_can_be_planned(workplace):
    """YAML that isn't a file of its own becomes one, with a corpus, an output and the modalities that it speaks of."""
    import yaml
    from tokenloom.pipeline.plan.recipe import Recipe

    found = [(page, block) for page in PAGES for block in blocks(page) if block.language == "yaml"]
    parts = [(page, block) for page, block in found if not (block.file or "").endswith(".yaml")]
    assert len(parts) >= 2
    workplace.follow("docs/tokenizers.md")  # where the tokenizer comes from that stands for one on the hub
    for page, block in parts:
        recipe = yaml.safe_load(workplace.here(block.text))
        if "storage_options" in recipe:  # of storage that isn't here
            Recipe.model_validate(yaml.safe_load(block.text))
            continue
        recipe = {"corpus": "photos", "output": "planned", "modalities": ["rgb", "dinov2"], "weights": "tiny", **recipe}
        (workplace.folder / "part.yaml").write_text(yaml.safe_dump(recipe))
        planned = workplace.run("tokenloom plan ./part.yaml --calibrate 0")
        assert all(modality in planned for modality in recipe["modalities"]), (name_of(page), planned)


# --- what is checked --------------------------------------------------------------------------------------------------

_HELP = """
import contextlib, io, json, pathlib, runpy, sys
said, path = {}, sys.path[:]
for script in sys.argv[1:]:
    sys.argv, sys.path = [script, "--help"], [str(pathlib.Path(script).resolve().parent), *path]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        said[script] = "" if end.code else printed.getvalue()
    except Exception as error:
        said[script] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


@cache
def help_of_scripts() -> dict[str, str]:
    """What `python SCRIPT --help` prints, for every script that the pages name, all by one process."""
    words = [shlex.split(line) for page in PAGES for line in commands(page) if line.startswith("python ")]
    scripts = sorted({line[1] for line in words})
    assert [script for script in scripts if not (ROOT / script).is_file()] == []
    done = subprocess.run([sys.executable, "-c", _HELP, *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@cache
def help_of_dev() -> str:
    return subprocess.run([ROOT / "infra/dev", "help"], capture_output=True, text=True, check=True).stdout


def options(words: Sequence[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]


def lacking(command: str) -> list[str]:
    """What of a command that isn't run doesn't exist."""
    words = shlex.split(command.removeprefix("infra/dev run "))
    if words[0] == "python":
        said = help_of_scripts()[words[1]]
        return [option for option in options(words) if option not in said] if said.startswith("usage:") else [said]
    if words[0] == "tokenloom":
        return [option for option in options(words) if option not in help_of_tokenloom()[words[1]]]
    if words[0] == "infra/dev":
        return [word for word in [*words[1:2], *options(words)] if word not in help_of_dev()]
    if words[0] == "pytest":
        return [word for word in words[1:] if not (ROOT / word).exists()]
    assert words[:3] == ["pip", "install", "-e"], command
    extras = re.fullmatch(r"\.\[([\w,]+)\]", words[3])
    assert extras, command
    return [name for name in extras[1].split(",") if f"\n{name} = [" not in (ROOT / "pyproject.toml").read_text()]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_takes_long_is_there_with_its_options(page):
    found = {command: lacking(command) for command in commands(page) if not is_run(command)}
    assert {command: words for command, words in found.items() if words} == {}


def test_commands_of_contributing_exist():
    """Those of `tokenloom` are run by the page that they are explained on."""
    ran = {command for page in IN_ORDER for command in commands(ROOT / page)}
    here = {command for command in commands(ROOT / "CONTRIBUTING.md") if is_run(command)}
    assert here - ran == set()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_in_the_text_exist(page):
    everything = "\n".join([*help_of_scripts().values(), *help_of_tokenloom().values(), help_of_dev()])
    named = [word for span in spans(page) for word in options(span.split()) if word.startswith("--")]
    assert [option for option in named if not re.search(rf"(?<![\w-]){option}(?![\w-])", everything)] == []


# --- the pages themselves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", without_blocks(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_file(), target
        headings = re.findall(r"^#+ (.*)", linked.read_text(), re.MULTILINE) if linked.suffix == ".md" else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page):
    rooms = "labelers|tokenizers|pipeline|tests|infra|docs"
    paths = [span for span in spans(page) if re.fullmatch(rf"(?:{rooms})/[\w./-]*", span) and "NAME" not in span]
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "docs"], ids=name_of)
def test_a_page_begins_with_its_purpose_and_is_linked_from_readme(page):
    first = page.read_text().splitlines()[0]
    assert first.startswith("This page ")
    assert first.endswith(".")
    assert f"]({name_of(page)}" in (ROOT / "README.md").read_text()


def test_pictures_are_small_enough_to_be_cloned():
    pictures = [path for path in (ROOT / "docs").iterdir() if path.suffix != ".md"]
    assert [(path.name, path.stat().st_size) for path in pictures if path.stat().st_size > 300_000] == []
    assert pictures != []
