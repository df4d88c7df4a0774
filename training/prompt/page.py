"""The page of `tokenloom generate`: what was given, and of each draw what the model says, by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ...pipeline.preview.cells import LONGEST_TEXT, Pictures, Unshowable, readable, shown, shown_tokens
from ...pipeline.preview.preview import write_data
from ...pipeline.preview.survey import layout
from ...pipeline.views.view_pixels import GREY
from ..forms.forms import Form, Said
from .prompt import Prompt

PAGE = Path(__file__).parent / "page"
_DATA = "data/generate.js"

Json: TypeAlias = "dict[str, Any]"


class Cards:
    """Cards of a page in `folder`: the first of what is given, then one a draw."""

    def __init__(self, folder: Path, prompt: Prompt) -> None:
        self._folder, self._prompt, self._pictures = folder, prompt, Pictures(folder)
        self._cards: list[Json] = []
        self._blank = np.full((prompt.forms.view.size, prompt.forms.view.size, 3), GREY, np.uint8)
        self._given = self._of_given()

    def add(self, title: str, said: Mapping[str, tuple[np.ndarray | None, Said]], first: bool = False) -> None:
        """A card of a draw: ids and what they stand for, by target; ids are None of an average."""
        number, seen = len(self._cards) + 1, self._seen(said)
        cells = {}
        for place, (name, (ids, one)) in enumerate(said.items()):
            form = self._prompt.targets[name]
            what = "label" if ids is None else "decoded"
            cells[name] = self._cell(what, form, ids, one, seen, (number, str(place)))
        self._cards.insert(0 if first else number, {"title": title, "cells": cells})

    def write(self, asked: Json) -> None:
        """asked: what was asked for, as generate.json has it."""
        forms = {**{one.form.name: one.form for one in self._prompt.given.values()}, **self._prompt.targets}
        modalities = {
            name: {
                "name": readable(name, 100),
                "kind": form.kind.name,
                "layout": layout(form.kind),
                "keeps_tokens": True,
                "keeps_labels": True,
                "tokens": {"grid": form.modality.grid},
            }
            for name, form in forms.items()
        }
        told = {
            **{name: readable(str(asked[name]), 500) for name in ("checkpoint", "seed", "weights")},
            "dataset": asked["dataset"] and readable(asked["dataset"], 500),
            "settings": {
                name: {key: str(value) for key, value in one.model_dump().items()}
                for name, one in self._prompt.settings.items()
            },
            "modalities": modalities,
            "given": self._given,
            "cards": self._cards,
        }
        write_data(self._folder / _DATA, "generated", told)

    def _of_given(self) -> Json:
        photo, cells = self._prompt.photo, {}
        seen = self._blank if photo is None else photo
        for place, (name, one) in enumerate(self._prompt.given.items()):
            has_tokens = one.form.modality.form in ("grid", "text")
            ids = one.value if has_tokens else None
            problem = "" if one.label is not None else "its tokens can't be decoded"
            cell = self._cell("label", one.form, ids, Said(one.label, problem), seen, (0, str(place)))
            cells[name] = {**cell, "from": readable(one.said, LONGEST_TEXT)}
        return cells

    def _seen(self, said: Mapping[str, tuple[np.ndarray | None, Said]]) -> np.ndarray:
        """What things are drawn on: the photograph that was given, or that the draw itself has made."""
        if self._prompt.photo is not None:
            return self._prompt.photo
        made = (one.label for name, (_, one) in said.items() if self._prompt.targets[name].is_photo)
        return next((label for label in made if label is not None), self._blank)

    def _cell(
        self, what: str, form: Form, ids: np.ndarray | None, said: Said, seen: np.ndarray, file: tuple[int, str]
    ) -> Json:
        """what: `label` or `decoded`."""
        label = Unshowable(said.problem) if said.label is None else said.label
        cell: Json = {what: shown(form.kind, label, seen, self._pictures, file)}
        if ids is not None:
            cell["tokens"] = shown_tokens(form.tokenizer, ids)
        if said.problem and said.label is not None:
            cell |= {"state": "unread", "note": readable(said.problem, LONGEST_TEXT)}
        return cell
