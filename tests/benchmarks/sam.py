"""Segment Anything's masks of whole photographs: tokenloom's generator against segment-anything's own.

    python tests/benchmarks/sam.py [--quick] [--demo] [--weights sam_vit_b_01ec64.pth]

Both run in this process, on one thread, with the same network and photographs (six of scikit-image and scikit-learn,
300 to 640 pixels a side; with --demo the demo's 22), for grids of 7 x 7 and 16 x 16 points. Every mask of the one must
be a mask of the other, at an IoU of 0.99 or more; else the benchmark fails.

The last line is a JSON object with CPU seconds of the image encoder, of the decoder (prompts, transformer, masks at a
quarter of the network's resolution) and of the rest, for both. `ratio` is the reference's rest by ours, and
`ratio_total` its decoder and rest by ours, both over all photographs and grids.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenloom.labelers.contract.instances import Mask
from tokenloom.labelers.networks.hub import package_path
from tokenloom.labelers.sam.decoder import Decoder
from tokenloom.labelers.sam.mask_generator import MaskGeneratorParams, generate_masks
from tokenloom.labelers.sam.models import SamMasks
from tokenloom.pipeline.commands.demo import CAPTIONS

GOLDEN = Path(__file__).resolve().parents[3] / "shared/golden/sam_amg/model.safetensors"
PHOTOGRAPHS = (
    "skimage/data/coffee.png",
    "skimage/data/astronaut.png",
    "skimage/data/chelsea.png",
    "skimage/data/rocket.jpg",
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
)
PARTS = ("encoder", "decoder", "rest")


class Meter:
    """CPU seconds of the parts of a generator."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """Has the time of `owner.name(...)` counted as `part`'s."""
        original = getattr(owner, name)

        def timed(*args: Any, **settings: Any) -> Any:
            began = time.thread_time()
            answer = original(*args, **settings)
            self.seconds[part] += time.thread_time() - began
            return answer

        setattr(owner, name, timed)

    def run(self, generate: Callable[[], list[Mask]]) -> tuple[list[Mask], dict[str, float]]:
        """What `generate` returns, and the seconds of its parts."""
        self.seconds.clear()
        began = time.process_time()
        masks = generate()
        self.seconds["rest"] = time.process_time() - began - sum(self.seconds.values())
        return masks, {part: self.seconds[part] for part in PARTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two photographs, 7 x 7 points")
    parser.add_argument("--demo", action="store_true", help="all photographs of the demo; takes an hour")
    parser.add_argument("--weights", type=Path, default=GOLDEN, help="a checkpoint of segment-anything")
    options = parser.parse_args()
    if not options.weights.is_file():
        raise SystemExit(f"there is no checkpoint {options.weights}; name one by --weights")
    torch.set_num_threads(1)
    photographs, grids = tuple(CAPTIONS) if options.demo else PHOTOGRAPHS, (7, 16)
    if options.quick:
        photographs, grids = photographs[:2], (7,)
    print(json.dumps(benchmark(options.weights, photographs, grids)))


def benchmark(weights: Path, photographs: Sequence[str], grids: Sequence[int]) -> dict[str, Any]:
    from segment_anything import SamAutomaticMaskGenerator

    model = SamMasks(str(weights), "cpu")
    meter = Meter()
    for owner, name, part in (
        (model.network.image_encoder, "forward", "encoder"),
        (model.network.prompt_encoder, "forward", "decoder"),
        (model.network.mask_decoder, "forward", "decoder"),
        (Decoder, "prepare", "decoder"),
        (Decoder, "look", "decoder"),
        (Decoder, "draw", "decoder"),
    ):
        meter.wrap(owner, name, part)
    images = {
        Path(path).stem: np.asarray(Image.open(package_path(f"package:{path}")).convert("RGB")) for path in photographs
    }
    spent: dict[tuple[int, str], dict[str, float]] = defaultdict(lambda: dict.fromkeys(PARTS, 0.0))
    masks_in_all = 0
    for grid in grids:
        params = MaskGeneratorParams.model_validate({**_thresholds(weights), "points_per_side": grid})
        reference = SamAutomaticMaskGenerator(model.network, output_mode="coco_rle", **params.model_dump())
        for name, image in images.items():
            expected, theirs = meter.run(lambda image=image, of=reference: by_reference(of, image))
            found, ours = meter.run(lambda image=image, params=params: by_tokenloom(model, image, params))
            _compare(found, expected, f"{name}, {grid} points a side")
            masks_in_all += len(found)
            for part in PARTS:
                spent[grid, "reference"][part] += theirs[part]
                spent[grid, "tokenloom"][part] += ours[part]
            _say(
                f"{name}, {grid} points a side: {len(found)} masks, reference {_show(theirs)}, tokenloom {_show(ours)}"
            )
    whole = {
        who: {part: sum(spent[grid, who][part] for grid in grids) for part in PARTS}
        for who in ("reference", "tokenloom")
    }
    return {
        "photographs": len(images),
        "masks": masks_in_all,
        **{
            f"points_per_side_{grid}": {
                "reference": _rounded(spent[grid, "reference"]),
                "tokenloom": _rounded(spent[grid, "tokenloom"]),
                **_ratios(spent[grid, "reference"], spent[grid, "tokenloom"]),
            }
            for grid in grids
        },
        **_ratios(whole["reference"], whole["tokenloom"]),
    }


def by_reference(generator: Any, image: np.ndarray) -> list[Mask]:
    found = generator.generate(image)
    return [Mask(image.shape[0], image.shape[1], one["segmentation"]["counts"]) for one in found]


def by_tokenloom(model: SamMasks, image: np.ndarray, params: MaskGeneratorParams) -> list[Mask]:
    with torch.inference_mode(), ThreadPoolExecutor(1) as writer:
        jobs = [writer.submit(drawn.encoded) for drawn in generate_masks(model, [image], params)]
        return jobs[0].result()


def _thresholds(weights: Path) -> dict[str, float]:
    """Those that the checkpoint's config.json states, for a network whose masks the usual ones would all reject."""
    config = weights.with_name("config.json")
    if not config.is_file():
        return {}
    stated = json.loads(config.read_text()).get("generator", {})
    return {name: stated[name] for name in ("pred_iou_thresh", "stability_score_thresh") if name in stated}


def _compare(found: Sequence[Mask], expected: Sequence[Mask], where: str) -> None:
    """Ends the benchmark unless each mask of either has one of the other at an IoU of 0.99."""
    if len(found) != len(expected):
        raise SystemExit(f"{where}: {len(found)} masks, and the reference has {len(expected)}")
    worst = min(best_ious(found, expected), default=1.0)
    if worst < 0.99:
        raise SystemExit(f"{where}: the masks least alike have an IoU of {worst:.4f}")


def best_ious(found: Sequence[Mask], expected: Sequence[Mask]) -> list[float]:
    """For each mask of either side, its IoU with the one that is most like it on the other."""
    from pycocotools import mask as coco

    def rles(masks: Sequence[Mask]) -> Any:
        return [{"size": [mask.height, mask.width], "counts": mask.counts.encode("ascii")} for mask in masks]

    if not found or not expected:
        return [0.0] * (len(found) + len(expected))
    ious = np.asarray(coco.iou(rles(found), rles(expected), [0] * len(expected)))
    return [float(iou) for iou in (*ious.max(axis=1), *ious.max(axis=0))]


def _ratios(reference: dict[str, float], tokenloom: dict[str, float]) -> dict[str, float]:
    return {
        "ratio": round(reference["rest"] / tokenloom["rest"], 2),
        "ratio_total": round(
            (reference["decoder"] + reference["rest"]) / (tokenloom["decoder"] + tokenloom["rest"]), 2
        ),
    }


def _rounded(parts: dict[str, float]) -> dict[str, float]:
    return {part: round(parts[part], 2) for part in PARTS}


def _show(parts: dict[str, float]) -> str:
    return " + ".join(f"{parts[part]:.2f}" for part in PARTS) + " s"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
