"""What tokenizers are fitted to: a sample of the corpus that depends on the corpus alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from ..labelers.caption import Caption
from ..labelers.labeler import Batch
from ..tokenizers.vocabulary import Vocabulary
from .corpus import Corpus, Shard, UnitLimits
from .manifest import ModalityCard
from .recipe import Recipe
from .storage import Store
from .tokenizer_store import sample_labels, texts_among
from .weights import localise
from .worklist import Work


def sample_of(shards: Sequence[Shard], units: int) -> list[Work]:
    """About `units` units: the first ones of shards that are spread evenly over the corpus."""
    each = math.ceil(units / len(shards))
    count = min(units, len(shards))
    return [Work(shards[index * len(shards) // count], 0, None, (), units=each) for index in range(count)]


def vocabulary_for(
    recipe: Recipe, store: Store, cards: Mapping[str, ModalityCard], sample: Sequence[Work]
) -> Vocabulary:
    """The given vocabulary; or one trained on the texts that were put aside, or, where the recipe makes none, on the
    sample's captions: so that a caption modality that is added later finds the vocabulary that it would have had."""
    if recipe.vocabulary:
        return Vocabulary.from_bytes(Path(localise(recipe.vocabulary, recipe.storage_options)).read_bytes())
    names = texts_among(cards)
    if names:
        return Vocabulary.train(text for name in names for text in sample_labels(store, name, cards[name]))
    return Vocabulary.train(_captions(recipe, sample))


def _captions(recipe: Recipe, sample: Sequence[Work]) -> Iterator[str]:
    corpus, limits, caption = Corpus(recipe.corpus), UnitLimits(**recipe.units.model_dump()), Caption()
    for work in sample:
        for unit in islice(corpus.read(work.shard, limits=limits), work.units):
            fields = [one.fields for one in unit.samples]
            labels = caption.label(Batch([one.key for one in unit.samples], None, [], fields))["caption"]
            yield from (label for label in labels if label is not None)
