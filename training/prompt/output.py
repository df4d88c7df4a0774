"""What is generated as a folder: a page, the labels as files, and what it was made of and how.

index.html                  the page, with its scripts, styles, data/ and pictures/
labels/KEY.MODALITY.EXT     a label each, as its kind is stored; KEY is the draw's number, or `average`
generate.json               the model, what was given, the settings, and all tokens
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...pipeline.dataset.manifest import DatasetError
from ...pipeline.preview.preview import new_folder, refuse_others
from ..forms.forms import Form, Said
from ..forms.given import Given
from ..model.fourm import FourM
from .average import average, can_be_averaged
from .draws import Answer
from .page import PAGE, Cards
from .prompt import Prompt
from .settings import PromptError

MARK = "generate.json"
AVERAGE = "average"
_LABELS = "labels"


@dataclass(frozen=True)
class Request:
    """What was asked for. checkpoint: its URL. weights: their digest. dataset: that says what ids mean, if one does."""

    checkpoint: str
    weights: str
    dataset: str | None
    prompt: Prompt
    count: int
    seed: int
    ensemble: bool


@dataclass
class Outcome:
    """page: its file. draws: how many. problems: by target how many draws have no label, or one with faults. alone:
    targets of which there is no average."""

    page: Path
    draws: int = 0
    problems: dict[str, int] = field(default_factory=dict)
    alone: tuple[str, ...] = ()


def output_folder(folder: str, overwrite: bool) -> Path:
    """Where it may be written. Raises PromptError where an earlier one lies there, unless that may be overwritten;
    DatasetError where something else does, and where nothing can be written."""
    if "://" in folder:
        raise DatasetError(f"{folder}: a page is written to a local folder; copy it where it is wanted")
    target = refuse_others(Path(folder).expanduser().resolve(), MARK)
    if (target / MARK).is_file() and not overwrite:
        raise PromptError(
            f"{target}: holds what was generated before; --overwrite puts this in its place, --output names another "
            f"folder"
        )
    return target


def weights_digest(model: FourM) -> str:
    """Of the network's tensors, which are on the CPU."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(memoryview(tensor.contiguous().numpy()).cast("B"))
    return digest.hexdigest()


def write_output(request: Request, draws: Iterable[Mapping[str, Answer]], target: Path) -> Outcome:
    """Writes the folder `target`, of `output_folder`, once all draws are made: complete, or not at all."""
    outcome, labels, told = Outcome(target / "index.html"), dict[str, list[Any]](), list[Any]()
    forms = request.prompt.targets
    with new_folder(target, PAGE) as folder:
        cards = Cards(folder, request.prompt)
        (folder / _LABELS).mkdir()
        for number, answers in enumerate(draws):
            kept = {name: _stored(folder, str(number), forms[name], one.said) for name, one in answers.items()}
            cards.add(f"draw {number}", {name: (answers[name].ids, said) for name, (said, _) in kept.items()})
            told.append({name: _told(answers[name], said, file) for name, (said, file) in kept.items()})
            for name, (said, _) in kept.items():
                outcome.problems[name] = outcome.problems.get(name, 0) + bool(said.problem)
                labels.setdefault(name, []).extend([said.label] if said.label is not None else [])
        outcome.draws = len(told)
        averages = _averages(folder, forms, labels, cards) if request.ensemble else {}
        outcome.alone = tuple(name for name in forms if name not in averages) if request.ensemble else ()
        cards.write(_asked(request))
        record = {**_asked(request), "draws": told, AVERAGE: averages}
        (folder / MARK).write_text(json.dumps(record, indent=1) + "\n", encoding="ascii")  # file names may be no text
    return outcome


def _averages(
    folder: Path, forms: Mapping[str, Form], labels: Mapping[str, list[Any]], cards: Cards
) -> dict[str, dict[str, Any]]:
    """Writes them; by target the file, and of how many labels it is."""
    kept = {
        name: _stored(folder, AVERAGE, form, Said(average(form.kind, labels[name])))
        for name, form in forms.items()
        if can_be_averaged(form.kind) and labels[name]
    }
    if kept:
        most = max(len(labels[name]) for name in kept)
        cards.add(f"average of {most} draws", {name: (None, said) for name, (said, _) in kept.items()}, first=True)
    return {name: {"file": file, "labels": len(labels[name])} for name, (_, file) in kept.items()}


def _stored(folder: Path, key: str, form: Form, said: Said) -> tuple[Said, str | None]:
    """What is said, and the file with its label. Where that can't be stored, as a plugin's kind may find, it is a
    problem."""
    if said.label is None:
        return said, None
    try:
        data = form.kind.encode(said.label)
    except Exception as error:
        return Said(None, f"its label can't be stored ({type(error).__name__}: {error})"), None
    path = f"{_LABELS}/{key}.{form.name}.{form.kind.extension}"
    (folder / path).write_bytes(data)
    return said, path


def _asked(request: Request) -> dict[str, Any]:
    prompt = request.prompt
    return {
        "tokenloom": version("tokenloom"),
        "checkpoint": request.checkpoint,
        "weights": request.weights,
        "dataset": request.dataset,
        "seed": request.seed,
        "count": request.count,
        "given": [_given(one) for one in prompt.given.values()],
        "targets": {
            name: {"tokenizer": form.digest, **prompt.settings[name].model_dump()}
            for name, form in prompt.targets.items()
        },
    }


def _given(given: Given) -> dict[str, Any]:
    """value: a digest of what the model was given."""
    value = np.ascontiguousarray(given.value)
    digest = hashlib.sha256(f"{value.shape} {value.dtype}\n".encode() + value.tobytes()).hexdigest()
    return {"modality": given.form.name, "from": given.said, "tokenizer": given.form.digest, "value": digest}


def _told(answer: Answer, said: Said, file: str | None) -> dict[str, Any]:
    problem = {"problem": said.problem} if said.problem else {}
    return {"tokens": answer.ids.tolist(), "file": file, **problem}
