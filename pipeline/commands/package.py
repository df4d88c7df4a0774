"""What is sent to a cluster for a command to be done to a recipe there: the recipe, its plugins, and words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from ...labelers.plugins.origin import Origin
from ..cluster.package import Package
from ..plan.origins import OWN, origins
from ..plan.recipe import Recipe, load_recipe, recipe_file
from ..plan.recipe_file import read_recipe
from ..plan.secrets import refuse_secret_url, refuse_secrets
from ..plan.weights import absolute_source
from ..storage.store import absolute_url, redact
from .console import counted

LOST = 75
"""The exit code where what runs there was lost sight of: EX_TEMPFAIL of sysexits.h."""


def package_of(
    command: str,
    name: str,
    overrides: Sequence[str],
    corpus: Sequence[str],
    output: str | None,
    more: Sequence[str] = (),
) -> Package:
    """For the command to be done to the recipe; tells what goes along, and what the cluster has to have. more: options
    of the command. Raises RecipeError, for credentials too, and SendError."""
    recipe, file = load_recipe(name, overrides, corpus, output), recipe_file(name)
    refuse_secrets(recipe, read_recipe(file, Recipe)[0])
    here = Path.cwd()
    named = list(origins(recipe, here))
    local = dict(_local(recipe))
    words = [command, f"./{file.name}", *(word for override in overrides for word in ("--set", override))]
    words += [word for url in corpus for word in ("--corpus", url)] if "corpus" not in local else []
    words += ["--output", output] if output and "output" not in local else []
    for key, paths in local.items():
        words += _override(key, paths)
    files = {str(path.relative_to(here)): path for origin in named for path in origin.files}
    needs = {origin.distribution: origin.version for origin in named if origin.distribution}
    package = Package({**files, file.name: file}, {OWN: version(OWN), **needs}, [*words, *more])
    package.check_size()
    for line in _told(named, local, here):
        print(line, flush=True)
    return package


def run_options(
    replacing: Sequence[str],
    take_changes: bool,
    limit: int | None = None,
    report: str | None = None,
    dry_run: bool = False,
) -> list[str]:
    """Of `tokenloom run`. report: a path of the machine that does it, which is told, or a URL. RecipeError for a
    credential in it."""
    options = [word for modality in replacing for word in ("--replace", modality)]
    options += ["--take-changes"] if take_changes else []
    options += ["--limit", str(limit)] if limit is not None else []
    options += ["--dry-run"] if dry_run else []
    if report is not None:
        refuse_secret_url("--report", report)
        options += ["--report", url := absolute_url(report)]
        if not _is_elsewhere(url):
            print(
                f"report: {url}: a path, on the disk of the cluster's head; for one to read here name a URL", flush=True
            )
    return options


def _local(recipe: Recipe) -> Iterator[tuple[str, list[str]]]:
    """The keys that name paths, and these made absolute: a job has another working directory."""
    urls = [recipe.corpus.url] if isinstance(recipe.corpus.url, str) else recipe.corpus.url
    if not all(map(_is_elsewhere, urls)):
        yield "corpus", [url if _is_elsewhere(url) else absolute_url(url) for url in urls]
    if not _is_elsewhere(recipe.output):
        yield "output", [recipe.output]
    named = {"vocabulary": recipe.vocabulary}
    for name, settings in recipe.modalities.items():
        named[f"modalities.{name}.weights"] = settings.weights
        if tokenizer := settings.tokenizer:
            named[f"modalities.{name}.tokenizer.weights"] = tokenizer.weights
            perceptual = tokenizer.fit.perceptual if tokenizer.fit else None
            named[f"modalities.{name}.tokenizer.fit.perceptual.weights"] = perceptual.weights if perceptual else None
    for key, source in named.items():
        if source and (absolute := absolute_source(source)).startswith("/"):
            yield key, [absolute]


def _is_elsewhere(url: str) -> bool:
    return "://" in url and not url.startswith(("file://", "local://"))


def _override(key: str, paths: Sequence[str]) -> list[str]:
    if key == "corpus":
        return [word for path in paths for word in ("--corpus", path)]
    return ["--output", *paths] if key == "output" else ["--set", f"{key}={json.dumps(paths[0])}"]


def _told(origins: Sequence[Origin], local: dict[str, list[str]], here: Path) -> Iterator[str]:
    """Whence the plugins come, and what the cluster has to see."""
    for origin in dict.fromkeys(origins):
        if origin.files:
            size = sum(path.stat().st_size for path in origin.files)
            names = ", ".join(str(path.relative_to(here)) for path in origin.files[:3])
            more = f" and {counted(len(origin.files) - 3, 'file')} more" if len(origin.files) > 3 else ""
            yield f"{origin.reference}: sent along from {here}: {names}{more}, {size:,} bytes"
        elif origin.distribution != OWN:
            yield f"{origin.reference}: of {origin.distribution} {origin.version}, which the cluster has to have"
    for key, paths in local.items():
        yield f"{key}: {', '.join(map(redact, paths))}: a path, which every machine of the cluster has to see"
