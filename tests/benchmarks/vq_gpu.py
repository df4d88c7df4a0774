"""What the tokenizers' networks do on a GPU: encoding, decoding by diffusion and training, compiled or not.

    python tests/benchmarks/vq_gpu.py [--quick] [--device cuda] [--batch 64] [--steps 25] [--rounds 5]

The network is that of the published RGB tokenizer: ViT-B encoder, 16384 codes, UNet on 4x4 patches, 224 pixels; with
--quick tiny ones at 64 pixels, which run on a CPU too. All in bfloat16 by autocast, the quantiser in float32. Measured
with and without torch.compile: images/s of tokenising and of decoding in `steps` steps, seconds of a training step
(forward, backward, AdamW) at that batch size, and on GPUs the most memory it held. Compiling isn't counted. On a CPU
the graphs are only captured, since to generate code for them takes minutes; `ratio` says nothing there.

The last line is a JSON object with these figures; `ratio` is images/s of tokenising, compiled to not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from tokenloom.tokenizers.networks.vq_config import VQConfig
from tokenloom.tokenizers.networks.vq_network import VQ, build

FULL = VQConfig(dec_type="unet_patched", post_mlp=True)
TINY = VQConfig(enc_type="vit_xt_enc", dec_type="unet_xt", post_mlp=True, image_size=64, codebook_size=256)
QUICK = {"batch": 4, "steps": 2, "rounds": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"tiny networks, and {QUICK}")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.quick:
        parser.set_defaults(**QUICK)
        arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; --device cpu --quick runs tiny networks")

    config = TINY if arguments.quick else FULL
    name = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else arguments.device
    figures: dict[str, Any] = {"device": name, "batch": arguments.batch, "steps": arguments.steps}
    for mode in ("eager", "compiled"):
        torch.manual_seed(0)
        network = build(config).to(arguments.device)
        if mode == "compiled":
            backend = "inductor" if arguments.device.startswith("cuda") else "aot_eager"
            network.encoder.compile(backend=backend)
            network.get_submodule("decoder").compile(backend=backend)
        figures[mode] = measured(network, arguments)
        print(f"{mode}: {figures[mode]}")
    rates = [figures[mode]["tokenise_images_per_second"] for mode in ("compiled", "eager")]
    print(json.dumps({**figures, "ratio": round(rates[0] / rates[1], 3)}))


def measured(network: VQ, arguments: argparse.Namespace) -> dict[str, float | None]:
    size, channels = network.config.image_size, network.config.n_channels
    x = torch.rand(arguments.batch, channels, size, size, device=arguments.device)
    on_gpu = x.device.type == "cuda"

    def seconds(run: Callable[[], object]) -> float:
        with torch.autocast(x.device.type, torch.bfloat16):
            return fastest(run, arguments.rounds, on_gpu)

    network.eval()
    tokens = network.tokenize(x)
    tokenising = seconds(lambda: network.tokenize(x))
    decoding = seconds(lambda: network.decode_tokens(tokens, steps=arguments.steps))

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    optimiser = torch.optim.AdamW(parameter for parameter in network.parameters() if parameter.requires_grad)
    network.train()
    step = fastest(lambda: train_step(network, optimiser, x), arguments.rounds, on_gpu)
    return {
        "tokenise_images_per_second": round(arguments.batch / tokenising, 2),
        "decode_images_per_second": round(arguments.batch / decoding, 2),
        "training_step_seconds": round(step, 4),
        "training_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
    }


def train_step(network: VQ, optimiser: torch.optim.Optimizer, x: torch.Tensor) -> None:
    with torch.autocast(x.device.type, torch.bfloat16):
        output = network(x)
        loss = (output.prediction.float() - output.target).square().mean() + output.quantizer_loss
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def fastest(run: Callable[[], object], rounds: int, on_gpu: bool) -> float:
    """Seconds of the fastest of so many runs, after two that compile and warm up."""
    times = []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        run()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times[2:])


if __name__ == "__main__":
    main()
