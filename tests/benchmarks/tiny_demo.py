"""Does a tiny any-to-any model learn on two cores? The recipe `tiny-demo`, on photographs and texts it hasn't seen.

    python tests/benchmarks/tiny_demo.py --output tiny [--quick] [--photographs F] [--threads 2] [--set train.steps=400]

Makes what is missing in the output, by the commands that it prints: the corpora (tiny_corpora.py, which fetches Debian
packages), their datasets (tiny-photographs.yaml, and the recipe `text`), each for training and with the same tokenizers
and vocabulary for what is held out. Then two models are trained: `model` by the recipe `tiny-demo`, and `texts-alone`,
the same network on the texts alone for as many steps, at the same learning rate, on as many texts of each step as the
first has on average. What is there is left as it is; a training that was interrupted goes on.

Each checkpoint is measured on what is held out as by `tokenloom evaluate`: the loss of each modality in nats a token,
with tokens of the other modalities given and without. Of a model that knows nothing but how often each token comes
there are three figures: what one gets that has counted the training's tokens (`unigram_against`); the entropy of the
tokens of both parts together (`entropy`); and that of the very tokens that are to be said (`unigram`). The last no such
model gets where they are few: it would have to be told them.

--quick trains a fortieth of the steps, and measures some samples. The last line is a JSON object: by modality the
figures of the last checkpoint, with `entropy`; `texts_alone`: the loss of texts of the other model; seconds and
cpu_seconds of the trainings in this process; `ratio`: of all modalities the smallest of entropy by loss, above 1 where
all are beaten; `strict_ratio`: likewise of unigram. `curves.svg` in the output shows both over the steps. At last the
model says, by `tokenloom generate`, what it makes of a held-out photograph, and of its caption: `from-photograph` and
`from-caption` in the output are the pages.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from learning_curves import Line, Panel, Style, smoothed, svg
from real_photographs import photographs
from tiny_corpora import write_corpora
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.data.recipe import TrainingRecipe, load_training_recipe
from tokenloom.training.evaluation.evaluate import losses, unigrams
from tokenloom.training.evaluation.losses import ModalityLoss, entropy
from tokenloom.training.evaluation.opened import fitted
from tokenloom.training.fit.checkpoints import Checkpoints
from tokenloom.training.fit.figures import Figures
from tokenloom.training.fit.network import config_from
from tokenloom.training.fit.trainer import WEIGHTS, Place
from tokenloom.training.fit.training import train
from tokenloom.training.model.fourm import FourM
from tokenloom.training.model.start import initialise

TRAINED = ("rgb", "canny_edge", "dinov2")
"""Modalities whose tokenizers have a network, which the held-out dataset takes from the other."""

INPUT_TOKENS = 64
"""Of other modalities, that a held-out sample shows: with its own no more than the recipe's samples do at most."""

QUICK_SAMPLES, QUICK_STEPS = 8, 20
_SAID = "canny_edge,dinov2,color_palette,metadata,caption"
_POINTS = 100
_TEXT = "text"

_TRAINING = Style("#bbb", 1.0)
_GIVEN, _ALONE = Style("#1f6fb4", 2), Style("#d1602f", 1.5, "5 3")
_UNIGRAM, _ENTROPY, _OTHER = Style("#555", 1, "2 2"), Style("#999", 1, "8 3"), Style("#3a9a4a", 1.5)


@dataclass(frozen=True)
class Trained:
    """One training. held_out: by step, what was found of each modality."""

    output: Path
    seconds: float
    cpu_seconds: float
    held_out: Mapping[int, Mapping[str, ModalityLoss]]

    @property
    def last(self) -> Mapping[str, ModalityLoss]:
        return self.held_out[max(self.held_out)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("tiny"), help="folder for all of it (tiny)")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--photographs", type=Path, help="where real_photographs.py has written them")
    parser.add_argument("--threads", type=int, default=2, help="of torch; 1 on cores that have other work")
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="of tiny-demo"
    )
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    print(write_corpora(options.output, options.photographs))
    make_datasets(options.output)
    overrides = [*options.overrides, *([f"train.steps={QUICK_STEPS}", "train.every=10"] if options.quick else [])]
    found = benchmark(options.output, overrides, QUICK_SAMPLES if options.quick else None)
    show_samples(options.output)
    print(json.dumps(found))


