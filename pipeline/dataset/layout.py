"""The layout of the output: all its names, and paths below its root.

manifests/<number>.json                             what the dataset is: the highest number wins
<modality>/labels-<generation>/<unit>.tar           labels
<modality>/tokens-<generation>/<unit>.parquet       tokens
quarantine/<modality>/<generation>/<unit>-<digest>.jsonl   what failed; under `corpus` what the corpus reader refused
tokenizers/<digest>/, vocabularies/<digest>/        what made the tokens
<modality>/.../merged-<digest>.parquet, .tar        several units in one shard, in the folder of these units' own
<modality>/.../merges/<number>.json                 which merged shards count, and what each holds: the highest wins
corpus/<digest>.jsonl                               listings of the corpus' files, as they were taken up
fit/, attempts/, retries/                           what a run or a retry needs until it ends

An object is written once, under a name that is never used for other bytes. A unit that is tried again is a new
revision, told by the end of its name: <unit>-r1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from ..corpus.units import Unit

MANIFESTS = "manifests"
QUARANTINE = "quarantine"
TOKENIZERS = "tokenizers"
VOCABULARIES = "vocabularies"
FIT = "fit"
"""Where the labels of the sample lie until the tokenizers are fitted to them."""

ASIDE = f"{FIT}/__labels"
"""Where the labels that were made for the sample lie until the run ends, laid out as in a dataset that keeps them: they
aren't made again. No modality's name begins so."""

ATTEMPTS = "attempts"
"""Where a stage marks the units that it has begun."""

CORPUS = "corpus"
"""Where the listings of the corpus lie, and the name under which the quarantine has what its reader refused."""

DOCTORS = ".tokenloom-doctor-"
"""How the names of objects begin that `doctor` writes to learn whether it may, and deletes again. No dataset's own name
begins with a dot."""

RETRIES = "retries"
"""Where a retry lists what it has begun."""

MERGES = "merges"
"""Below a folder of shards, where it is told which of them hold several units."""

TOKENS, LABELS, LEDGER = "parquet", "tar", "jsonl"
"""Extensions of a unit's files."""

_MANIFEST_NAME = re.compile(r"(\d{8})\.json", re.ASCII)
_REVISION = re.compile(r"-r([1-9]\d*)$", re.ASCII)
_MERGED = re.compile(r"merged-[0-9a-f]{16}", re.ASCII)
_LEDGER_NAME = re.compile(rf"(?P<stem>.+)-(?P<digest>[0-9a-f]{{16}})\.{LEDGER}", re.ASCII)


def manifest_path(number: int) -> str:
    return f"{MANIFESTS}/{number:08d}.json"


def manifest_number(name: str) -> int | None:
    """The number of the manifest, or of the list of merged shards, of that file name; None for a name that is none."""
    match = _MANIFEST_NAME.fullmatch(name)
    return int(match[1]) if match else None


def stem_of(unit: Unit, revision: int) -> str:
    """The name of a unit's files, less what follows it."""
    return f"{unit.name}-r{revision}" if revision else unit.name


def split_stem(stem: str) -> tuple[str, int]:
    """A unit's name and revision, of what `stem_of` gave; revision 0 for any other text."""
    match = _REVISION.search(stem)
    return (stem[: match.start()], int(match[1])) if match else (stem, 0)


def merged_stem(stems: Iterable[str]) -> str:
    """The name of a shard that holds these units, less its extension. stems: theirs, in order."""
    return f"merged-{hashlib.sha256(chr(10).join(stems).encode()).hexdigest()[:16]}"


def is_merged(path: str) -> bool:
    """Whether that is the path, file name or stem of a merged shard."""
    return _MERGED.fullmatch(path.rpartition("/")[2].partition(".")[0]) is not None


def merges_path(folder: str, number: int) -> str:
    return f"{folder}/{MERGES}/{number:08d}.json"


def extension_of(folder: str) -> str:
    """Of the shards in a folder of labels or tokens."""
    return TOKENS if folder.rpartition("/")[2].startswith("tokens-") else LABELS


def label_folder(modality: str, generation: str) -> str:
    return f"{modality}/labels-{generation}"


def token_folder(modality: str, generation: str) -> str:
    return f"{modality}/tokens-{generation}"


def label_path(modality: str, generation: str, unit: Unit, revision: int = 0) -> str:
    return f"{label_folder(modality, generation)}/{stem_of(unit, revision)}.{LABELS}"


def token_path(modality: str, generation: str, unit: Unit, revision: int = 0) -> str:
    return f"{token_folder(modality, generation)}/{stem_of(unit, revision)}.{TOKENS}"


def ledger_folder(modality: str, generation: str) -> str:
    return f"{QUARANTINE}/{modality}/{generation}"


def ledger_path(modality: str, generation: str, stem: str, digest: str) -> str:
    """digest: the ledger's SHA-256, by which shards refer to it: what isn't referred to counts for nothing."""
    return f"{ledger_folder(modality, generation)}/{stem}-{digest[:16]}.{LEDGER}"


def split_ledger_name(name: str) -> tuple[str, int, str] | None:
    """A unit's name, the revision, and the first digits of the digest, of a ledger's file name; None for any other."""
    match = _LEDGER_NAME.fullmatch(name)
    return (*split_stem(match["stem"]), match["digest"]) if match else None


def listing_path(digest: str) -> str:
    """digest: the listing's SHA-256."""
    return f"{CORPUS}/{digest}.jsonl"


def tokenizer_folder(digest: str) -> str:
    return f"{TOKENIZERS}/{digest}"


def vocabulary_path(digest: str) -> str:
    return f"{VOCABULARIES}/{digest}/vocabulary.json"


def sample_folder(modality: str, sample: str) -> str:
    """Where the labels of a modality lie to which its tokenizer is fitted. sample: digest of whose labels of what."""
    return f"{FIT}/{modality}/{sample}"


def sample_path(modality: str, sample: str, unit: Unit) -> str:
    return f"{sample_folder(modality, sample)}/{unit.name}.{LABELS}"


def training_folder(modality: str, sample: str) -> str:
    """Where the training of a modality's tokenizer leaves what it goes on from; no modality's name begins so."""
    return f"{FIT}/_{modality}/{sample}"


def is_listing(name: str) -> bool:
    """Whether a file of the listings' folder is named as one."""
    return re.fullmatch(r"[0-9a-f]{64}\.jsonl", name) is not None


def retry_path(digest: str) -> str:
    """digest: of the list."""
    return f"{RETRIES}/{digest[:16]}.{LEDGER}"


def attempts_folder(unit: Unit, stage: str) -> str:
    """Where a stage, by the name of its first step, marks that it has begun a unit."""
    return f"{ATTEMPTS}/{unit.name}/{stage}"
