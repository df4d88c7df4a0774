"""Tokenizers that lie in a folder or at a URL, outside of the dataset that they are tried on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...labelers.contract.kinds import Kind
from ...labelers.plugins.registry import TOKENIZER_GROUP, entries
from ...tokenizers.contract.files import CONFIG
from ...tokenizers.contract.registry import tokenizer_for
from ...tokenizers.contract.tokenizer import Tokenizer
from ...tokenizers.contract.vocabulary import Vocabulary
from ...tokenizers.text.base import VocabularyTokenizer
from ...tokenizers.vq.base import TrainedTokenizer
from ..dataset.cards import ModalityCard
from ..dataset.layout import TOKENIZERS, tokenizer_folder, vocabulary_path
from ..dataset.manifest import DatasetError, naming_gone, read_manifest, require_manifest, vocabulary_digest
from ..plan.weights import localise
from ..storage.errors import StorageError, without_credentials
from ..storage.store import Store

_SUFFIXES = (".json", ".safetensors")


class TokenizerError(ValueError):
    """A tokenizer that can't be had or used; the message says from where, and what to do."""


def open_tokenizer(url: str, kind: Kind, vocabulary: Callable[[], bytes | None]) -> Tokenizer:
    """The tokenizer at a path, URL or hub id, for labels of a kind: as a dataset holds it (DATASET/MODALITY), or as 4M
    published its own.

    vocabulary: gives the text vocabulary of the dataset, for a published tokenizer of labels that are written as text.
    Raises TokenizerError, or WeightsError where there is nothing.
    """
    source, url = without_credentials(url), of_dataset(url)[0]
    with _local(url) as folder:
        config = read_config_at(folder, source)
        try:
            if "tokenizer" not in config:
                return _published(kind, folder, source, vocabulary)
            tokenizer_class = tokenizer_for(_reference(config["tokenizer"], source), kind)
            files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES}
            return tokenizer_class.from_files(kind, files)
        except TokenizerError:
            raise
        except ValueError as error:
            raise TokenizerError(f"{source}: {error}") from None


@contextmanager
def _local(url: str) -> Iterator[Path]:
    """The tokenizer's folder here. What lies at a URL is fetched anew, since it may have been fitted again."""
    if "://" not in url:
        yield Path(localise(url))
        return
    store = Store(url)
    names = [entry.name for entry in store.list(recursive=False) if Path(entry.name).suffix in _SUFFIXES]
    if not names:
        raise TokenizerError(f"{store.url}: there is no tokenizer; it would be a folder with {CONFIG}")
    with TemporaryDirectory(prefix="tokenloom-tokenizer-") as folder:
        for name in names:
            Path(folder, name).write_bytes(store.read(name))
        yield Path(folder)


def read_config_at(folder: Path, source: str) -> dict[str, Any]:
    """config.json of a tokenizer in a folder; {} where a published one holds its configuration elsewhere."""
    if not folder.is_dir():
        raise TokenizerError(f"{source}: a tokenizer is a folder with {CONFIG}, not a file")
    if not (folder / CONFIG).is_file():
        return {}
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except ValueError as error:
        raise TokenizerError(f"{source}/{CONFIG}: it isn't JSON: {error}") from None
    if not isinstance(config, dict):
        raise TokenizerError(f"{source}/{CONFIG}: it holds a {type(config).__name__}, not an object")
    return config


def _published(kind: Kind, folder: Path, source: str, vocabulary: Callable[[], bytes | None]) -> Tokenizer:
    if kind.trained_tokenizer is None:
        raise TokenizerError(f"{source}: no tokenizer of labels of the kind {kind.name} is a network")
    tokenizer_class = tokenizer_for(kind.trained_tokenizer, kind)
    assert issubclass(tokenizer_class, TrainedTokenizer)
    tokenizer: Tokenizer = tokenizer_class.from_weights(kind, None, folder, source)
    if isinstance(tokenizer, VocabularyTokenizer):
        words = vocabulary()
        if words is None:
            raise TokenizerError(f"{source}: it writes labels as text, and the dataset has no text vocabulary")
        tokenizer.use_vocabulary(Vocabulary.from_bytes(words))
    return tokenizer


def _reference(class_name: str, source: str) -> str:
    """The registered name of a tokenizer's class."""
    for entry in entries(TOKENIZER_GROUP):
        if entry.value.partition(":")[2] == class_name:
            return entry.name
    raise TokenizerError(f"{source}: no installed package registers a tokenizer {class_name!r}, which it was made by")


def vocabulary_of(dataset: Store, card: ModalityCard) -> bytes | None:
    """The text vocabulary of a dataset's modality, or that of its other ones; None where it has none."""
    own = card.tokens.vocabulary.digest if card.tokens and card.tokens.vocabulary else None
    digest = own or vocabulary_digest(require_manifest(dataset).modalities)
    with naming_gone(dataset.url):
        return dataset.read(vocabulary_path(digest)) if digest else None


def of_dataset(source: str) -> tuple[str, ModalityCard | None]:
    """Where the tokenizer lies that `source` names as DATASET/MODALITY, or as the folder that it has there, with the
    card of its modality; any other source as it is, and None."""
    dataset, _, name = source.rstrip("/").rpartition("/")
    dataset = dataset.removesuffix(f"/{TOKENIZERS}")
    try:
        manifest = read_manifest(Store(dataset)) if dataset else None
    except (DatasetError, StorageError):
        return source, None
    for modality, card in manifest.modalities.items() if manifest else ():
        if card.tokens and card.fitted and name in (modality, card.tokenizer_digest):
            return f"{dataset}/{tokenizer_folder(card.tokenizer_digest)}", card
    return source, None
