"""Exports for ml-4m, the code of 4M: a folder for each modality, in each a tar of the same samples in the same order.

    tok_depth@224/shard-00000.tar    KEY.npy, int16 (views, tokens)
    caption/shard-00000.tar          KEY.json: labels that ml-4m turns into tokens itself, from the labels that are kept
    sam_instance/shard-00000.tar     KEY.npy: a record for each view, see polygons_array
    rgb/shard-00000.tar              KEY.jpg or .png: whole images, upright, with rgb and with boxes
    crop_settings/shard-00000.tar    KEY.npy, int64 (views, 5): top, left, height, width, mirrored

As its README_DATA.md has it, and fourm/data/unified_datasets.py at 43558d1. ml-4m knows no sample that lacks a
modality: such are left out. Of samples with the same key in one shard the second is KEY%n1.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...labelers.contract.codecs import from_npy, to_npy
from ...labelers.contract.images import read_header
from ...labelers.contract.views import View, ViewSettings, cut_view
from ...pipeline.corpus.corpus import Corpus, CorpusError, CorpusSettings, Shard, UnitLimits
from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.listings import taken_shards
from ...pipeline.dataset.reader import Column, aligned
from ...pipeline.dataset.tokenizers import load_tokenizer
from ...tokenizers.contract.tokenizer import Tokenizer
from .ml4m_labels import CODED, WRITERS, Kept, refusal, upright
from .ml4m_readme import CROPS, PIXELS, data_path, differences, folder_of, folders, has_pixels, readme
from .pieces import ExportError, Format, Made, Piece, Receipt, Source
from .to_webdataset import stem_of, tar_of

_MOST_INT16 = 2**15
_LACKS = "ml-4m needs every modality of a sample, and it lacks "


class Ml4m(Format):
    name = "ml-4m"
    most_rows = 1024

    def refuses(self, name: str, card: ModalityCard) -> str:
        if sign := next((one for one in "-@" if one in name), None):
            return f"ml-4m joins names of modalities by - and cuts them at @, and this one has {sign} in it"
        if name in WRITERS:
            return refusal(name, card)
        if not card.keeps_tokens:
            return super().refuses(name, card)
        if card.tokens and card.tokens.spec and card.tokens.spec.length is None:
            what = "ml-4m takes such tokens as labels that it tokenises itself, and knows none of that name"
            return f"{what}; webdataset, hf and lm take it"
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
        names: dict[str, str] = {}
        for name in source.modalities:
            other = names.setdefault(folder_of(source, name), name)
            if other != name:
                raise ExportError(
                    f"{source.reader.store.url}: {other} and {name} are both {folder_of(source, name)} to ml-4m: "
                    f"export one of them, by --modality of all others"
                )

    def prepare(self, source: Source, pieces: Sequence[Piece]) -> None:
        """That the first file of the corpus is there that they need."""
        shards = taken_shards(source.reader.store, source.manifest.corpus)
        needed = next((unit.shard for piece in pieces for unit in piece.units), None)
        if needed is None:
            return
        shard = shards.get(needed)
        if shard is None:
            raise _no_corpus(source, f"{needed} is none of its shards any more")
        path = f"{shard.path}/{shard.files[0][0]}".lstrip("/") if shard.files else shard.path
        store = Corpus(_corpus_settings(source)).store(shard.root)
        try:
            if store.exists(path):
                return
        except OSError as error:
            raise _no_corpus(source, str(error)) from None
        raise _no_corpus(source, f"{store.url}/{path} does not exist")

    def make(self, source: Source, piece: Piece) -> Made:
        members: dict[str, dict[str, bytes]] = {folder: {} for folder in folders(source)}
        left_out: Counter[str] = Counter()
        seen: Counter[str] = Counter()
        shards = taken_shards(source.reader.store, source.manifest.corpus)
        for unit in piece.units:
            for sample in self._samples(source, unit, shards):
                if isinstance(sample, str):
                    left_out[f"{_LACKS}{sample}"] += source.views
                    continue
                stem, contents = sample
                again, seen[stem] = seen[stem], seen[stem] + 1
                for folder, (extension, data) in contents.items():
                    members[folder][f"{stem}%n{again}.{extension}" if again else f"{stem}.{extension}"] = data
        files = {f"{folder}/shard-{piece.number:05d}.tar": tar_of(found) for folder, found in members.items()}
        return Made(files, source.views * len(members[CROPS]), left_out)

    def _samples(
        self, source: Source, unit: Unit, shards: Mapping[str, Shard]
    ) -> Iterator[tuple[str, dict[str, tuple[str, bytes]]] | str]:
        """Of each sample the stem of its members' names, and by folder extension and content; or a modality that it
        lacks."""
        columns = self._columns(source, unit)
        tokenizers = {
            name: load_tokenizer(source.reader.store, name, card)
            for name, card in source.cards.items()
            if name in CODED
        }
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
            made = {CROPS: ("npy", to_npy(settings))}
            if has_pixels(source):
                made[PIXELS] = upright(images[key])
            for name, found in values.items():
                content = _content(name, source.cards[name], found, crops, tokenizers.get(name))
                made[folder_of(source, name)] = content
            yield stem, made

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
        """Raises ExportError where no sample is left: ml-4m would look for one for ever."""
        if not any(one.rows for one in receipts):
            raise _nothing_left(source, {reason.removeprefix(_LACKS) for one in receipts for reason in one.left_out})
        return {"README.md": readme(source, len(receipts)).encode()}

    def notes(self, source: Source, pieces: int) -> list[str]:
        return [f"data_path: {data_path(source, pieces)}", *differences(source)]


def _content(
    name: str, card: ModalityCard, values: Sequence[Any], views: Sequence[View], tokenizer: Tokenizer | None
) -> tuple[str, bytes]:
    """Extension and bytes of a modality of a sample. values: of its views."""
    if name not in WRITERS:
        return "npy", to_npy(np.stack(values).astype(np.int16))
    kind = card.label_kind
    return WRITERS[name](Kept(card, [kind.decode(one) for one in values], views, tokenizer))


def _images(source: Source, unit: Unit, shards: Mapping[str, Shard]) -> dict[str, bytes]:
    """The images of a unit as the corpus has them, by key. Raises ExportError where it can't be read."""
    limits = UnitLimits(**source.manifest.units)
    try:
        found = next(Corpus(_corpus_settings(source)).read(shards[unit.shard], unit.start, unit.stop, limits))
    except (CorpusError, OSError, KeyError) as error:
        raise _no_corpus(source, str(error)) from None
    return {sample.key: sample.image for sample in found.samples if sample.image}


def _corpus_settings(source: Source) -> CorpusSettings:
    corpus = source.manifest.corpus
    return CorpusSettings.model_validate({"url": corpus.url, **corpus.reading})


def _no_corpus(source: Source, why: str) -> ExportError:
    return ExportError(
        f"the corpus is read for the crops of views and for pixels, and can't be: {why}. Where it has moved, have "
        f"`tokenloom run RECIPE --corpus NEW_PLACE --output {source.reader.store.url}` take that up, and export again"
    )


def _nothing_left(source: Source, lacking: Collection[str]) -> ExportError:
    names = [f"--modality {name}" for name in source.modalities if name not in lacking]
    way = f"Export to another folder without it, by {' '.join(names)}" if names else "There is nothing to export"
    return ExportError(
        f"{source.reader.store.url}: ml-4m needs every modality of a sample, and every one lacks "
        f"{' or '.join(sorted(lacking))}: nothing is left of it. {way}"
    )
