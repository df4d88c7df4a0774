"""How fast images become tokens, against the encoder's bare forward pass.

    python tests/benchmarks/encoding.py [--quick] [--encoder vit_b_enc] [--size 224] [--codes 16384] [--device cpu]
                                        [--rounds 7]

The encoder's pass is timed on float32 input that lies ready on the device, at several batch sizes; the fastest counts.
Then VQTokenizer.encode is timed on as many uint8 images: checking, copying, normalising, encoder, projection, search
for the nearest code, and ids as numpy arrays. Both take turns, and of each the fastest round counts, since whatever
else the machine does can only slow a round down; without a GPU the seconds are of CPU time, on one thread, for the same
reason. Weights are random: the time doesn't depend on them.

The last line is a JSON object: images_per_second of both, the best batch, and `ratio`, of encode to the bare encoder.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from tokenloom.labelers.contract.kinds import Image
from tokenloom.tokenizers.vq.vq import VQParams, VQTokenizer

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
QUICK = {"encoder": "vit_s_enc", "size": 112, "codes": 4096, "rounds": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"as {QUICK}")
    parser.add_argument("--encoder", default="vit_b_enc")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--codes", type=int, default=16384)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--largest-batch", type=int, default=None, help="16 on CPUs, else 256")
    arguments = parser.parse_args()
    if arguments.quick:
        parser.set_defaults(**QUICK)
        arguments = parser.parse_args()

    tokenizer = made(arguments.encoder, arguments.size, arguments.codes, arguments.device)
    largest = arguments.largest_batch or (16 if arguments.device == "cpu" else 256)
    bare = {batch: seconds_of(bare_pass(tokenizer, batch), 3) / batch for batch in BATCHES if batch <= largest}
    for batch, seconds in bare.items():
        print(f"encoder alone, batch {batch:3d}: {1 / seconds:8.2f} images/s")
    best = min(bare, key=lambda batch: bare[batch])

    images = list(random_images(best, arguments.size))
    passes = {"encoder": bare_pass(tokenizer, best), "encode": lambda: tokenizer.encode(images)}
    fastest = dict.fromkeys(passes, float("inf"))
    for _ in range(arguments.rounds):
        for name, run in passes.items():
            fastest[name] = min(fastest[name], seconds_of(run, 1))
    rates = {name: best / seconds for name, seconds in fastest.items()}
    print(f"batch {best}: encoder alone {rates['encoder']:.2f}, encode {rates['encode']:.2f} images/s")
    figures = {
        "encoder": arguments.encoder,
        "size": arguments.size,
        "codes": arguments.codes,
        "device": arguments.device,
        "batch": best,
        "images_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "ratio": round(rates["encode"] / rates["encoder"], 4),
    }
    print(json.dumps(figures))


def made(encoder: str, size: int, codes: int, device: str) -> VQTokenizer:
    """A tokenizer of RGB images with random weights."""
    params = VQParams.model_validate({"encoder": encoder, "decoder": "vit_xt_dec", "codes": codes})
    tokenizer = VQTokenizer(Image(), params)
    tokenizer.finish(tokenizer.design(random_images(4, size), seed=0), {})
    tokenizer.use_device(device)
    return tokenizer


def random_images(number: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, size, size, 3), dtype=np.uint8)


def bare_pass(tokenizer: VQTokenizer, batch: int) -> Callable[[], object]:
    x = tokenizer.to_batch(random_images(batch, tokenizer.contract.height))
    encoder = tokenizer.network.encoder

    @torch.inference_mode()
    def run() -> object:
        return encoder(x)

    return run


def seconds_of(run: Callable[[], object], times: int) -> float:
    """The fastest of so many runs."""
    on_gpu = torch.cuda.is_available()
    clock = time.perf_counter if on_gpu else time.process_time
    fastest = float("inf")
    for _ in range(times):
        began = clock()
        run()
        if on_gpu:
            torch.cuda.synchronize()
        fastest = min(fastest, clock() - began)
    return fastest


if __name__ == "__main__":
    main()
