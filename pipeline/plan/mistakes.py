"""Checking what a user wrote against a model, and saying what is wrong: the key, what about it, and the way out."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Mistake:
    """key: with dots between, "" for the whole."""

    key: str
    text: str

    def below(self, where: str) -> Mistake:
        """The mistake as one of what stands at the key `where`."""
        return Mistake(f"{where}.{self.key}" if self.key else where, self.text)

    def __str__(self) -> str:
        return f"{self.key}: {self.text}" if self.key else self.text


class MistakesError(ValueError):
    """Something that doesn't fit its model. found: every mistake, none of them twice."""

    def __init__(self, found: Sequence[Mistake]) -> None:
        super().__init__("\n".join(map(str, found)))
        self.found = found


@dataclass(frozen=True)
class Places:
    """Where keys stand: `source` as a whole, and `of_keys` by key, as `mine.yaml:7` or `--set a.b=c`. It makes no
    difference to whoever compares what they are of."""

    source: str = field(compare=False)
    of_keys: Mapping[str, str] = field(default_factory=dict, compare=False)

    def of(self, key: str) -> str:
        """The place of the key, or of one below it that was set alone, or of the innermost that holds it."""
        below = (place for one, place in self.of_keys.items() if one.startswith(f"{key}."))
        if key and key not in self.of_keys and (place := next(below, None)):
            return place
        while key and key not in self.of_keys:
            key = key.rpartition(".")[0]
        return self.of_keys.get(key, self.source)


def checked(model: type[M], data: Mapping[str, Any]) -> M:
    """The data as an instance of the model. MistakesError."""
    try:
        made = model.model_validate(dict(data))
    except ValidationError as error:
        found = [_mistake(problem, model) for problem in error.errors()]
        raise MistakesError(list(_merged(found))) from None
    if found := list(_no_numbers(data, made)):
        raise MistakesError(found)
    return made


def _merged(found: Sequence[Mistake]) -> Iterator[Mistake]:
    """One mistake a key. Where something may be of several types there is one for each, or one of its parts."""
    texts: dict[str, list[str]] = {}
    for mistake in found:
        texts.setdefault(mistake.key, []).append(mistake.text)
    for key, said in texts.items():
        if not any(other.startswith(f"{key}.") for other in texts):
            yield Mistake(key, " or ".join(dict.fromkeys(said)))


def _mistake(problem: Any, model: type[BaseModel]) -> Mistake:
    path = [str(part) for part in problem["loc"]]
    path = [part for part in path if part not in ("str", "list[str]", "[key]") and not part.startswith("literal[")]
    key, kind = ".".join(path), problem["type"]
    if kind == "extra_forbidden":
        return Mistake(key, f"unknown key; {_instead(path, model)}")
    if kind == "missing" and isinstance(problem["loc"][-1], int):
        return Mistake(".".join(path[:-1]), "input has too few items")
    if kind == "missing":
        option = key.removesuffix(".url")
        way = f"give --{option} URL, or write it" if option in ("corpus", "output") else "write it"
        return Mistake(key, f"it is missing; {way}")
    if kind == "value_error":
        return Mistake(key, str(problem["ctx"]["error"]))
    if kind in ("model_type", "dict_type", "list_type") or (kind == "too_short" and not problem["input"]):
        return Mistake(key, _to_write(kind, problem["input"], path, model))
    return Mistake(key, f"{problem['msg'][0].lower()}{problem['msg'][1:]}")


def _to_write(kind: str, given: Any, path: Sequence[str], model: type[BaseModel]) -> str:
    """What to write where there is nothing, or a value in place of keys or of a list."""
    nested = _model_at(path, model)
    fields = nested.model_fields if nested else {}
    first = next((name for name, info in fields.items() if info.is_required()), next(iter(fields), "KEY"))
    value = given if isinstance(given, str) and given and "@" not in given else "..."  # no credentials of a URL
    if kind == "model_type":
        what = f"write keys, as `{path[-1]}: {{{first}: {value}}}`; there are {', '.join(fields)}"
    elif kind == "dict_type" or isinstance(given, Mapping):
        what = f"write at least one by its name, as `NAME: {f'{{{first}: ...}}' if fields else '...'}`"
    else:
        what = f"write a list, as [{value}]"
    return f"it is empty; {what}" if given in (None, "", [], {}) else what


def _instead(path: Sequence[str], model: type[BaseModel]) -> str:
    """What may be meant by the unknown key at the end of `path`."""
    siblings = list(_keys(_model_at(path[:-1], model)))
    homes = [home for home, key in _all_keys(model) if key == path[-1]]
    if homes:
        return f"it goes {' or '.join(f'under {home}' if home else 'to the top' for home in homes)}"
    close = difflib.get_close_matches(path[-1], siblings, n=1)
    return f"did you mean {close[0]!r}?" if close else f"the keys here are {', '.join(siblings) or 'none'}"


def _model_at(path: Sequence[str], model: type[BaseModel] | None) -> type[BaseModel] | None:
    """The model of what stands at the path; None where anything may. Names and indices don't lead to another one."""
    for part in path:
        model = _keys(model).get(part, model)
    return model


def _keys(model: type[BaseModel] | None) -> dict[str, type[BaseModel] | None]:
    """The keys of a model, each with the model of what stands there, or of each item or value of it."""
    return {name: _nested(info.annotation) for name, info in model.model_fields.items()} if model else {}


def _all_keys(model: type[BaseModel], home: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a model and of those in it, each behind where it belongs."""
    for key, nested in _keys(model).items():
        yield home, key
        if nested:
            yield from _all_keys(nested, f"{home}.{key}" if home else key)


def _nested(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _nested(part))), None)


def _no_numbers(data: Any, made: Any, key: str = "") -> Iterator[Mistake]:
    """What pydantic takes for numbers and nobody means: true and false, and what JSON can't write."""
    if isinstance(made, BaseModel):
        made = dict(made)
    if isinstance(data, Mapping) and isinstance(made, Mapping):
        for name, value in data.items():
            yield from _no_numbers(value, made.get(name), f"{key}.{name}" if key else str(name))
    elif isinstance(data, list | tuple) and isinstance(made, list | tuple):
        for index, (value, one) in enumerate(zip(data, made, strict=False)):
            yield from _no_numbers(value, one, f"{key}.{index}")
    elif isinstance(data, bool) and isinstance(made, int | float) and not isinstance(made, bool):
        yield Mistake(key, "input should be a number, not true or false")
    elif isinstance(made, float) and not math.isfinite(made):
        yield Mistake(key, "input should be a finite number")
