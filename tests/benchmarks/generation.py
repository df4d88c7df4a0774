"""How fast texts are said, and whether what is said within a grammar parses.

    python tests/benchmarks/generation.py [--quick] [--draws 1000]

Two halves, both with models whose weights nothing has trained.

- Tokens a second of `training/generation`, which keeps keys and values of what was said, against the same network that
  decodes all of a text again for each token. Captions of 256 tokens, of four pictures of 196 tokens each, by the sizes
  tiny and small; both say the same tokens. Seconds are those of the processor, on one thread, the better of two rounds
  in turn.
- Draws of each structured modality, of nothing, at the temperature 1: how many parse without a fault, said within the
  grammar of their tokenizer (`constrained`) and freely (`free`).

The last line is a JSON object: by size the tokens a second and `ratio`, by modality how many of the draws parse; the
`ratio` of all is that of tiny.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenloom.training.fit.open_model import open_model
from tokenloom.training.forms.forms import Form
from tokenloom.training.generation.chain import Target, generate
from tokenloom.training.generation.draws import SeededDraws
from tokenloom.training.generation.passes import Guidance, Passes
from tokenloom.training.generation.sampling import probabilities
from tokenloom.training.generation.seen import seen
from tokenloom.training.generation.state import Known, State, TextIds
from tokenloom.training.generation.texts import text_steps
from tokenloom.training.model.config import ModalityConfig, ModelConfig
from tokenloom.training.model.fourm import FourM
from tokenloom.training.model.start import initialise
from tokenloom.training.model.tokens import Tokens

sys.path.insert(0, str(Path(__file__).parent.parent / "helpers"))
from small_models import TEXTS, pictured, untrained

SAMPLES, SIDE, CODES, WORDS = 4, 14, 1024, 4096
GAPS = TextIds(range(4, 204))
BATCH = 50
"""Draws that are said at once."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="texts of 64 tokens by tiny alone, and 50 draws")
    parser.add_argument("--draws", type=int, default=1000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        speeds = {
            size: speed(size, 64 if given.quick else 256) for size in ("tiny", "small")[: 1 if given.quick else 2]
        }
        parsed = draws(50 if given.quick else given.draws)
    print(json.dumps({"speed": speeds, "draws": parsed, "ratio": speeds["tiny"]["ratio"]}))


def speed(size: str, length: int) -> dict[str, float]:
    modalities = (
        ModalityConfig("rgb", "grid", SIDE**2, CODES, grid=(SIDE, SIDE)),
        ModalityConfig("caption", "text", length, WORDS),
    )
    torch.manual_seed(0)
    model = initialise(FourM(ModelConfig.of_size(size, modalities))).eval()
    pictures = torch.randint(CODES, (SAMPLES, SIDE**2)).numpy()
    state = seen(model.config, [{"rgb": one} for one in pictures])
    state = state.having("caption", Known.texts([[GAPS.start]] * SAMPLES))
    ways = {"kept": lambda: kept(model, state, length), "again": lambda: again(model, state, length)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(2):
        said = {name: timed(way, seconds[name]) for name, way in ways.items()}
        assert torch.equal(said["kept"], said["again"])
    rates = {name: SAMPLES * length / min(one) for name, one in seconds.items()}
    told = {f"{name}_tokens_per_s": round(rate, 1) for name, rate in rates.items()}
    told["ratio"] = round(rates["kept"] / rates["again"], 2)
    print(f"{size}: {told}", flush=True)
    return told


def kept(model: FourM, state: State, length: int) -> torch.Tensor:
    steps = text_steps(model, Guidance(state), "caption", [GAPS.start] * SAMPLES, SeededDraws(0, SAMPLES))
    return torch.stack([next(steps).ids for _ in range(length)], dim=1)


def again(model: FourM, state: State, length: int) -> torch.Tensor:
    """int64 (n, length), as `kept`; all of what was said goes through the decoder for each token."""
    modality, draws = model.config.names.index("caption"), SeededDraws(0, SAMPLES)
    passes = Passes(model, Guidance(state))
    ids = torch.full((SAMPLES, 1), GAPS.start)
    for position in range(length):
        places = torch.arange(position + 1).expand(SAMPLES, -1)
        prefix = Tokens.of(model.config, ids, places, torch.full_like(ids, modality))
        chances = probabilities(passes.logits(prefix, modality)[:, -1:], 1.0)
        said = draws.tokens("caption", position, chances, torch.full((SAMPLES, 1), position))
        ids = torch.cat([ids, said], dim=1)
    return ids[:, 1:]


def timed(way: Callable[[], torch.Tensor], seconds: list[float]) -> torch.Tensor:
    began = time.process_time()
    said = way()
    seconds.append(time.process_time() - began)
    return said


def draws(count: int) -> dict[str, dict[str, int]]:
    """By modality how many texts were drawn, and how many of them parse."""
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        model, forms = open_model(str(untrained(pictured(Path(folder)), Path(folder, "run"))))
        found = {}
        for name in TEXTS:
            form = forms.target(name)
            found[name] = {"draws": count, "constrained": parsed(model, form, count, sentence=form.sentence)}
            found[name]["free"] = parsed(model, form, count)
            print(f"{name}: {found[name]}", flush=True)
    return found


def parsed(model: FourM, form: Form, count: int, **how: Any) -> int:
    target, good = Target(form.name, most=form.modality.length, **how), 0
    for at in range(0, count, BATCH):
        numbers = range(at, min(at + BATCH, count))
        draws = SeededDraws(0, len(numbers), numbers)
        made = generate(model, State(len(numbers), {}), [target], GAPS, draws)
        good += sum(not one.problem for one in form.decode(made.known[form.name].rows))
    return good


if __name__ == "__main__":
    main()
