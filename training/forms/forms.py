"""Forms: what users give as what a model takes, and what a model says as what users see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...labelers.contract.kinds import Image, Kind
from ...labelers.contract.views import ViewSettings
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.manifest import GoneError
from ...pipeline.dataset.tokenizers import load_tokenizer
from ...tokenizers.contract.grammar import Sentence, UngrammaticalError
from ...tokenizers.contract.special_tokens import EOS
from ...tokenizers.contract.tokenizer import Tokenizer
from ...tokenizers.text.base import VocabularyTokenizer
from ..data.mixture import PATCH
from ..data.ride_along import PIXELS
from ..model.config import ModalityConfig, ModelConfig
from ..model.from_data import SENTINELS_AROUND, digest_of
from .meanings import FormError, Meanings

_DATASETS_NAMES = {"semseg": "semseg_coco"}
"""Of modalities that datasets call otherwise than 4M does, beside `tok_` and the size behind the @."""


@dataclass(frozen=True)
class Said:
    """What ids stand for. label: as the modality's kind has it, None where there is none; problem: what was wrong."""

    label: Any
    problem: str = ""


class Form:
    """One modality of a model. card: None of pixels, and where nothing is known of it. tokenizer: what makes its ids,
    loaded when it is asked for."""

    def __init__(self, modality: ModalityConfig, card: ModalityCard | None, meanings: Meanings | None) -> None:
        self.modality, self.card, self._meanings = modality, card, meanings

    @property
    def name(self) -> str:
        """The model's name for it."""
        return self.modality.name

    @property
    def digest(self) -> str:
        """Of what gives its ids their meaning; "" of pixels, whose meaning is known."""
        return "" if self.card is None else digest_of(self.card)

    @property
    def is_photo(self) -> bool:
        """Whether a photograph is one of it: pixels, or the tokens of these."""
        return self.modality.form == "pixels" or (self.card is not None and self.card.labeler == "rgb")

    @cached_property
    def kind(self) -> Kind:
        if self.modality.form == "pixels":
            return Image()
        assert self.card is not None
        return self.card.label_kind

    @cached_property
    def tokenizer(self) -> Tokenizer:
        assert self.card is not None
        assert self._meanings is not None
        try:
            return load_tokenizer(self._meanings.store, self.name, self.card)
        except GoneError as error:
            raise FormError(
                f"{str(error).partition(':')[0]}: is missing, without which nobody knows what the ids of {self.name} "
                f"mean; copy it anew, or name a dataset that the model was trained on by --dataset"
            ) from None

    def encode(self, label: Any) -> np.ndarray:
        """A label as the model takes it: ids, int64 (k,); or itself, of pixels and embeddings."""
        if self.modality.form in ("pixels", "embeddings"):
            return label
        return self.tokenizer.encode([label])[0].astype(np.int64)

    def sentence(self) -> Sentence | None:
        """A text of it that is yet to be said, as long as the model has places for; None where its tokenizer has no
        grammar, and of images. Raises FormError where the model has too few places for any text."""
        grammar = self.tokenizer.grammar()
        if grammar is None or self.modality.form != "text":
            return None
        spec = self.tokenizer.spec
        try:
            # behind it come [EOS] and a sentinel, before it another
            return Sentence(grammar, min(spec.max_length, self.modality.length - SENTINELS_AROUND - 1))
        except UngrammaticalError as error:
            raise FormError(f"{self.name}: has {self.modality.length} places in the model: {error}") from None

    def decode(self, rows: Sequence[Sequence[int]]) -> list[Said]:
        """What the ids of each row stand for, up to its [EOS], where it is a text."""
        texts = self.modality.form == "text"
        cut = [row[: row.index(EOS)] if texts and EOS in row else row for row in map(list, rows)]
        return [self._decoded(np.array(ids, self.tokenizer.spec.dtype)) for ids in cut]

    def _decoded(self, ids: np.ndarray) -> Said:
        try:
            if isinstance(self.tokenizer, VocabularyTokenizer):
                label, faults = self.tokenizer.parse(ids)
                return Said(label, "; ".join(faults))
            return Said(self.tokenizer.decode([ids])[0])
        except Exception as error:  # tokenizers may be a plugin's, and what a model makes needn't be what they made
            return Said(None, f"its tokenizer can't decode it ({type(error).__name__}: {error})")


