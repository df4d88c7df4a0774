"""The card of an exported dataset: which modalities there are, what made them, and under what licences."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...pipeline.commands.console import counted
from ...pipeline.commands.model_card import cell
from ...pipeline.dataset.cards import ModalityCard
from .pieces import Receipt, Source


def dataset_card(source: Source, features: Mapping[str, Any], receipts: Sequence[Receipt]) -> bytes:
    """README.md with the hub's front matter, which is YAML: JSON is, too."""
    texts = source.manifest.corpus.reading.get("text") is not None
    each = "sample" if source.views == 1 else f"view of a sample ({source.views} of each)"
    rows, size = sum(one.rows for one in receipts), sum(one.bytes for one in receipts)
    cards = source.cards
    splits = [{"name": "train", "num_examples": rows, "num_bytes": size}]
    front = {
        "license": "other",
        "license_name": "of-each-modality",
        "tags": ["tokens", "multimodal", "tokenloom"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
        "dataset_info": {"features": [_yaml(name, one) for name, one in features.items()], "splits": splits},
    }
    lines = [
        "---",
        *(f"{name}: {json.dumps(value)}" for name, value in front.items()),
        "---",
        "",
        f"# Tokens of {'texts' if texts else 'images'}",
        "",
        f"{counted(rows, 'row')}, one for each {each}, made by tokenloom. A row has the sample's key, the number of "
        f"the view, and the token ids of each modality, null where the sample lacks it.",
        "",
        *_table(
            "Modalities",
            ("modality", "kind", "tokens", "ids below", "grid", "tokenizer", "text vocabulary"),
            ([name, *_tokens(card)] for name, card in cards.items()),
        ),
        *_table(
            "Where the labels are from",
            ("modality", "labeler", "its licence", "weights", "their licence", "SHA-256"),
            ([name, *_origin(card)] for name, card in cards.items()),
        ),
        f"The {'texts' if texts else 'images'} have licences of their own, which aren't known here.",
        "",
        "```python",
        "import datasets",
        "",
        'rows = datasets.load_dataset("FOLDER", split="train")',
        "```",
    ]
    return ("\n".join(lines) + "\n").encode()


def _yaml(name: str, feature: Mapping[str, Any]) -> dict[str, Any]:
    """A feature as the front matter has it."""
    if feature["_type"] == "Value":
        return {"name": name, "dtype": feature["dtype"]}
    length = {"length": feature["length"]} if "length" in feature else {}
    return {"name": name, "sequence": feature["feature"]["dtype"], **length}


def _tokens(card: ModalityCard) -> list[str]:
    tokens = card.tokens
    assert tokens is not None
    assert tokens.spec is not None
    spec = tokens.spec
    length = f"{spec.length}" if spec.length is not None else f"up to {spec.max_length}"
    grid = " x ".join(map(str, spec.grid)) if spec.grid else "-"
    weights = f", {tokens.weights.source} ({tokens.weights.licence})" if tokens.weights else ""
    by = f"{tokens.tokenizer} {card.tokenizer_digest}{weights}"
    return [card.kind["kind"], length, f"{spec.vocabulary:,}", grid, by, _vocabulary(card)]


def _vocabulary(card: ModalityCard) -> str:
    assert card.tokens is not None
    return card.tokens.vocabulary.digest[:16] if card.tokens.vocabulary else "-"


def _origin(card: ModalityCard) -> list[str]:
    if card.weights is None:
        return [card.labeler, card.licence, "none", "-", "-"]
    return [card.labeler, card.licence, card.weights.source, card.weights.licence, card.weights.sha256[:16]]


def _table(title: str, headings: Sequence[str], rows: Iterator[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(map(cell, row))} |" for row in rows]
    return [f"## {title}", "", f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}", *lines, ""]
