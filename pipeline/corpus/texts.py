"""A text as a sample: what a row or a line holds, as the field TEXT and without an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .left_out import few
from .names import clean_text
from .samples import LARGEST_TEXT, TEXT, BadSample, Sample, Selection, check_key, check_size, jsonable


def text_sample(row: Mapping[str, Any], selection: Selection, place: str) -> Sample:
    """The sample that a row of JSON values comes to. place: its key, unless the selection names a field for that.

    Raises BadSample for a row whose text is missing, null, empty or no text.
    """
    assert selection.text is not None
    if selection.text not in row:
        raise BadSample("NoText", f"there is no field {selection.text!r}; it has {few(sorted(row)) or 'none'}")
    text = row[selection.text]
    if text is None:
        raise BadSample("NoText", f"the field {selection.text!r} is null")
    if not isinstance(text, str):
        raise BadSample("NotText", f"the field {selection.text!r} holds a {type(text).__name__}, not a text")
    if not text or text.isspace():
        raise BadSample("EmptyText", f"the field {selection.text!r} is empty")
    text = clean_text(text)
    check_size("the text", len(text.encode()), LARGEST_TEXT)
    fields = {name: jsonable(value) for name, value in row.items() if name not in (selection.text, selection.key)}
    if selection.fields is not None:
        fields = {name: value for name, value in fields.items() if name in selection.fields}
    return Sample(key_of(row, selection, place), None, {**fields, TEXT: text})


def key_of(row: Mapping[str, Any], selection: Selection, place: str) -> str:
    """The row's key. Raises BadSample for one that can't name a file."""
    key = place
    if selection.key is not None:
        value = row.get(selection.key)
        key = str(value) if isinstance(value, str | int) else ""
    check_key(key)
    return key
