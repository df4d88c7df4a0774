"""The texts of a corpus of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .contract.kinds import Text
from .contract.labeler import Batch, Labeler, Modality


class WholeText(Labeler):
    """The text of each sample of a corpus of texts, whole and as it is.

    `text`: the sample's own, which the corpus reader puts into the field `text`, whatever it is called there. It is
    tokenised whole; how much of it a batch sees is the trainer's choice.
    """

    makes = (Modality("text", Text(), tokenizer="documents"),)
    on = "nothing"

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        return {"text": [fields.get("text") for fields in batch.fields]}
