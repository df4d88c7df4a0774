"""The corpora of the training recipe `tiny-demo`, from Debian packages: photographs and texts, each in two parts.

    python tests/benchmarks/tiny_corpora.py --output tiny [--photographs photographs]

Photographs are the 333 of real_photographs.py (fetched, unless --photographs names where they are), texts the entries
of the Jargon File (package jargon-text, in the public domain), a document each. It needs `apt-get` and a list of
packages, but no root. In the output lie

    photographs/train, photographs/held-out     folders; those whose names differ in a number alone are on one side
    texts/train.jsonl, texts/held-out.jsonl     one entry of ten is held out, by a hash of its headword
    words.json                                  a vocabulary of 6,000 tokens, trained on what isn't held out
    dinov2-small                                weights of the demo

A part that is there is left as it is.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from learning import part
from real_photographs import fetch_package, photographs, write_photographs
from tokenloom.pipeline.commands.demo_weights import dinov2_small
from tokenloom.tokenizers.contract.vocabulary import Vocabulary

WORDS = 6_000
"""Tokens of the vocabulary, of which 4,294 are those that every vocabulary has: pieces of words that come often enough
to be learnt from few texts."""

HELD_OUT = 10
"""One text of so many."""

_JARGON = "usr/share/doc/jargon-text/jargon.txt.gz"
_ENTRY = re.compile(r"^ *:(?=[^ :])", re.MULTILINE)
"""Before an entry's headword."""

_SHORTEST = 80
"""Characters of a text: what is shorter only points to another."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the corpora")
    parser.add_argument("--photographs", type=Path, help="where real_photographs.py has written them")
    options = parser.parse_args()
    print(f"{write_corpora(options.output, options.photographs)} in {options.output}")


def write_corpora(folder: Path, source: Path | None) -> str:
    """Writes what is missing, and tells what there is. source: where the photographs are, else they are fetched."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "photographs").is_dir():
        write_photographs(source or folder / "all-photographs")
        split_photographs(source or folder / "all-photographs", folder / "photographs")
    if not (folder / "texts").is_dir():
        write_texts(folder / "texts")
    texts = {name: (folder / "texts" / f"{name}.jsonl").read_text().splitlines() for name in ("train", "held-out")}
    if not (folder / "words.json").is_file():
        captions = [path.read_text() for path in sorted((folder / "photographs" / "train").rglob("*.txt"))]
        words = Vocabulary.train([*captions, *(json.loads(line)["text"] for line in texts["train"])], WORDS)
        (folder / "words.json").write_bytes(words.to_bytes())
    dinov2_small(folder / "dinov2-small")
    pictures = {name: photographs(folder / "photographs" / name) for name in texts}
    return ", ".join(f"{len(pictures[name])} photographs and {len(texts[name]):,} texts ({name})" for name in texts)


def split_photographs(source: Path, folder: Path) -> None:
    """Copies the photographs of `source` and their captions in two folders; they appear when both are complete."""
    unfinished = Path(tempfile.mkdtemp(prefix=".photographs-", dir=folder.parent))
    for name, paths in zip(("train", "held-out"), part(photographs(source)), strict=True):
        for path in paths:
            for file in (path, path.with_suffix(".txt")):
                place = unfinished / name / file.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)
    unfinished.chmod(0o755)
    unfinished.rename(folder)


def write_texts(folder: Path) -> None:
    """The Jargon File's entries as lines of JSON, in two files; the folder appears when both are complete."""
    unfinished = Path(tempfile.mkdtemp(prefix=".texts-", dir=folder.parent))
    with fetch_package("jargon-text", unfinished) as root:
        whole = gzip.decompress((root / _JARGON).read_bytes()).decode()
    parts: dict[str, list[str]] = {"train": [], "held-out": []}
    for text in entries(whole):
        digest = hashlib.sha256(text.partition(":")[0].encode()).digest()
        parts["held-out" if digest[0] % HELD_OUT == 0 else "train"].append(text)
    for name, texts in parts.items():
        (unfinished / f"{name}.jsonl").write_text(_lines(texts))
    unfinished.chmod(0o755)
    unfinished.rename(folder)


def entries(whole: str) -> Iterator[str]:
    """The entries of the Jargon File: a headword with what is said of it, each on one line, without the braces around
    other headwords."""
    for text in _ENTRY.split(whole)[1:]:
        told = " ".join(text.translate({ord("{"): None, ord("}"): None}).split())
        if len(told) >= _SHORTEST:
            yield told


def _lines(texts: Sequence[str]) -> str:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)


if __name__ == "__main__":
    main()
