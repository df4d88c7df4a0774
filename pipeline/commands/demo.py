"""The demo: photographs that scikit-image and scikit-learn ship, through every labeler whose weights are at hand."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..cluster.session import stop_ray
from ..dataset.manifest import DatasetError
from ..engine.tally import Tally
from ..plan.plan import make_plan
from ..plan.recipe import load_recipe
from ..run import execute
from ..storage.store import Store
from .console import plain_console
from .demo_weights import MINILM, dinov2_small
from .progress import RunProgress, duration

CAPTIONS = {
    "skimage/data/astronaut.png": "An astronaut in an orange space suit smiles before a flag and a model of a shuttle.",
    "skimage/data/brick.png": "A wall of rough bricks in even rows, in black and white.",
    "skimage/data/camera.png": "A man in a dark coat looks through a camera on a tripod in a park.",
    "skimage/data/cell.png": "A single round cell under a microscope against a dark background.",
    "skimage/data/chelsea.png": "Close portrait of a tabby cat with green eyes and white whiskers.",
    "skimage/data/clock_motion.png": "A wall clock blurred by the motion of the camera.",
    "skimage/data/coffee.png": "A cup of espresso on a saucer with a spoon, on a wooden table.",
    "skimage/data/coins.png": "Rows of worn Greek coins from Pompeii on a grey ground.",
    "skimage/data/grass.png": "Blades of grass from close by, in black and white.",
    "skimage/data/gravel.png": "Small stones of a gravel path, in black and white.",
    "skimage/data/hubble_deep_field.jpg": "Thousands of galaxies in the deep field of the Hubble telescope.",
    "skimage/data/ihc.png": "Stained tissue under a microscope, blue nuclei among brown glands.",
    "skimage/data/microaneurysms.png": "Tiny dark spots on the retina of a diabetic patient.",
    "skimage/data/moon.png": "Craters and a dark plain on the surface of the moon.",
    "skimage/data/motorcycle_left.png": "A red motorcycle stands in a cluttered garage.",
    "skimage/data/motorcycle_right.png": "The motorcycle in the garage, seen a little further from the right.",
    "skimage/data/page.png": "A page of printed text, unevenly lit.",
    "skimage/data/retina.jpg": "The back of an eye: blood vessels spread from the bright optic disc.",
    "skimage/data/rocket.jpg": "A Falcon 9 rocket stands on its launch pad at dusk.",
    "skimage/data/text.png": "Mathematical handwriting and printed words on a sheet of paper.",
    "sklearn/datasets/images/china.jpg": "A Chinese temple with a curved roof behind trees.",
    "sklearn/datasets/images/flower.jpg": "A pink dahlia in full bloom before green leaves.",
}
"""By the photograph's file in its package."""


def demo(output: Path, storage: str | None) -> None:
    """Makes corpus and dataset below `storage`, a URL, weights and preview below `output`, verifies, and prints what
    there is to see. storage: `output` where it is None."""
    from ..checks.verify import verify
    from ..preview.preview import write_preview

    console = plain_console()
    began = time.monotonic()
    place = Store(storage or output)
    corpus, dataset, gallery = place.below("photos"), place.below("dataset"), output / "preview"
    write_corpus(corpus)
    recipe = load_recipe(
        "demo",
        [
            f"modalities.dinov2.weights={dinov2_small(output / 'weights' / 'dinov2-small')}",
            f"modalities.caption_embedding.weights={MINILM}",
        ],
        corpus=corpus.address,
        output=dataset.address,
    )
    plan = make_plan(recipe)
    with RunProgress(console, plan.bytes) as progress:
        tally = execute(plan, listener=progress)
    stop_ray()
    report = verify(dataset.address)
    if report.faults:
        raise DatasetError("\n".join(str(fault) for fault in report.faults))
    index = write_preview(dataset.address, gallery)
    _print_end(console, tally, dataset.url, index, time.monotonic() - began)


def write_corpus(folder: Store) -> None:
    """Copies the photographs, each with a caption beside it; what is there already stays."""
    for source, caption in CAPTIONS.items():
        path = _package_file(source)
        folder.create(path.name, path.read_bytes())
        folder.create(f"{path.stem}.txt", f"{caption}\n".encode())


def _package_file(name: str) -> Path:
    package, _, rest = name.partition("/")
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / rest if spec and spec.origin else None
    if path is None or not path.is_file():
        raise DatasetError(f"the demo needs {name}: install it with `pip install 'tokenloom[demo]'`")
    return path


def _print_end(console: Console, tally: Tally, dataset: str, index: Path, seconds: float) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("modality", "kind", "tokens", "vocabulary", "labels", "quarantined"):
        table.add_column(heading, justify="left" if heading in ("modality", "kind") else "right")
    for name, card in tally.cards.items():
        spec = card.tokens.spec if card.tokens else None
        tokens = f"{spec.length or f'<= {spec.max_length}'}" if spec else "-"
        vocabulary = f"{spec.vocabulary:,}" if spec else "-"
        failed = tally.failed.get(name, 0)
        table.add_row(name, card.kind["kind"], tokens, vocabulary, str(tally.rows.get(name, 0)), str(failed or "-"))
    if tally.units:
        console.print(table)
    console.print(
        f"\nverified, in {duration(seconds)}\n  dataset  {dataset}\n  preview  {index}\n"
        f"  next     tokenloom status {dataset}",
        soft_wrap=True,
    )
