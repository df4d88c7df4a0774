"""tokenloom: turns a corpus of images into an aligned, tokenised, any-to-any training set."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .labelers.contract.instances import InstanceSet, Mask
    from .labelers.contract.kinds import (
        Embeddings,
        FeatureMap,
        Image,
        Instances,
        Kind,
        LabelError,
        Record,
        Text,
        Vector,
    )
    from .labelers.contract.labeler import Batch, Labeler, Modality, Resources, Weights
    from .labelers.contract.views import View
    from .labelers.plugins.conformance import check_labeler
    from .pipeline.dataset.dataset import Dataset, open_dataset
    from .pipeline.run import run
    from .tokenizers.contract.token_spec import TokenSpec
    from .tokenizers.contract.tokenizer import Tokenizer

__version__ = version("tokenloom")

_HOMES = {
    ".labelers.contract.instances": "InstanceSet Mask",
    ".labelers.contract.kinds": "Embeddings FeatureMap Image Instances Kind LabelError Record Text Vector",
    ".labelers.contract.labeler": "Batch Labeler Modality Resources Weights",
    ".labelers.contract.views": "View",
    ".labelers.plugins.conformance": "check_labeler",
    ".pipeline.dataset.dataset": "Dataset open_dataset",
    ".pipeline.run": "run",
    ".tokenizers.contract.token_spec": "TokenSpec",
    ".tokenizers.contract.tokenizer": "Tokenizer",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [  # noqa: RUF022 - by what one looks for first
    "run", "open_dataset", "Dataset", "Labeler", "Batch", "Modality", "Resources", "Weights", "View",
    "Kind", "Image", "FeatureMap", "Vector", "Instances", "Text", "Embeddings", "Record", "LabelError",
    "InstanceSet", "Mask", "Tokenizer", "TokenSpec", "check_labeler", "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for: the command line must answer at once."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name], __name__), name)