def make_datasets(folder: Path) -> None:
    """Those of photographs and texts, to learn from and held out, by commands."""
    recipe, words = Path(__file__).with_name("tiny-photographs.yaml"), f"vocabulary={folder / 'words.json'}"
    pictures = ["run", str(recipe), "--set", words, "--set", f"modalities.dinov2.weights={folder / 'dinov2-small'}"]
    tokenloom(*pictures, "--corpus", folder / "photographs/train", "--output", folder / "dataset")
    taken: list[str] = []
    for name in TRAINED:
        tokenizer = folder / "tokenizers" / name
        if not tokenizer.is_dir():
            tokenloom("tokenizer", "push", folder / "dataset" / name, tokenizer)
        taken += ["--set", f"modalities.{name}.tokenizer={{weights: {tokenizer}}}"]
    tokenloom(*pictures, *taken, "--corpus", folder / "photographs/held-out", "--output", folder / "held-out")
    for part, dataset in (("train", "texts-dataset"), ("held-out", "texts-held-out")):
        corpus = folder / "texts" / f"{part}.jsonl"
        tokenloom("run", "text", "--set", words, "--corpus", corpus, "--output", folder / dataset)


def show_samples(folder: Path) -> None:
    """What the model makes of a held-out photograph, and of a caption, three times each."""
    photograph = photographs(folder / "photographs/held-out")[0]
    caption = f"caption={photograph.with_suffix('.txt').read_text().strip()}"
    told = "generate", folder / "model", "--n", "3", "--overwrite"
    tokenloom(*told, "--from", photograph, "-o", folder / "from-photograph", "--to", _SAID)
    tokenloom(*told, "--from", caption, "-o", folder / "from-caption", "--to", f"rgb,{_SAID.replace(',caption', '')}")


def tokenloom(*command: str | Path) -> None:
    words = [str(Path(sys.executable).with_name("tokenloom")), *map(str, command)]
    print(shlex.join(["tokenloom", *words[1:]]), flush=True)
    if subprocess.run(words, check=False).returncode:
        raise SystemExit(f"it failed: {shlex.join(words)}")


def benchmark(folder: Path, overrides: Sequence[str], limit: int | None) -> dict[str, Any]:
    """overrides: of the recipe. limit: samples of each held-out dataset that are looked at."""
    urls = [f"data.datasets.{name}.url={folder / place}" for name, place in _DATASETS.items()]
    recipe = load_training_recipe("tiny-demo", [*urls, f"train.output={folder / 'model'}", *overrides])
    both = trained(recipe, folder, limit)
    alone = trained(texts_alone(recipe, folder), folder, limit)
    of_all = entropies(both, folder)
    (folder / "curves.svg").write_text(svg(list(panels(both, alone, of_all)), "steps; nats a token"))
    return {
        "ratio": round(min(of_all[name] / one.given.loss for name, one in both.last.items()), 3),
        "strict_ratio": round(min(one.unigram / one.given.loss for one in both.last.values()), 3),
        "modalities": {name: {**asdict(one), "entropy": of_all[name]} for name, one in both.last.items()},
        "texts_alone": alone.last[_TEXT].given.loss,
        "steps": max(both.held_out),
        "seconds": [round(both.seconds), round(alone.seconds)],
        "cpu_seconds": [round(both.cpu_seconds), round(alone.cpu_seconds)],
    }


_DATASETS = {"photographs": "dataset", "texts": "texts-dataset"}
_HELD_OUT = {"photographs": "held-out", "texts": "texts-held-out"}


def texts_alone(recipe: TrainingRecipe, folder: Path) -> TrainingRecipe:
    """The same network on the texts alone, with as many texts a step as the recipe has on average."""
    datasets, settings = recipe.data.datasets, recipe.train
    assert settings is not None
    share = datasets["texts"].weight / sum(one.weight for one in datasets.values())
    data = recipe.data.model_copy(
        update={"datasets": {"texts": datasets["texts"]}, "batch_size": round(recipe.data.batch_size * share)}
    )
    told = {"output": str(folder / "texts-alone"), "base_learning_rate": settings.base_learning_rate / share}
    return recipe.model_copy(update={"data": data, "train": settings.model_copy(update=told)})


