"""A tokenizer to be fitted: all that the training processes have to be told."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from importlib.metadata import version as version_of
from typing import Any

from pydantic import ValidationError

from ...labelers.contract.kinds import kind_from
from ...labelers.dinov2 import Dinov2
from ...labelers.plugins.registry import TOKENIZER_GROUP, find
from ...tokenizers.contract.tokenizer import Tokenizer
from ...tokenizers.contract.vocabulary import Vocabulary
from ...tokenizers.fitting.settings import FitSettings
from ...tokenizers.vq.base import TrainedTokenizer
from ..plan.weights import WeightsSource
from ..storage.store import Store
from .examples import LabelSource

_WITHOUT_EFFECT = {"checkpoint_every": True, "report_every": True, "perceptual": {"weights": True}}
"""Settings that the outcome doesn't depend on; weights are told by their sha256."""


class FitError(ValueError):
    """A fit that can't be done, or can't go on; the message is the reason."""


@dataclass(frozen=True)
class FitJob:
    """tokenizer: as the registry knows it, or module:Class. kind (as `Kind.describe` gives it), params: what it is made
    with. labels: where they come from. Checkpoints and metrics.jsonl lie below `prefix` of `store`, which nothing else
    may use. vocabulary: the text vocabulary's tokenizer.json, for tokenizers that use one. perceptual: whence the
    weights of the settings' perceptual loss; None takes their name in the settings.
    """

    tokenizer: str
    kind: dict[str, Any]
    params: dict[str, Any]
    settings: FitSettings
    seed: int
    labels: LabelSource
    store: Store
    prefix: str
    vocabulary: bytes | None = field(default=None, repr=False)
    perceptual: WeightsSource | None = None

    def new_tokenizer(self) -> TrainedTokenizer:
        """The tokenizer, not yet fitted. Raises FitError for one without a network, and for wrong parameters and
        settings."""
        tokenizer_class = find(TOKENIZER_GROUP, self.tokenizer, Tokenizer)
        if not issubclass(tokenizer_class, TrainedTokenizer):
            raise FitError(f"{self.tokenizer} has no network to be trained")
        try:
            tokenizer = tokenizer_class(kind_from(self.kind), tokenizer_class.Params.model_validate(self.params))
        except ValidationError as error:
            problem = error.errors()[0]
            raise FitError(f"{self.tokenizer}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
        tokenizer.settings = self.settings
        try:
            tokenizer.check_settings()
        except ValueError as error:
            raise FitError(f"{self.tokenizer}: {error}") from None
        if self.vocabulary is not None:
            tokenizer.use_vocabulary(Vocabulary.from_bytes(self.vocabulary))
        return tokenizer

    def perceptual_weights(self) -> str | None:
        """Where those of the perceptual loss lie on this machine, fetched if need be; None where there is no such loss.
        Raises WeightsError where they can't be had, or aren't those that the settings name."""
        wanted = self.settings.perceptual
        if wanted is None:
            return None
        return (self.perceptual or WeightsSource(wanted.weights)).fetch(wanted.sha256, Dinov2)

    def digest(self, version: int, examples: str) -> str:
        """16 hex digits of all that the outcome depends on: the job, the tokenizer's version, the program's own, and
        the digest of the examples."""
        told = {
            "tokenizer": [self.tokenizer, version, version_of("tokenloom")],
            "kind": self.kind,
            "params": self.params,
            "settings": self.settings.model_dump(mode="json", exclude=_WITHOUT_EFFECT, exclude_none=True),
            "seed": self.seed,
            "examples": examples,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
