"""The layout of the output: all names and paths."""

from __future__ import annotations

from ..corpus.units import Unit

RESERVED = ("attempts", "corpus", "fit", "quarantine", "tokenizers")
"""Names that the dataset's own folders have."""

ATTEMPTS = "attempts"

TOKENIZERS = "tokenizers"
FIT = "fit"
"""Where the labels of the sample lie until the tokenizers are fitted to them."""
VOCABULARY = f"{TOKENIZERS}/vocabulary.json"
"""The dataset's one text vocabulary."""

QUARANTINE = "quarantine"
CORPUS = "corpus"
"""The name under which the quarantine lists what the corpus reader refused."""


def token_path(modality: str, unit: Unit) -> str:
    return f"{modality}/{unit.name}.parquet"


def label_path(modality: str, unit: Unit) -> str:
    return f"{modality}/{unit.name}.tar"


def ledger_path(modality: str, unit: Unit) -> str:
    return f"{QUARANTINE}/{modality}/{unit.name}.jsonl"


def training_of(modality: str) -> str:
    """Where the training of a modality's tokenizer leaves what it goes on from."""
    return f"{FIT}/_{modality}"