def trained(recipe: TrainingRecipe, folder: Path, limit: int | None) -> Trained:
    assert recipe.train is not None
    output = Path(recipe.train.output)
    print(f"training {output}", flush=True)
    began, cpu_began = time.perf_counter(), time.process_time()
    train(recipe, Place(), _tell)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    print(f"{seconds:,.0f} s, {cpu_seconds:,.0f} s of CPU", flush=True)
    found = {
        step: {
            modality: one
            for name in recipe.data.datasets
            for modality, one in measured(network, folder / _HELD_OUT[name], folder / _DATASETS[name], limit).items()
        }
        for step, network in networks(output)
    }
    return Trained(output, seconds, cpu_seconds, found)


def _tell(news: str | Figures) -> None:
    if isinstance(news, str):
        print(news, flush=True)
    elif news.step % 20 == 0:
        losses = ", ".join(f"{name} {loss:.2f}" for name, loss in news.losses.items() if loss is not None)
        print(f"  step {news.step}: loss {news.loss:.3f}: {losses}", flush=True)


def networks(output: Path) -> Iterator[tuple[int, FourM]]:
    """Those that a training has saved, oldest first, with their steps."""
    saved = Checkpoints(Store(output), 1)
    for step in sorted(int(path.parent.name) for path in output.glob("checkpoints/*/index.json")):
        network = initialise(FourM.empty(config_from(saved.meta(step)["model"])))
        saved.load(step, {f"{WEIGHTS}{name}": one for name, one in network.named_parameters()}, WEIGHTS)
        yield step, network.eval()


def measured(network: FourM, held_out: Path, learnt: Path, limit: int | None) -> dict[str, ModalityLoss]:
    """On a held-out dataset. learnt: the one whose tokens a unigram model has counted."""
    opened, counted = (fitted("the model", network, str(url)) for url in (held_out, learnt))
    found = losses(opened, INPUT_TOKENS, limit, counted, lambda what, done, total: None)
    return {name: one for name, one in found.items() if one is not None}


def entropies(both: Trained, folder: Path) -> dict[str, float]:
    """Of each modality, of the tokens of both parts together that are to be said, nats a token."""
    counts: dict[str, np.ndarray] = {}
    *_, (_, network) = networks(both.output)
    for place in (*_DATASETS.values(), *_HELD_OUT.values()):
        opened = fitted("the model", network, str(folder / place))
        for name, one in unigrams(opened, INPUT_TOKENS, lambda what, done, total: None).items():
            counts[name] = counts.get(name, 0) + one
    return {name: entropy(one) for name, one in counts.items()}


def panels(both: Trained, alone: Trained, of_all: Mapping[str, float]) -> Iterator[Panel]:
    """One for each modality. of_all: entropies of all its tokens."""
    longest = float(max(both.held_out))
    for name, last in both.last.items():
        own = {step: found[name] for step, found in both.held_out.items()}
        lines = [
            Line("training", smoothed(logged(both.output, name), _POINTS), _TRAINING),
            Line("held out", [(step, one.given.loss) for step, one in own.items()], _GIVEN),
            Line("entropy of these tokens", [(0, last.unigram), (longest, last.unigram)], _UNIGRAM),
            Line("of all tokens", [(0, of_all[name]), (longest, of_all[name])], _ENTROPY),
        ]
        if name == _TEXT:
            others = [(step, found[name].given.loss) for step, found in alone.held_out.items()]
            lines.append(Line("trained on texts alone", others, _OTHER))
        else:
            shown = [(step, one.alone.loss) for step, one in own.items()]
            lines.append(Line("without other modalities", shown, _ALONE))
        yield Panel(name, lines)


def logged(output: Path, name: str) -> list[tuple[float, float]]:
    """Losses of a modality by step, as the training has written them."""
    lines = [json.loads(line) for path in sorted(output.glob("metrics/*.jsonl")) for line in path.open()]
    return [(line["step"], line["losses"][name]) for line in lines if line["losses"].get(name) is not None]


if __name__ == "__main__":
    main()
