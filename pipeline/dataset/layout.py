"""The layout of the output: all its names, and paths below its root.

dataset.json                        what the dataset is
<modality>/<unit>.parquet, .tar     tokens, labels
quarantine/<modality>/<unit>.jsonl  what failed; under `corpus` what the corpus reader refused
tokenizers/<modality>/              one text vocabulary for all beside them
fit/, attempts/                     what a run needs until it ends
"""

from __future__ import annotations

from ..corpus.units import Unit

MANIFEST = "dataset.json"
QUARANTINE = "quarantine"
TOKENIZERS = "tokenizers"
FIT = "fit"
"""Where the labels of the sample lie until the tokenizers are fitted to them."""

ATTEMPTS = "attempts"
"""Where a stage marks the units that it has begun."""

CORPUS = "corpus"
"""The name under which the quarantine lists what the corpus reader refused."""

RESERVED = (ATTEMPTS, CORPUS, FIT, QUARANTINE, TOKENIZERS)
"""Names that no modality may have."""

TOKENS, LABELS, LEDGER = "parquet", "tar", "jsonl"
"""Extensions of a unit's files."""

VOCABULARY = f"{TOKENIZERS}/vocabulary.json"
"""The dataset's one text vocabulary."""


def shard_path(modality: str, unit: Unit, extension: str) -> str:
    return f"{modality}/{unit.name}.{extension}"


def token_path(modality: str, unit: Unit) -> str:
    return shard_path(modality, unit, TOKENS)


def label_path(modality: str, unit: Unit) -> str:
    return shard_path(modality, unit, LABELS)


def ledger_folder(modality: str) -> str:
    return f"{QUARANTINE}/{modality}"


def ledger_path(modality: str, unit: Unit) -> str:
    return f"{ledger_folder(modality)}/{unit.name}.{LEDGER}"


def tokenizer_folder(modality: str) -> str:
    return f"{TOKENIZERS}/{modality}"


def sample_folder(modality: str) -> str:
    """Where the labels of a modality lie to which its tokenizer is fitted."""
    return f"{FIT}/{modality}"


def sample_path(modality: str, unit: Unit) -> str:
    return f"{sample_folder(modality)}/{unit.name}.{LABELS}"


def training_folder(modality: str) -> str:
    """Where the training of a modality's tokenizer leaves what it goes on from; no modality's name begins so."""
    return f"{FIT}/_{modality}"


def attempts_folder(unit: Unit, stage: str) -> str:
    """Where a stage, by the name of its first step, marks that it has begun a unit."""
    return f"{ATTEMPTS}/{unit.name}/{stage}"