class Forms:
    """The forms of a model's modalities. source: of the model, for messages.

    Modalities go by the model's names, or by a dataset's: `depth` is 4M's tok_depth@224, `pixels` its rgb@224.
    """

    def __init__(self, config: ModelConfig, meanings: Meanings | None, source: str) -> None:
        self.config, self._meanings, self.source = config, meanings, source
        self._forms: dict[str, Form] = {}

    @property
    def known(self) -> bool:
        """Whether anything says what ids mean."""
        return self._meanings is not None

    @property
    def view(self) -> ViewSettings:
        """How pictures are cut for it."""
        return ViewSettings(size=self._meanings.size if self._meanings else self.config.image_size)

    def form(self, asked: str) -> Form:
        """Raises FormError for a modality that the model doesn't have, naming those that it has, and for one whose ids
        mean something else to the dataset that is to say what they mean."""
        modality = self._modality(asked)
        if modality.name not in self._forms:
            self._forms[modality.name] = Form(modality, self._card(modality), self._meanings)
        return self._forms[modality.name]

    def input(self, asked: str) -> Form:
        """Raises FormError where the model doesn't take it."""
        form = self.form(asked)
        if not form.modality.is_input:
            told = ", ".join(one.name for one in self.config.inputs)
            raise FormError(f"{self.source}: {form.name} is a target alone; what the model takes is {told}")
        self._refuse_unknown(form)
        return form

    def target(self, asked: str) -> Form:
        """Raises FormError where the model doesn't say it, or nothing says what its ids mean."""
        form = self.form(asked)
        if not form.modality.is_target:
            told = ", ".join(one.name for one in self.config.targets)
            raise FormError(f"{self.source}: {form.name} is an input alone; what the model says is {told}")
        self._refuse_unknown(form)
        return form

    def photo(self) -> Form:
        """What a photograph is given as: pixels where the model takes them, else tokens of them."""
        forms = [self.form(one.name) for one in self.config.inputs]
        found = sorted((form for form in forms if form.is_photo), key=lambda form: form.modality.form != "pixels")
        if not found:
            told = ", ".join(one.name for one in self.config.inputs)
            if self._meanings is None:
                raise FormError(
                    f"{self.source}: nothing says what its ids mean (the folder has no tokenizers/cards.json), nor "
                    f"whether a photograph is any of {told}; name a dataset that it was trained on by --dataset"
                )
            raise FormError(f"{self.source}: takes no photographs; it takes {told}: give a file as MODALITY=FILE")
        self._refuse_unknown(found[0])
        return found[0]

    def _modality(self, asked: str) -> ModalityConfig:
        by_name = {one.name: one for one in self.config.modalities}
        if asked in by_name:
            return by_name[asked]
        found = [one for one in self.config.modalities if datasets_name(one) == asked]
        if len(found) != 1:
            raise FormError(f"{self.source}: has no modality {asked!r}; it has {', '.join(by_name)}")
        return found[0]

    def _card(self, modality: ModalityConfig) -> ModalityCard | None:
        meanings = self._meanings
        if meanings is None or modality.form == "pixels":
            if meanings is not None and modality.grid and modality.grid[0] * PATCH != meanings.size:
                raise FormError(
                    f"{self.source}: takes {modality.grid[0] * PATCH} {PIXELS} on a side, and the views of "
                    f"{meanings.store.url} have {meanings.size}"
                )
            return None
        card = meanings.cards.get(modality.name) or meanings.cards.get(datasets_name(modality))
        if card is None or not (card.fitted or modality.form == "embeddings"):
            return None
        self._refuse_other_ids(modality, card, meanings)
        return card

    def _refuse_other_ids(self, modality: ModalityConfig, card: ModalityCard, meanings: Meanings) -> None:
        spec, has = card.tokens and card.tokens.spec, digest_of(card)
        odd = modality.tokenizer not in ("", has)
        if not odd and spec is not None and modality.form != "embeddings":
            odd = spec.vocabulary != modality.vocabulary or (spec.type != "text" and spec.length != modality.length)
        if odd:
            raise FormError(
                f"{self.source}: the ids of {modality.name} mean something else to {meanings.store.url}, whose "
                f"tokenizer is another (digest {has}, and the model's {modality.tokenizer or 'is not known'}); name a "
                f"dataset that the model was trained on"
            )

    def _refuse_unknown(self, form: Form) -> None:
        if form.card is not None or form.modality.form == "pixels":
            return
        lacking = "that dataset has none of it" if self._meanings else "the folder has no tokenizers/cards.json"
        raise FormError(
            f"{self.source}: {form.name} has no tokenizer, so that nobody knows what its ids mean ({lacking}); name a "
            f"dataset that has it by --dataset"
        )


def datasets_name(modality: ModalityConfig) -> str:
    """What a dataset calls a modality of 4M."""
    if modality.form == "pixels":
        return PIXELS
    plain = modality.name.partition("@")[0].removeprefix("tok_")
    return _DATASETS_NAMES.get(plain, plain)
