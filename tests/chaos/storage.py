"""Chaos: a run whose object store fails now and then must leave, byte for byte, what a run leaves that was left alone.

    python tests/chaos/storage.py [--quick] [--runs N] [--seed N]

A small recipe runs once in peace, in this process, from S3 and to S3. Then it runs through a proxy on which 1 %, and
10 %, of all requests go wrong: errors, refused and broken connections, time-outs, cut and slow bodies, lost answers.
And it runs with credentials that expire somewhere: that must end it, and the same again with others
must finish it. Each output is compared object by object with the undisturbed one, and verified.

Prints what happens, and as its last line one JSON object.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from faulty_s3 import Fault, FaultyS3, Kind, passing_faults
from in_process import weave
from places import BUCKET, s3_server, write_corpus
from runs import ChaosError, check_dataset, check_same, objects, told
from tokenloom.pipeline.plan.recipe import parse_recipe
from tokenloom.pipeline.storage.store import Store

SHARES = (0.01, 0.1)
_SECONDS = 1.5
"""That a fault lasts which lasts: longer than the client waits."""

MODALITIES = {
    "rgb": {"tokenizer": {"name": "patch_codebook", "params": {"size": 64}}},
    "caption": {"keep": "both"},
    "canny_edge": {"keep": "labels"},
    "color_palette": {"keep": "both"},
    "metadata": {"keep": "both"},
}


@dataclass
class Torment:
    """Runs through one proxy, compared with the first."""

    proxy: FaultyS3
    result: dict[str, Any]
    faults: Counter[str] = field(default_factory=Counter)
    expected: dict[str, str] = field(default_factory=dict)

    def in_peace(self) -> int:
        """Makes what all others have to; how many requests that took."""
        with self.proxy.having() as requests:
            self._run("calm")
        check_dataset(_place("calm"))
        self.expected = objects(_place("calm"))
        return len(requests)

    def faulty(self, share: float, number: int) -> None:
        name = f"faulty-{share}-{number}"
        with self.proxy.having(*passing_faults(share, _SECONDS)) as requests:
            self._run(name)
        self._compare(name)
        kinds = Counter(one.fault.name.lower() for one in requests if one.fault)
        self.faults += kinds
        self.result["requests"] += len(requests)
        self._say(
            f"{share:.0%} of {len(requests)} requests: {kinds.total()} went wrong, identical and verified: {name}"
        )

    def expired(self, after: int) -> None:
        """Credentials that expire once the run has made so many requests."""
        name = f"expired-{after}"
        valid = Fault(Kind.SLOW, times=after, seconds=0.0)  # nothing goes wrong with these
        with self.proxy.having(valid, Fault(Kind.ERROR, status=400, code="ExpiredToken")) as requests:
            try:
                self._run(name)
            except Exception as error:
                message = str(error)
            else:
                raise ChaosError(f"{name}: it ended well, though its credentials had expired")
            wrong = sum(one.fault is Kind.ERROR for one in requests)
        if "credentials have expired" not in message:
            raise ChaosError(f"{name}: its credentials had expired, and it ended with: {message}")
        self.faults["expired"] += wrong
        with self.proxy.having():
            self._run(name)
        self._compare(name)
        self._say(f"credentials expired after {after} requests; it ended, and went on to identical: {message}")

    def _run(self, name: str) -> None:
        options = {"endpoint_url": self.proxy.endpoint, "config_kwargs": {"read_timeout": 1.0}}
        recipe = {
            "corpus": {"url": _place("corpus"), "storage_options": options},
            "output": _place(name),
            "modalities": MODALITIES,
            "views": {"size": 112},
            "units": {"samples": 4},
            "fit": {"units": 4},
            "storage_options": options,
        }
        weave(parse_recipe(recipe))

    def _compare(self, name: str) -> None:
        found = objects(_place(name))
        self.result["lost"] += len(self.expected.keys() - found.keys())
        self.result["duplicated"] += len(found.keys() - self.expected.keys())
        check_same(_place(name), self.expected)
        check_dataset(_place(name))

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%T')} {text}", flush=True)


def _place(name: str) -> str:
    return f"s3://{BUCKET}/{name}"


def main() -> int:
    options = _options()
    result = {"seed": options.seed, "runs": 0, "requests": 0, "faults": {}, "lost": 0, "duplicated": 0}
    return told(result, lambda folder, stack: _torment(options, folder, stack, result))


def _torment(options: argparse.Namespace, folder: Path, stack: ExitStack, result: dict[str, Any]) -> None:
    result["server"] = stack.enter_context(s3_server(folder / "s3"))
    write_corpus(folder / "corpus", 2, 8 if options.quick else 24)
    for path in sorted((folder / "corpus").iterdir()):
        Store(_place("corpus")).replace(path.name, path.read_bytes())
    proxy = stack.enter_context(FaultyS3(os.environ["AWS_ENDPOINT_URL"], seed=options.seed))
    torment = Torment(proxy, result)
    calm = torment.in_peace()
    print(f"{time.strftime('%T')} undisturbed: {len(torment.expected)} objects, {calm} requests", flush=True)
    try:
        for number in range(options.runs):
            for share in SHARES:
                torment.faulty(share, number)
                result["runs"] += 1
        for after in _moments(options, calm):
            torment.expired(after)
            result["runs"] += 1
    finally:
        result["faults"] = dict(torment.faults)


def _moments(options: argparse.Namespace, requests: int) -> Sequence[int]:
    """Numbers of requests after which credentials expire."""
    return random.Random(options.seed).sample(range(1, requests - 5), 1 if options.quick else options.runs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one run of each sort, on fewer photographs")
    parser.add_argument("--runs", type=int, help="of each sort (10)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.runs = options.runs or (1 if options.quick else 10)
    return options


if __name__ == "__main__":
    sys.exit(main())
