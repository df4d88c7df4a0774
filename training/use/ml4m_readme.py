"""What ml-4m has to be told of an export: the names of folders and domains, and what its MODALITY_INFO says otherwise
(fourm/data/modality_info.py at 4600165)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...labelers.contract.kinds import Embeddings
from ...pipeline.commands.console import counted
from ...pipeline.dataset.cards import ModalityCard
from .ml4m_labels import CODED, WHOLE, WRITERS
from .pieces import Source

CROPS = "crop_settings"
PIXELS = "rgb"
_KNOWN_SIZES = (224, 448)
_T5_DIM, _T5_LENGTH = 4096, 77


@dataclass(frozen=True)
class Known:
    """What ml-4m's MODALITY_INFO says of tokens: their name there, ids, and tokens in views of 224 pixels."""

    name: str
    vocabulary: int
    tokens: int


KNOWN = {
    "rgb": Known("tok_rgb", 16384, 196),
    "depth": Known("tok_depth", 8192, 196),
    "normal": Known("tok_normal", 8192, 196),
    "semseg_coco": Known("tok_semseg", 4096, 196),
    "canny_edge": Known("tok_canny_edge", 8192, 196),
    "sam_edge": Known("tok_sam_edge", 8192, 196),
    "clip": Known("tok_clip", 8192, 196),
    "dinov2": Known("tok_dinov2", 8192, 256),
    "imagebind": Known("tok_imagebind", 8192, 256),
    "dinov2_global": Known("tok_dinov2_global", 8192, 16),
    "imagebind_global": Known("tok_imagebind_global", 8192, 16),
}


def folder_of(source: Source, name: str) -> str:
    """The folder of a modality, which is its name in ml-4m."""
    tokens = source.cards[name].tokens
    if name in WRITERS or tokens is None or tokens.spec is None:
        return name
    known = KNOWN[name].name if name in KNOWN else f"tok_{name}"
    return known if tokens.spec.grid is None else f"{known}@{source.manifest.views['size']}"


def folders(source: Source) -> list[str]:
    pixels = [PIXELS] if has_pixels(source) else []
    return [*pixels, *(folder_of(source, name) for name in source.modalities), CROPS]


def has_pixels(source: Source) -> bool:
    """Whether images come along: with their tokens, and with boxes, since ml-4m crops these by the size of an image."""
    return any(name in (PIXELS, *WHOLE) for name in source.modalities)


def data_path(source: Source, pieces: int) -> str:
    """OUT stands for the output's folder."""
    return f"OUT/[{','.join(folders(source))}]/shard-{{00000..{pieces - 1:05d}}}.tar"


def differences(source: Source) -> Iterator[str]:
    """What ml-4m has to be told otherwise, or takes otherwise than it is."""
    size = source.manifest.views["size"]
    for name, card in source.cards.items():
        if name not in WRITERS:
            yield from _tokens_differ(folder_of(source, name), name, card, size)
    t5 = source.cards["t5_caption"].label_kind if "t5_caption" in source.modalities else None
    if isinstance(t5, Embeddings) and (t5.dim != _T5_DIM or t5.max_length > _T5_LENGTH):
        has = f"up to {t5.max_length} vectors of {t5.dim} numbers"
        yield f"t5_caption: it has {has}, and ml-4m takes {_T5_LENGTH} of {_T5_DIM}"
    if source.views == 1:
        return
    for name in ("color_palette", "metadata"):
        if name in source.modalities and source.cards[name].on == "view":
            yield f"{name}: ml-4m takes that of view 0 for all views"
    if "human_poses" in source.modalities:
        yield "human_poses: ml-4m doesn't mirror them with views that are mirrored"


def _tokens_differ(folder: str, name: str, card: ModalityCard, size: int) -> Iterator[str]:
    """What of its MODALITY_INFO has to be changed for tokens."""
    assert card.tokens is not None
    assert card.tokens.spec is not None
    spec, known = card.tokens.spec, KNOWN.get(name)
    assert spec.length is not None  # as Ml4m.refuses sees to
    has = f"{counted(spec.length, 'token')} of {spec.vocabulary} ids"
    if known is None or (spec.grid and size not in _KNOWN_SIZES):
        yield f"{folder}: ml-4m's MODALITY_INFO doesn't know it; it has {has}"
        return
    tokens = known.tokens * (size // 224) ** 2 if spec.grid else known.tokens
    if spec.length != tokens or spec.vocabulary > known.vocabulary:
        yield f"{folder}: it has {has}, and ml-4m's MODALITY_INFO says {tokens} of {known.vocabulary}"


def readme(source: Source, pieces: int) -> str:
    pixels = f"{PIXELS}@{source.manifest.views['size']}"
    domains = [pixels if folder == PIXELS else folder for folder in folders(source) if folder != CROPS]
    targets = [name for name in domains if name not in (pixels, "t5_caption")]
    differing = [f"- {line}" for line in differences(source)]
    lines = [
        "# Tokens for ml-4m",
        "",
        "Written by tokenloom as ml-4m's README_DATA.md describes it. In the configuration of its data, with this",
        "folder for OUT:",
        "",
        "    type: multimodal",
        f"    in_domains: {'-'.join(domains)}",
        f"    out_domains: {'-'.join(targets)}",
        f"    data_path: '{data_path(source, pieces)}'",
        "    use_wds: True",
        f"    main_augment_domain: {pixels}",
        "    aligned_captions: True",
        f"    tok_train_aug: {source.views > 1}",
        "",
        *(["What it has to be told otherwise, or takes otherwise:", "", *differing, ""] if differing else []),
        "Whose ids these are; the models that 4M published know those of 4M's own tokenizers alone:",
        "",
        *(f"- {folder_of(source, name)}: {_ids(card)}" for name, card in source.cards.items() if _has_ids(name)),
    ]
    return "\n".join(lines) + "\n"


def _has_ids(name: str) -> bool:
    return name not in WRITERS or name in CODED


def _ids(card: ModalityCard) -> str:
    tokens = card.tokens
    assert tokens is not None
    weights = f"by the weights {tokens.weights.source}" if tokens.weights else "fitted to this dataset"
    return f"{tokens.tokenizer}, {weights} ({card.tokenizer_digest})"
