"""Reading YAML: what it says, and in which line each of its keys stands."""

from __future__ import annotations

from typing import Any

import yaml


class YamlTextError(ValueError):
    """A text that isn't YAML. line: where, from 1; None where nobody knows."""

    def __init__(self, what: str, line: int | None) -> None:
        super().__init__(what)
        self.line = line


def read_yaml(data: bytes) -> tuple[Any, dict[str, int]]:
    """The content of a YAML text in UTF-8, or in UTF-16 with its byte order mark, and the line (from 1) of every key
    and list item by its dotted path.

    Raises YamlTextError, also for a key that is there twice: YAML forbids that, and PyYAML takes the last.
    """
    try:
        loader = yaml.SafeLoader(data)
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        _note(node, "", lines, set(), ())
        return (loader.construct_document(node) if node else None), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise YamlTextError(f"not YAML: {said}", mark.line + 1 if mark else None) from None
    except RecursionError:
        raise YamlTextError("not a recipe: it is nested more deeply than can be read", None) from None
    except yaml.reader.ReaderError as error:
        raise YamlTextError(
            f"not a text in UTF-8, nor in UTF-16 with a byte order mark ({error.reason}, at {error.position}): save it "
            f"as UTF-8",
            None,
        ) from None


def _note(node: yaml.Node | None, path: str, lines: dict[str, int], seen: set[int], above: tuple[int, ...]) -> None:
    """Notes the lines of all that is below a node, once where an anchor has it stand at several places."""
    if id(node) in above:
        raise YamlTextError(f"{path}: stands within itself; write it out instead of naming it with *", lines[path])
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        below = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        below = [(str(index), value, value) for index, value in enumerate(node.value)]
    else:
        below = []
    known: dict[str, int] = {}
    for name, place, value in below:
        inner, line = f"{path}.{name}" if path else name, place.start_mark.line + 1
        if name in known:
            raise YamlTextError(f"{inner}: is there twice, in line {known[name]} too; leave one of them out", line)
        known[name] = lines[inner] = line
        _note(value, inner, lines, seen, (*above, id(node)))
