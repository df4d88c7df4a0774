"""The corpus's own captions."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from .contract.kinds import Text
from .contract.labeler import Batch, Labeler, Modality


class CaptionParams(BaseModel):
    """field: the corpus field that holds the caption; where there is no `caption`, `text` is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    field: str = "caption"


class Caption(Labeler):
    """The caption that the corpus has for each image, cleaned.

    `caption`: the text of the corpus field, of several the first. Line breaks and tabs become spaces, other control
    characters go, halves of surrogate pairs become U+FFFD; everything else stays as it is, in any script. A sample
    whose caption is missing or blank has none.
    """

    makes = (Modality("caption", Text()),)
    on = "nothing"
    version = 2
    Params: ClassVar[type[BaseModel]] = CaptionParams

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        return {"caption": [own_caption(fields, self.params.field) for fields in batch.fields]}


def own_caption(fields: Mapping[str, Any], name: str) -> str | None:
    """The caption that the corpus field `name` holds (`text` in place of a `caption` that isn't there), cleaned; None
    where it is missing or blank.

    Raises ValueError for a field that holds anything but a text, or a list of texts.
    """
    value = fields.get(name, fields.get("text") if name == "caption" else None)
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"the corpus field {name!r} holds a {type(value).__name__}, not a text")
    return clean(value) or None


def clean(text: str) -> str:
    """Text without control characters, half surrogates, or space around it."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.translate(_control_characters()).strip()


@cache
def _control_characters() -> dict[int, str]:
    """Unicode's category Cc: white space to a space, the rest to nothing."""
    controls = (chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cc")
    return {ord(control): " " if control.isspace() else "" for control in controls}
