"""What the commands around labelers do and print: labelers, new-labeler, label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from ...labelers.contract.codecs import to_png
from ...labelers.contract.images import BadImage, decode_view, read_header
from ...labelers.contract.views import ViewSettings, cut_view
from ...labelers.people.hmr2_converter import convert
from ...labelers.plugins.registry import describe_labelers, find_labeler
from ...labelers.plugins.scaffold import skeleton
from ..corpus.samples import Sample
from ..engine.trial import Labels, label_in_process
from ..plan.recipe import Recipe, RecipeError, parse_recipe
from .console import plain_console


def list_labelers(as_json: bool) -> None:
    rows = describe_labelers()
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    console = plain_console()
    made = _table("modality", "kind", "labeler", "looks at", "needs")
    weights = _table("labeler", "default weights", "licence of the code", "of the weights", "memory", "autocast")
    params = _table("labeler", "parameters")
    for row in rows:
        needs = ", ".join((*row.requires, *(f"[{name}]" for name in row.wants)))
        for name, kind in row.modalities:
            made.add_row(name, kind, row.reference, row.on, needs or "-")
        if row.problem:
            continue
        memory = f"{row.memory / 2**30:.1f} GiB"
        licence = row.weights_licence or "-"
        weights.add_row(row.reference, row.weights or "-", row.licence, licence, memory, row.autocast or "-")
        if row.params:
            params.add_row(row.reference, ", ".join(f"{name}={value}" for name, value in row.params.items()))
    console.print(made)
    console.print("needs in [brackets] are used where the recipe has them\n", style="dim")
    console.print(weights)
    console.print("memory is that of one copy at batch size 1; autocast is used on GPUs\n", style="dim")
    console.print(params)
    for row in rows:
        if row.problem:
            console.print(f"{row.reference} can't be used: {row.problem}")


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def new_labeler(name: str, folder: Path) -> None:
    """Writes the skeleton; refuses to overwrite."""
    files = skeleton(name)
    for file in files:
        if (folder / file).exists():
            raise RecipeError(f"{folder / file} exists already; choose another name or folder")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text)
        print(folder / file)
    module = next(iter(files)).removesuffix(".py")
    print(f"next: tokenloom check-labeler {module}:{_class_in(files)}   (in {folder})")


def convert_hmr2(source: Path, target: Path) -> None:
    count = convert(source, target)
    print(f"{count} tensors, {target.stat().st_size / 2**20:,.1f} MiB -> {target}")


def label(
    images: Sequence[Path],
    modalities: Sequence[str],
    weights: Mapping[str, str],
    accepted: Sequence[str],
    folder: Path,
) -> None:
    """Labels the files, draws each label into `folder`, and prints where, or the label itself where it is text.

    accepted: non-commercial licences of weights that the user accepts.
    """
    recipe = _recipe(modalities, weights, accepted)
    samples = [_sample(path, key) for path, key in _keys(images).items()]
    trial = label_in_process(recipe, samples)
    folder.mkdir(parents=True, exist_ok=True)
    for index, sample in enumerate(samples):
        print(sample.key)
        picture = _view(sample, recipe)
        for name in modalities:
            target = folder / f"{sample.key}.{name}.png"
            print(f"  {name:<18} {_shown(trial.labels[name], index, sample, picture, target)}")


def _recipe(modalities: Sequence[str], weights: Mapping[str, str], accepted: Sequence[str]) -> Recipe:
    """A recipe of the modalities and of all that they need."""
    wanted, waiting = {}, list(modalities)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted[name] = {"keep": "labels", "weights": weights.get(name)}
            waiting += find_labeler(name).requires
    unused = sorted(set(weights) - set(wanted))
    if unused:
        raise RecipeError(f"--weights {unused[0]}=...: {unused[0]} is neither asked for nor needed")
    return parse_recipe(
        {"corpus": ".", "output": "memory://label", "modalities": wanted, "accept_license": list(accepted)}
    )


def _keys(images: Sequence[Path]) -> dict[Path, str]:
    """A name for each file, by which its pictures are called: its own without the ending, and where several have that,
    all of its path."""
    stems = Counter(path.stem for path in set(images))
    return {path: path.stem if stems[path.stem] == 1 else "_".join(path.parts).strip("/_") for path in images}


def _sample(path: Path, key: str) -> Sample:
    caption = path.with_suffix(".txt")
    try:
        fields = {"caption": caption.read_text("utf-8").strip()} if caption.is_file() else {}
    except UnicodeDecodeError:
        print(f"{caption} isn't UTF-8: {path.name} goes without")
        fields = {}
    return Sample(key, path.read_bytes(), fields)


def _view(sample: Sample, recipe: Recipe) -> np.ndarray:
    settings = ViewSettings(**recipe.views.model_dump())
    try:
        header = read_header(sample.image or b"")
        return decode_view(sample.image or b"", cut_view(0, sample.key, 0, header.height, header.width, settings))
    except BadImage:
        return np.zeros((settings.size, settings.size, 3), np.uint8)


def _shown(labels: Labels, index: int, sample: Sample, picture: np.ndarray, target: Path) -> str:
    """The label as text, or the path of its picture."""
    for failure in labels.failures:
        if failure.key == sample.key:
            return f"failed: {failure.reason}"
    value = labels.labels[index]
    if value is None:
        return "none"
    if labels.kind.spatial:
        header, settings = read_header(sample.image or b""), ViewSettings(size=picture.shape[0])
        view = cut_view(0, sample.key, 0, header.height, header.width, settings)
        value = labels.kind.seen_by(view, value, labels.on)
    shown = labels.kind.show(value, picture)
    if isinstance(shown, np.ndarray):
        target.write_bytes(to_png(shown))
        return str(target)
    return shown if isinstance(shown, str) else ", ".join(f"{name} {text}" for name, text in shown.items())


def _class_in(files: Mapping[str, str]) -> str:
    text = next(iter(files.values()))
    return text.split("class ", 1)[1].split("(", 1)[0]
