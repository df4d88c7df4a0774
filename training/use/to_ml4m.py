"""Exports for ml-4m, the code of 4M: a folder for each modality, in each a tar of the same samples in the same order.

    tok_depth@224/shard-00000.tar    KEY.npy, int16 (views, tokens)
    caption/shard-00000.tar          KEY.json: labels that ml-4m turns into tokens itself, from the labels that are kept
    rgb/shard-00000.tar              KEY.jpg or .png: whole images, upright, with the modality rgb
    crop_settings/shard-00000.tar    KEY.npy, int64 (views, 5): top, left, height, width, mirrored

As its README_DATA.md has it, and fourm/data/unified_datasets.py at 43558d1. ml-4m knows no sample that lacks a
modality: such are left out.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...labelers.contract.codecs import from_npy, to_npy
from ...labelers.contract.images import read_header
from ...labelers.contract.views import ViewSettings, cut_view
from ...pipeline.corpus.corpus import Corpus, CorpusError, CorpusSettings, Shard, UnitLimits
from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.listings import taken_shards
from ...pipeline.dataset.reader import Column, aligned
from .ml4m_labels import WRITERS, upright
from .pieces import ExportError, Format, Made, Piece, Receipt, Source
from .to_webdataset import stem_of, tar_of

CROPS = "crop_settings"
PIXELS = "rgb"
_MOST_INT16 = 2**15
_KNOWN_SIZES = (224, 448)


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

_OTHERWISE = {
    "sam_instance": "ml-4m reads it as pickled objects, which tokenloom doesn't write",
    "human_poses": "ml-4m reads it with the ids of its own pose tokenizer, as tokenloom doesn't keep them",
}


class Ml4m(Format):
    name = "ml-4m"
    most_rows = 1024

    def refuses(self, name: str, card: ModalityCard) -> str:
        if name in _OTHERWISE:
            return _OTHERWISE[name]
        if name == "det" and card.on == "view":
            return "ml-4m crops the boxes of whole images itself, and these are of views"
        if name in WRITERS:
            return "" if card.keeps_labels else "ml-4m tokenises it itself, and its labels aren't kept (`keep: both`)"
        if not card.keeps_tokens:
            return super().refuses(name, card)
        if card.tokens and card.tokens.spec and card.tokens.spec.length is None:
            return "ml-4m takes such tokens as labels that it tokenises itself, and knows none of that name"
        return ""

    def check(self, source: Source) -> None:
        for name, card in source.cards.items():
            size = card.tokens.spec.vocabulary if card.tokens and card.tokens.spec and name not in WRITERS else 0
            if size > _MOST_INT16:
                raise ExportError(
                    f"{source.reader.store.url}: {name} has {size} ids, and ml-4m holds tokens as int16: give it a "
                    f"tokenizer of at most {_MOST_INT16} codes and run its recipe with --replace {name}, or export the "
                    f"others by --modality"
                )

    def make(self, source: Source, piece: Piece) -> Made:
        members: dict[str, dict[str, bytes]] = {folder: {} for folder in folders(source)}
        left_out: Counter[str] = Counter()
        shards = taken_shards(source.reader.store, source.manifest.corpus)
        for unit in piece.units:
            for sample in self._samples(source, unit, shards):
                if isinstance(sample, str):
                    left_out[f"ml-4m needs every modality of a sample, and it lacks {sample}"] += source.views
                    continue
                for folder, (name, data) in sample.items():
                    members[folder][name] = data
        files = {f"{folder}/shard-{piece.number:05d}.tar": tar_of(found) for folder, found in members.items()}
        return Made(files, source.views * len(members[CROPS]), left_out)

    def _samples(
        self, source: Source, unit: Unit, shards: Mapping[str, Shard]
    ) -> Iterator[dict[str, tuple[str, bytes]] | str]:
        """Of each sample the name and content of its members by folder; or a modality that it lacks."""
        columns = self._columns(source, unit)
        images = _images(source, unit, shards)
        views = ViewSettings(**source.manifest.views)
        for sample, key in enumerate(next(iter(columns.values())).keys):
            values = {
                name: [column.value(sample, view) for view in range(source.views)] for name, column in columns.items()
            }
            lacking = next((name for name, found in values.items() if any(one is None for one in found)), None)
            if lacking is None and key not in images:
                lacking = "its image"
            if lacking:
                yield lacking
                continue
            stem, header = stem_of(key, 0), read_header(images[key])
            crops = [
                cut_view(source.manifest.seed, key, view, header.height, header.width, views)
                for view in range(source.views)
            ]
            settings = np.array([[one.top, one.left, one.height, one.width, one.hflip] for one in crops], np.int64)
            made = {CROPS: (f"{stem}.npy", to_npy(settings))}
            if PIXELS in values:
                extension, data = upright(images[key])
                made[PIXELS] = (f"{stem}.{extension}", data)
            for name, found in values.items():
                extension, data = _content(name, source.cards[name], found)
                made[folder_of(source, name)] = (f"{stem}.{extension}", data)
            yield made

    def _columns(self, source: Source, unit: Unit) -> dict[str, Column]:
        """Labels of what ml-4m tokenises, and tokens of the rest."""
        reader = source.reader
        read: dict[str, Callable[[Unit, str], Column]] = {
            name: reader.labels if name in WRITERS else reader.tokens for name in source.modalities
        }
        return aligned({name: get(unit, name) for name, get in read.items()}, reader.store.url)

    def count(self, files: Mapping[str, bytes]) -> int:
        """The views in all folders, read as ml-4m does: side by side; -1 where they don't hold the same samples."""
        keys = []
        views = 0
        for path, data in files.items():
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
                found = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr] - all are files
            keys.append([re.sub(r"\.[^./]*$", "", name) for name in found])
            if path.startswith(f"{CROPS}/"):
                views = sum(len(from_npy(crops)) for crops in found.values())
        return views if all(one == keys[0] for one in keys) else -1

    def closing(self, source: Source, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        return {"README.md": _readme(source, len(receipts))}

    def notes(self, source: Source, pieces: int) -> list[str]:
        return [f"data_path: {_data_path(source, pieces)}", *_differences(source)]


def folder_of(source: Source, name: str) -> str:
    """The folder of a modality, which is its name in ml-4m."""
    tokens = source.cards[name].tokens
    if name in WRITERS or tokens is None or tokens.spec is None:
        return name
    known = KNOWN[name].name if name in KNOWN else f"tok_{name}"
    return known if tokens.spec.grid is None else f"{known}@{source.manifest.views['size']}"


def folders(source: Source) -> list[str]:
    pixels = [PIXELS] if PIXELS in source.modalities else []
    return [*pixels, *(folder_of(source, name) for name in source.modalities), CROPS]


def _content(name: str, card: ModalityCard, values: Sequence[Any]) -> tuple[str, bytes]:
    """Extension and bytes of a modality of a sample. values: of its views."""
    if name not in WRITERS:
        return "npy", to_npy(np.stack(values).astype(np.int16))
    kind = card.label_kind
    return WRITERS[name]([kind.decode(one) for one in values])


def _images(source: Source, unit: Unit, shards: Mapping[str, Shard]) -> dict[str, bytes]:
    """The images of a unit as the corpus has them, by key. Raises ExportError where it can't be read."""
    manifest = source.manifest
    settings = CorpusSettings.model_validate({"url": manifest.corpus.url, **manifest.corpus.reading})
    try:
        found = next(Corpus(settings).read(shards[unit.shard], unit.start, unit.stop, UnitLimits(**manifest.units)))
    except (CorpusError, OSError, KeyError) as error:
        raise ExportError(f"the corpus is read for the crops of views and for pixels, and can't be: {error}") from None
    return {sample.key: sample.image for sample in found.samples if sample.image}


def _data_path(source: Source, pieces: int) -> str:
    """OUT stands for the output's folder."""
    return f"OUT/[{','.join(folders(source))}]/shard-{{00000..{pieces - 1:05d}}}.tar"


def _differences(source: Source) -> Iterator[str]:
    """What of ml-4m's MODALITY_INFO has to be changed for these tokens."""
    size = source.manifest.views["size"]
    for name, card in source.cards.items():
        spec = card.tokens.spec if card.tokens and name not in WRITERS else None
        if spec is None:
            continue
        folder, known = folder_of(source, name), KNOWN.get(name)
        has = f"{spec.length} tokens of {spec.vocabulary} ids"
        if known is None or (spec.grid and size not in _KNOWN_SIZES):
            yield f"{folder}: ml-4m's MODALITY_INFO doesn't know it; it has {has}"
            continue
        tokens = known.tokens * (size // 224) ** 2 if spec.grid else known.tokens
        if spec.length != tokens or spec.vocabulary > known.vocabulary:
            yield f"{folder}: it has {has}, and ml-4m's MODALITY_INFO says {tokens} of {known.vocabulary}"
    for name in ("color_palette", "metadata"):
        if name in source.modalities and source.views > 1 and source.cards[name].on == "view":
            yield f"{name}: ml-4m takes that of view 0 for all views"


def _readme(source: Source, pieces: int) -> bytes:
    differing = [f"- {line}" for line in _differences(source)]
    lines = [
        "# Tokens for ml-4m",
        "",
        "Written by tokenloom as ml-4m's README_DATA.md describes it. In the configuration of its data, with this",
        "folder for OUT:",
        "",
        f"    data_path: '{_data_path(source, pieces)}'",
        "    use_wds: True",
        "    tok_train_aug: True" if source.views > 1 else "    tok_train_aug: False",
        "",
        *(["What its MODALITY_INFO says otherwise:", "", *differing, ""] if differing else []),
    ]
    return ("\n".join(lines)).encode()
