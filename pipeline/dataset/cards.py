"""Cards: what a dataset says of each modality, and the generations that follow from it.

A generation is the hash of all that determines the content: of labels how they are made, of tokens which labels they
were made from and by which tokenizer. Shards lie in folders named for their generations, so that what was made
differently can't be mixed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...labelers.contract.licences import TINY
from ...tokenizers.contract.token_spec import TokenSpec

if TYPE_CHECKING:
    from ...labelers.contract.kinds import Kind


@dataclass(frozen=True)
class WeightsCard:
    """Where weights came from (credentials removed), the SHA-256 of their files, and under what licence."""

    source: str
    sha256: str
    licence: str

    @property
    def random(self) -> bool:
        return self.source == TINY


@dataclass(frozen=True)
class VocabularyCard:
    """A text vocabulary. digest: SHA-256 of its file, "" until it is trained. given: whether the recipe names it.
    trained_on: otherwise the texts that it is trained on, label generations by modality."""

    digest: str
    given: bool
    trained_on: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TokensCard:
    """How a modality's tokens are made. `spec` and `files` (SHA-256 by name) are there once the tokenizer is fitted.

    fit: the settings with which its network is trained; weights: the trained tokenizer that it is instead. Neither
    where the tokenizer has no network. fit_units: of the sample that it is fitted to. vocabulary: the text vocabulary,
    for tokenizers that use one. fitted_to: the `place` of each unit of the sample.
    """

    tokenizer: str
    version: int
    params: dict[str, Any]
    fit: dict[str, Any] | None = None
    weights: WeightsCard | None = None
    fit_units: int = 0
    vocabulary: VocabularyCard | None = None
    spec: TokenSpec | None = None
    files: dict[str, str] = field(default_factory=dict)
    fitted_to: list[str] = field(default_factory=list)

    def parts(self) -> dict[str, Any]:
        """What the tokenizer was asked to be, by name."""
        parts = asdict(self)
        del parts["spec"], parts["files"], parts["fitted_to"]
        parts["weights"] = self.weights and self.weights.sha256
        if self.vocabulary and not self.vocabulary.given:
            parts["vocabulary"] = {"trained_on": self.vocabulary.trained_on}
        perceptual = (parts["fit"] or {}).get("perceptual")
        if perceptual:
            del perceptual["weights"]  # their sha256 stays
        return parts


@dataclass(frozen=True)
class ModalityCard:
    """One modality.

    labeler: its registered name, or module:Class as the recipe has it. requires: the label generations of what it is
    made from, by modality. common: what the recipe settles for all modalities: seed, views, reading of the corpus.
    environment: what the labeler's workers had installed in place of the cluster's, as name==version, sorted.
    """

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
    environment: list[str] = field(default_factory=list)

    @property
    def label_kind(self) -> Kind:
        from ...labelers.contract.kinds import kind_from  # which reading tokens doesn't need

        return kind_from(self.kind)

    def labels_per_sample(self, views: int) -> int:
        """How many labels a sample of so many views has: a labeler that doesn't work on views makes one."""
        return views if self.on == "view" else 1

    @property
    def kept(self) -> frozenset[str]:
        """What of it is kept: tokens, labels."""
        kept = {"tokens": self.keeps_tokens, "labels": self.keeps_labels}
        return frozenset(what for what, keeps in kept.items() if keeps)

    @property
    def fitted(self) -> bool:
        """Whether the tokenizer is there, or none is needed."""
        return self.tokens is None or self.tokens.spec is not None

    def label_parts(self) -> dict[str, Any]:
        """What determines the labels, by name."""
        parts = asdict(self)
        for name in ("tokens", "keeps_tokens", "keeps_labels", "licence"):
            del parts[name]
        if not self.environment:
            del parts["environment"]  # without which generations were hashed before there were any
        return {**parts, "weights": self.weights and self.weights.sha256}

    def parts(self) -> dict[str, Any]:
        """What determines labels and tokens, by name, so far as it is known before a tokenizer is fitted."""
        return {**self.label_parts(), "tokenizer": self.tokens and self.tokens.parts()}

    @property
    def asked(self) -> str:
        """Hash of `parts`: under which a fitted tokenizer is pinned."""
        return _hash(self.parts())

    @cached_property
    def labels_generation(self) -> str:
        """Kept, since it is asked for at each shard."""
        return _hash(self.label_parts())

    @property
    def tokenizer_digest(self) -> str:
        """Of what makes tokens of labels of this kind: the class, its parameters, its fitted files. Needs `fitted`."""
        tokens = self.tokens
        assert tokens is not None
        assert tokens.spec is not None
        return _hash([tokens.tokenizer, tokens.version, tokens.params, self.kind, tokens.files])

    @cached_property
    def tokens_generation(self) -> str:
        """Needs `fitted`. Kept as that is."""
        assert self.tokens is not None
        vocabulary = self.tokens.vocabulary.digest if self.tokens.vocabulary else None
        return _hash([self.labels_generation, self.tokenizer_digest, vocabulary])

    @property
    def generation(self) -> str:
        """That of the tokens where they are kept, else of the labels: which tells why a sample has no value."""
        return self.tokens_generation if self.keeps_tokens else self.labels_generation

    @property
    def corpus_generation(self) -> str:
        """Of what the corpus reader refuses: how it reads."""
        return _hash(self.common.get("corpus", {}))


def _hash(told: Any) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def card_from(raw: dict[str, Any]) -> ModalityCard:
    """The card that a manifest holds."""
    tokens, rest = raw["tokens"], {name: value for name, value in raw.items() if name not in ("tokens", "weights")}
    if tokens:
        spec, vocabulary = tokens["spec"], tokens["vocabulary"]
        if spec:
            spec = TokenSpec(**{**spec, "grid": tuple(spec["grid"]) if spec["grid"] else None})
        read = {"spec": spec, "weights": _weights(tokens["weights"])}
        tokens = TokensCard(**{**tokens, **read, "vocabulary": VocabularyCard(**vocabulary) if vocabulary else None})
    return ModalityCard(**rest, weights=_weights(raw["weights"]), tokens=tokens)


def _weights(raw: dict[str, Any] | None) -> WeightsCard | None:
    return WeightsCard(**raw) if raw else None
