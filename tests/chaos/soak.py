"""A long run of tiny images: whether what its processes hold stays as it is.

    python tests/chaos/soak.py [--quick] [--images 200000] [--samples 32]

The corpus is made of a handful of JPEGs of 16 x 16 pixels in tars of 2,000, and labelled by cheap labelers of the
benchmarks, whose labels are kept, in units of `--samples`. The program itself is the driver. All along it looks at
memory, open files, sockets and number of each sort of its processes, and at temporary files, marks of begun units and
empty folders in the output; once more when the run has ended, and Ray with it.

The last line is a JSON object: of each figure the median over the second quarter of the run and over the last; what
grew (by more than a tenth and 10); what was left at the end; units and seconds. `ratio` is the smallest of second
quarter by last of memory figures over 50 MB, 0 where anything else grew or was left.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from processes import adopt_orphans, descendants

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from resources import growing, look, quarters
from tiny_images import run, write_corpus

LABELERS = ("mean_colour", "sharpness", "thumbnail")
_LOOKS = 200
"""How often it is looked, about."""
_LARGE = 50.0
"""MB, of less memory than which a share says little."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8,000 images")
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--samples", type=int, default=32, help="of a unit")
    options = parser.parse_args()
    images = 8_000 if options.quick else options.images
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="tokenloom-soak-") as folder:
        print(json.dumps(soak(Path(folder), images, options.samples)))


def soak(folder: Path, images: int, samples: int) -> dict[str, Any]:
    write_corpus(folder / "corpus", images)
    began = time.monotonic()
    modalities = {name: f"light_labelers:{name.title().replace('_', '')}" for name in LABELERS}
    every = max(1, images // samples // _LOOKS)
    held = []

    def labelled(units: int) -> None:
        if units % every == 0:
            held.append(look(time.monotonic() - began, units, folder / "output"))
            at, driver = held[-1].at, held[-1].figures["driver MB"]
            print(f"{units:,} units, {at:.0f} s, driver {driver:.0f} MB", file=sys.stderr, flush=True)

    run(folder, modalities, samples, labelled)
    seconds = time.monotonic() - began
    import ray

    ray.shutdown()
    time.sleep(5)
    after = look(seconds, held[-1].units, folder / "output").figures
    left = {name: after[name] for name in ("temporaries", "marks", "empty folders") if after.get(name)}
    left |= {"processes": len(descendants())} if descendants() else {}
    found = quarters(held)
    grew = growing(found)
    shares = [min(1.0, second / last) for name, (second, last) in found.items() if "MB" in name and second > _LARGE]
    return {
        "images": images,
        "units": held[-1].units,
        "seconds": round(seconds, 1),
        "quarters": {name: [round(value, 1) for value in pair] for name, pair in found.items()},
        "grew": sorted(grew),
        "left": left,
        "ratio": round(min(shares), 3) if not left and all("MB" in name for name in grew) else 0,
    }


if __name__ == "__main__":
    main()
