"""What a user gives of a sample: photographs, files, texts, and samples of datasets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...labelers.contract.images import BadImage, decode_view, read_header
from ...labelers.contract.instances import InstanceSet
from ...labelers.contract.kinds import Image, Instances, Kind, Record, Text
from ...labelers.contract.views import ViewSettings, cut_view
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.dataset import open_dataset
from ...pipeline.storage.errors import StorageError
from ...pipeline.storage.store import Store
from ..model.from_data import digest_of
from .forms import Form, Forms
from .meanings import FormError

_SHOWN = 200
"""Characters of what isn't a file's name."""


@dataclass(frozen=True)
class Given:
    """One modality of a sample. value: as the model takes it, see `Form.encode`. label: as its kind has it. said: what
    the user wrote. named: whether that names the modality; of DATASET#KEY it is one of all that there are."""

    form: Form
    value: np.ndarray
    label: Any
    said: str
    named: bool = True


def read_given(forms: Forms, said: Sequence[str]) -> dict[str, Given]:
    """What `--from` names, by the model's modality: PHOTO, MODALITY=FILE, MODALITY=TEXT, MODALITY=DATASET#KEY, or
    DATASET#KEY for all that the model takes of it.

    Raises FormError for what can't be read, isn't what its modality is, or is there twice.
    """
    found: dict[str, Given] = {}
    for one in said:
        for given in _read(forms, one):
            if given.form.name in found:
                raise FormError(
                    f"--from {one}: {given.form.name} is given already, by --from {found[given.form.name].said}"
                )
            found[given.form.name] = given
    return found


def _read(forms: Forms, said: str) -> list[Given]:
    name, equals, value = said.partition("=")
    if equals and "/" not in name and not _is_file(said):
        form = forms.input(name)
        if (sample := _sample_named(value)) is not None:
            return _of_sample(forms, *sample, said, form)
        return [_given(form, _label(form, value, forms.view), said)]
    if (sample := _sample_named(said)) is not None:
        return _of_sample(forms, *sample, said)
    form = forms.photo()
    return [_given(form, photo(said, forms.view), said)]


def _given(form: Form, label: Any, said: str) -> Given:
    try:
        return Given(form, form.encode(label), label, said)
    except ValueError as error:  # a palette without colours, a map of another size
        raise FormError(f"--from {said}: {form.name} can't be written as tokens: {error}") from None


def photo(path: str, settings: ViewSettings) -> np.ndarray:
    """The view of a photograph, uint8 (size, size, 3): its centre, as the first view of a dataset's samples.

    Raises FormError naming a file that can't be read.
    """
    data = _content(path)
    try:
        size = read_header(data)
        return decode_view(data, cut_view(0, "", 0, size.height, size.width, settings))
    except BadImage as error:
        raise FormError(f"{path}: {error}") from None


def _label(form: Form, value: str, settings: ViewSettings) -> Any:
    """A label of the form's kind, of a file or as it is written."""
    kind = form.kind
    if form.is_photo:
        return photo(value, settings)
    if isinstance(kind, Text):
        return _text(form, value)
    written = isinstance(kind, Record | Instances) and value.lstrip()[:1] in ("{", "[")
    if not written and not value.endswith(f".{kind.extension}"):
        also = ", or the JSON itself" if kind.extension == "json" else ""
        raise FormError(f"--from {form.name}={value}: a label of it is a file that ends in .{kind.extension}{also}")
    data = value.encode() if written else _content(value)
    try:
        return _viewed(_checked(kind, kind.decode(data)), kind, settings)
    except Exception as error:  # bytes of any origin, for kinds that may be a plugin's
        what = f"not JSON ({error})" if isinstance(error, json.JSONDecodeError) else str(error)
        raise FormError(f"--from {form.name}={value}: isn't a label of {form.name}: {what}") from None


def _text(form: Form, value: str) -> str:
    """Of a file, which what ends in .txt and is one word names, or as it is written."""
    is_file = value.endswith(".txt") and len(value.split()) == 1
    try:
        return _content(value).decode() if is_file else value.encode().decode()
    except UnicodeError:
        shown = value.encode(errors="replace").decode()
        raise FormError(f"--from {form.name}={shown}: isn't UTF-8, which texts are to be") from None


def _checked(kind: Kind, label: Any) -> Any:
    """Scores may be missing: no token tells them, so that what is generated has none."""
    if isinstance(kind, Instances) and isinstance(label, InstanceSet):
        kind = replace(kind, scores=label.scores is not None)
    return kind.check(label)


def _viewed(label: Any, kind: Kind, settings: ViewSettings) -> Any:
    """A map's centre in the size of a view."""
    if not isinstance(kind, Image) or label.shape[:2] == (settings.size, settings.size):
        return label
    return kind.crop(label, cut_view(0, "", 0, label.shape[0], label.shape[1], settings))


def _of_sample(forms: Forms, url: str, key: str, said: str, only: Form | None = None) -> list[Given]:
    """View 0 of a dataset's sample: the form's tokens, or all of those that the model takes."""
    dataset = open_dataset(url)
    cards = dataset.manifest.modalities
    wanted = [only] if only else [forms.form(one.name) for one in forms.config.inputs if one.form != "pixels"]
    names = {form.name: name for form in wanted if (name := _name_in(form, cards)) is not None}
    if not names:
        told = only.name if only else "nothing"
        raise FormError(f"--from {said}: {url} has no tokens of {told} that mean the same to the model")
    as_labels = [name for name in names.values() if cards[name].tokens is None]
    row = dataset.get(key, modalities=list(names.values()), labels=as_labels)
    found = []
    for form in wanted:
        value = row.values[names[form.name]] if form.name in names else None
        if value is not None:
            label = value if form.modality.form == "embeddings" else form.decode([value.tolist()])[0].label
            taken = value if label is value else value.astype(np.int64)
            found.append(Given(form, taken, label, said, named=only is not None))
    return found


def _name_in(form: Form, cards: Mapping[str, ModalityCard]) -> str | None:
    """What a dataset calls the form's modality, where its ids are the same and kept."""
    if form.card is None:
        return None
    for name, card in cards.items():
        kept = card.keeps_tokens and card.fitted and card.tokens is not None
        if form.modality.form == "embeddings":
            kept = card.keeps_labels and card.kind == form.card.kind
        if kept and digest_of(card) == digest_of(form.card) and card.labeler == form.card.labeler:
            return name
    return None


def _sample_named(value: str) -> tuple[str, str] | None:
    """URL and key of DATASET#KEY."""
    url, mark, key = value.partition("#")
    return (url, key) if mark and key and url and not _is_file(value) and " " not in url else None


def _is_file(path: str) -> bool:
    try:
        return Path(path).expanduser().is_file()
    except (OSError, ValueError):  # a text that no file can be called
        return False


def _content(path: str) -> bytes:
    """Of a file here, or at a URL. Raises FormError where there is none."""
    try:
        if "://" in path:
            folder, _, name = path.rpartition("/")
            return Store(folder).read(name)
        return Path(path).expanduser().read_bytes()
    except FileNotFoundError:
        raise FormError(f"{path}: no such file") from None
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise FormError(f"{path[:_SHOWN]}: can't be read as a file ({why}); name one, or write MODALITY=...") from None
