"""What there is to know about a GPU before a corpus is sent through it: speed, memory, precision, and that it is right.

    python tests/gpu/check.py [--device cuda] [--quick] [--only dinov2,clip] [--sections labelers,sam] [--seconds 10]

Needs no network: networks have the architecture and the size of the labelers' default weights, with random numbers,
and photographs come with scikit-image and scikit-learn. The checkout needn't be installed. Sections:

labelers       each in the worker of its stage, in this process: images per second of the stage (from JPEGs to written
               labels, decoded on two threads), of a bare loop of the same model over the same decoded batches, and of
               the network's calls alone; and the most memory that tensors held. As the engine runs it, autocast and all
precision      of each labeler's labels under its own autocast, against those in float32. Random networks decide by a
               hair what trained ones are sure of, so that a label beyond the tolerance is counted, and no failure
tokenizers     the networks of every family: encoding and decoding, under autocast and in float32, speed and memory
out_of_memory  a batch that needs five times the memory that there is: halved, and the labels those of a small batch
sam            masks and speed of the generator against segment-anything's own
ray            a run through Ray with a GPU for its stage

The last line is a JSON object: device, versions, each section's figures, what was `left_out` and why, and what
`failed`. Progress, with the figures so far, goes to stderr. Exit code 1 where anything failed, 2 without a GPU or a
package that tokenloom needs. `--device cpu --quick` takes tiny networks, to try the script itself.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Ray has it for an actor of one CPU
os.environ["HF_HUB_OFFLINE"] = "1"

import checkout
import torch

PACKAGES = ("torch", "transformers", "numpy", "ray", "open_clip_torch", "segment-anything", "diffusers", "onnxruntime")
SECTIONS = ("labelers", "precision", "tokenizers", "out_of_memory", "sam", "ray")


@dataclass
class Report:
    """What is printed in the end. sections: figures by section, and in most of these by name."""

    device: str
    versions: dict[str, str | None]
    sections: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def try_out(self, what: str, action: Callable[[], Any]) -> Any:
        """What the action returns, or None where it raises, which is then written down: what isn't installed is left
        out, anything else has failed."""
        try:
            found = action()
        except ImportError as error:
            self.left_out[what] = str(error)
        except Exception as error:  # the others go on, whatever it is
            traceback.print_exc()
            self.failed[what] = f"{type(error).__name__}: {str(error).strip()[:500]}"
        else:
            if isinstance(found, dict) and "left_out" in found:
                self.left_out[what] = found["left_out"]
            say(f"{what}: {json.dumps(found)}")
            return found
        say(f"{what}: {self.left_out.get(what) or 'FAILED: ' + self.failed[what]}")
        return None

    def print(self) -> None:
        head = {"device": self.device, "versions": self.versions}
        print(json.dumps({**head, **self.sections, "left_out": self.left_out, "failed": self.failed}), flush=True)


def main() -> int:
    options = _options()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("there is no GPU that torch can use here; --device cpu --quick tries the script itself", file=sys.stderr)
        return 2
    checkout.make_importable()
    try:
        import labeling  # noqa: F401 - needs whatever tokenloom itself needs
    except ModuleNotFoundError as error:
        print(f"{error}, without which nothing can be measured: pip install it", file=sys.stderr)
        return 2
    report = Report(_device_name(options.device), _versions())
    say(f"{report.device}, {report.versions}")
    with tempfile.TemporaryDirectory(prefix="tokenloom-gpu-") as folder:
        for names, section in (
            ({"labelers", "precision"}, _labelers),
            ({"tokenizers"}, _tokenizers),
            ({"out_of_memory"}, _out_of_memory),
            ({"sam"}, _sam),
            ({"ray"}, _ray),
        ):
            if wanted := names.intersection(options.sections):
                section(report, options, Path(folder), wanted)
                _give_back(options.device)
    report.print()
    return 1 if report.failed else 0


def _labelers(report: Report, options: argparse.Namespace, folder: Path, wanted: set[str]) -> None:
    from full_size import FULL, WITHOUT_NETWORK
    from labeling import Settings

    settings = Settings(options.device, options.quick, options.seconds)
    report.sections |= {section: {} for section in SECTIONS if section in wanted}
    unknown = sorted(set(options.only or ()).difference(FULL))
    if unknown:
        report.failed["labelers"] = f"--only {','.join(unknown)}: there are {', '.join(FULL)}"
    if not options.only:
        report.left_out |= dict.fromkeys(WITHOUT_NETWORK, "it has no network")
    tars = folder / "photographs"
    for name in [name for name in FULL if name in (options.only or FULL)]:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            report.try_out(name, lambda name=name, own=own: _labeler(report, name, Path(own), tars, settings, wanted))
        _give_back(options.device)


def _labeler(report: Report, name: str, folder: Path, tars: Path, settings: Any, wanted: set[str]) -> str:
    from labeling import at_work, precision, speed

    with at_work(name, folder, tars, settings) as at:
        for section, measure in (("labelers", speed), ("precision", precision)):
            if section in wanted:
                found = report.try_out(f"{section}: {name}", lambda measure=measure: measure(at))
                report.sections[section][name] = found
    return "done"


def _tokenizers(report: Report, options: argparse.Namespace, folder: Path, wanted: set[str]) -> None:
    from tokenizing import FAMILIES, measured

    found = report.sections["tokenizers"] = {}
    for name in FAMILIES:
        what = f"tokenizers: {name}"
        found[name] = report.try_out(what, lambda name=name: measured(name, options.device, options.quick))
        _give_back(options.device)


def _out_of_memory(report: Report, options: argparse.Namespace, folder: Path, wanted: set[str]) -> None:
    from meters import on_gpu
    from shortage import shortage

    if not on_gpu(options.device):
        report.sections["out_of_memory"] = None
        report.left_out["out_of_memory"] = "only a GPU's memory can be made scarce"
        return
    own = folder / "out_of_memory"
    own.mkdir()
    report.sections["out_of_memory"] = report.try_out(
        "out_of_memory", lambda: shortage(own, options.device, options.quick)
    )


def _sam(report: Report, options: argparse.Namespace, folder: Path, wanted: set[str]) -> None:
    own = folder / "sam"
    own.mkdir()

    def compare() -> dict[str, Any]:
        from masks import compared

        return compared(own, options.device, options.quick)

    report.sections["sam"] = report.try_out("sam", compare)


def _ray(report: Report, options: argparse.Namespace, folder: Path, wanted: set[str]) -> None:
    from through_ray import run_through_ray

    own = folder / "ray"
    own.mkdir()
    report.sections["ray"] = None
    if report.versions["ray"] is None:
        report.left_out["ray"] = "ray isn't installed"
        return
    report.sections["ray"] = report.try_out("ray", lambda: run_through_ray(own, options.device))


def _give_back(device: str) -> None:
    """What the last one held, before the next one is measured."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def say(text: str) -> None:
    print(f"{time.strftime('%T')} {text}", file=sys.stderr, flush=True)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else f"{device} ({platform.machine()})"


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="tiny networks, few images, one round")
    parser.add_argument("--only", type=_names, help="these labelers alone, by their modalities, with commas")
    parser.add_argument("--sections", type=_names, default=SECTIONS, help=f"these alone: {', '.join(SECTIONS)}")
    parser.add_argument("--seconds", type=float, help="of measuring each labeler; 10, with --quick one round")
    options = parser.parse_args()
    if options.seconds is None:
        options.seconds = 0.0 if options.quick else 10.0
    if unknown := sorted(set(options.sections).difference(SECTIONS)):
        parser.error(f"--sections {','.join(unknown)}: there are {', '.join(SECTIONS)}")
    return options


def _names(text: str) -> Sequence[str]:
    return text.split(",")


if __name__ == "__main__":
    sys.exit(main())
