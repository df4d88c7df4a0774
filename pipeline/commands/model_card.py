"""The model card of a tokenizer that is published: what it is for, what made it, and how it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..dataset.cards import ModalityCard


def model_card(name: str, config: Mapping[str, Any], made: ModalityCard | None) -> bytes:
    """README.md with the hub's front matter. config: the tokenizer's config.json; made: what made its labels, where
    the source was a dataset's."""
    lines = [
        "---",
        "library_name: tokenloom",
        "tags: [tokenizer, vq, 4m]",
        *_front_matter(made),
        "---",
        "",
        f"# {name}",
        "",
        f"A VQ tokenizer of labels of the kind `{config['kind']['kind']}`, trained by tokenloom. It lies here in the "
        f"format of the tokenizers that were published with 4M-21 (arXiv 2406.09406): config.json and "
        f"model.safetensors.",
        "",
        *_table("labels", config["kind"]),
        *_table("network", {name: config[name] for name in _NETWORK if name in config}),
        *_table("input contract", config.get("contract", {})),
        *_table("training", config.get("fit", {})),
        *_licence(made),
        "## Use",
        "",
        "In a recipe:",
        "",
        "    modalities:",
        "      MODALITY:",
        f"        tokenizer: {{name: {_reference(made)}, weights: {name}}}",
        "",
        f"What it loses on a dataset that keeps labels: `tokenloom tokenizer eval DATASET MODALITY --tokenizer {name}`",
    ]
    return ("\n".join(lines) + "\n").encode()


_NETWORK = ("enc_type", "dec_type", "quant_type", "codebook_size", "num_codebooks", "latent_dim", "patch_size")


def _reference(made: ModalityCard | None) -> str:
    return made.tokens.tokenizer if made and made.tokens else "vq"


def _front_matter(made: ModalityCard | None) -> list[str]:
    licence = made.weights.licence if made and made.weights else made.licence if made else None
    return ["license: other", f"license_name: {json.dumps(licence)}"] if licence else []


def _licence(made: ModalityCard | None) -> list[str]:
    lines = ["## Licence", ""]
    if made is None:
        return [*lines, "Not stated: it depends on the labels that it was trained on.", ""]
    weights = made.weights
    by = f" with the weights {Path(weights.source).name} ({weights.licence})" if weights else ""
    return [*lines, f"Trained on labels by `{made.labeler}` ({made.licence}){by}.", ""]


def _table(title: str, values: Mapping[str, Any]) -> list[str]:
    """A Markdown table of what is said; nothing where nothing is."""
    said = {name: value for name, value in values.items() if value is not None}
    if not said:
        return []
    rows = [f"| {name} | {cell(value)} |" for name, value in said.items()]
    return [f"## {title.capitalize()}", "", "| | |", "|---|---|", *rows, ""]


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return (text if len(text) <= 300 else f"{text[:300]} ...").replace("|", "\\|").replace("\n", " ")
