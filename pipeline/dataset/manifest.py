"""dataset.json: what a dataset holds, from what, made by what. Written before the first shard, read by everything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ...labelers.contract.licences import RANDOM, TINY
from ...tokenizers.contract.token_spec import TokenSpec
from ..storage.store import Store
from .layout import MANIFEST

if TYPE_CHECKING:
    from ...labelers.contract.kinds import Kind

FORMAT_VERSION = 1


class DatasetError(ValueError):
    """A dataset that can't be read or written as asked; the message says what to do."""


@dataclass(frozen=True)
class CorpusCard:
    """The corpus as it was listed: `digest` is over the sorted shard ids, so that completeness shows in the output.

    reading: the rest of the recipe's corpus settings, less its storage options.
    """

    url: list[str]
    shards: int
    bytes: int
    digest: str
    reading: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightsCard:
    """Where weights came from (credentials removed), the SHA-256 of their files, and under what licence."""

    source: str
    sha256: str
    licence: str

    @property
    def random(self) -> bool:
        return self.source in (RANDOM, TINY)


@dataclass(frozen=True)
class TokensCard:
    """How a modality's tokens are made. `spec` and `files` (SHA-256 by name) are there once the tokenizer is fitted.

    fit: the settings with which its network is trained; weights: the trained tokenizer that it is instead. Neither
    where the tokenizer has no network.
    """

    tokenizer: str
    version: int
    params: dict[str, Any]
    fit: dict[str, Any] | None = None
    weights: WeightsCard | None = None
    spec: TokenSpec | None = None
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModalityCard:
    """One modality. `requires` maps the modalities that it was made from to their fingerprints."""

    kind: dict[str, Any]
    labeler: str
    version: int
    on: str
    params: dict[str, Any]
    weights: WeightsCard | None
    licence: str
    requires: dict[str, str]
    tokens: TokensCard | None
    keeps_tokens: bool
    keeps_labels: bool
    common: dict[str, Any] = field(default_factory=dict)

    @property
    def label_kind(self) -> Kind:
        from ...labelers.contract.kinds import kind_from  # which reading tokens doesn't need

        return kind_from(self.kind)

    def labels_per_sample(self, views: int) -> int:
        """How many labels a sample of so many views has: a labeler that doesn't work on views makes one."""
        return views if self.on == "view" else 1

    def parts(self) -> dict[str, Any]:
        """What determines the modality's content, by name: the parts of its fingerprint."""
        parts = asdict(self)
        for name in ("keeps_tokens", "keeps_labels", "licence"):
            del parts[name]
        if parts["tokens"]:
            del parts["tokens"]["spec"], parts["tokens"]["files"]
        for card in (parts, parts["tokens"] or {}):
            if card.get("weights"):
                card["weights"] = card["weights"]["sha256"]
        perceptual = ((parts["tokens"] or {}).get("fit") or {}).get("perceptual")
        if perceptual:
            del perceptual["weights"]  # their sha256 stays
        return parts

    @property
    def fingerprint(self) -> str:
        """Hash of `parts`."""
        return hashlib.sha256(json.dumps(self.parts(), sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Manifest:
    """The content of dataset.json."""

    corpus: CorpusCard
    seed: int
    views: dict[str, Any]
    units: dict[str, int]
    modalities: dict[str, ModalityCard]

    def to_bytes(self) -> bytes:
        data = {"format": "tokenloom", "version": FORMAT_VERSION, **asdict(self)}
        for name, card in self.modalities.items():
            data["modalities"][name]["fingerprint"] = card.fingerprint
        data["checksum"] = _checksum(data)
        return (json.dumps(data, indent=2, ensure_ascii=False, sort_keys=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> Manifest:
        try:
            raw = json.loads(data)
            if raw.get("format") != "tokenloom" or raw.get("version") != FORMAT_VERSION:
                raise DatasetError(
                    f"{source}: format {raw.get('format')!r} version {raw.get('version')!r}; this tokenloom reads "
                    f"'tokenloom' version {FORMAT_VERSION}"
                )
            if raw.pop("checksum", None) != _checksum(raw):
                raise DatasetError(f"{source}: its checksum doesn't match: changed by hand, or flipped bits")
            modalities = {name: _card(card) for name, card in raw["modalities"].items()}
            return cls(CorpusCard(**raw["corpus"]), raw["seed"], raw["views"], raw["units"], modalities)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{source}: not a readable dataset.json ({error})") from None


def read_manifest(store: Store) -> Manifest | None:
    """The manifest of the dataset in `store`, or None where there is none yet."""
    try:
        data = store.read(MANIFEST)
    except FileNotFoundError:
        return None
    return Manifest.from_bytes(data, f"{store.url}/{MANIFEST}")


def require_manifest(store: Store) -> Manifest:
    """The manifest; DatasetError where the URL holds no dataset."""
    manifest = read_manifest(store)
    if manifest is None:
        raise DatasetError(f"{store.url}: no dataset here (no {MANIFEST}); a dataset is what `tokenloom run` writes")
    return manifest


def changes(old: ModalityCard, new: ModalityCard) -> list[str]:
    """Which parts of a modality's fingerprint differ, each as "name: old -> new"."""
    return list(_differences(old.parts(), new.parts(), ""))


def _differences(old: Any, new: Any, path: str):
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in {**old, **new}:
            yield from _differences(old.get(name), new.get(name), f"{path}.{name}" if path else str(name))
    elif old != new:
        yield f"{path}: {json.dumps(old)} -> {json.dumps(new)}"


def _checksum(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _card(raw: dict[str, Any]) -> ModalityCard:
    raw = dict(raw)
    raw.pop("fingerprint", None)
    tokens = raw.pop("tokens")
    if tokens:
        spec = tokens["spec"]
        if spec:
            spec = TokenSpec(**{**spec, "grid": tuple(spec["grid"]) if spec["grid"] else None})
        tokens = TokensCard(**{**tokens, "spec": spec, "weights": _weights(tokens.get("weights"))})
    return ModalityCard(**{**raw, "weights": _weights(raw["weights"])}, tokens=tokens)


def _weights(raw: dict[str, Any] | None) -> WeightsCard | None:
    return WeightsCard(**raw) if raw else None
