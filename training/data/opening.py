"""Opening the datasets of a training recipe: what each gives, whether they fit each other, and the mixture of them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.finished import complete_shards
from ...pipeline.dataset.manifest import DatasetError, Manifest, manifest_numbers, read_manifest_at, require_manifest
from ...pipeline.dataset.reader import DatasetReader
from ...pipeline.plan.recipe_file import RecipeError
from ...pipeline.storage.store import StorageError
from .broken import Skipping
from .masking import Scheme
from .mixture import MixedDataset, Mixture
from .order import Era, turns
from .recipe import DatasetSettings, DataSettings, TrainingRecipe
from .schemes import left_out, named_schemes
from .shards import ShardCache, ShardStore
from .unit_tokens import read_unit

Eras: TypeAlias = "Sequence[tuple[int, int]]"


@dataclass(frozen=True)
class OpenDataset:
    """A dataset as it was opened. number: of its manifest. units: those that come up, which have all of the modalities;
    grown: those that came later than the eras tell. eras: from which epoch on it is as of which manifest."""

    mixed: MixedDataset
    manifest: Manifest
    number: int
    units: Sequence[Unit]
    grown: Sequence[Unit]
    eras: Eras

    @property
    def samples(self) -> int:
        return sum(unit.count for unit in self.units)


@dataclass(frozen=True)
class OpenData:
    """A recipe's datasets, opened. notes: what a person should know before training on them."""

    settings: DataSettings
    datasets: Sequence[OpenDataset]
    mixture: Mixture
    notes: Sequence[str]


def open_data(recipe: TrainingRecipe, known: Mapping[str, Eras] | None = None) -> OpenData:
    """Opens what the recipe names, by its manifests and one listing per modality.

    known: the eras of datasets, by name; others have one, of their present manifests.

    Raises RecipeError, with file, line and key, for whatever can't be trained on.
    """
    with recipe.named():
        data = recipe.data
        cache = data.cache and ShardCache(data.cache.folder, int(data.cache.gigabytes * 1e9))
        datasets = [_open(name, settings, cache, (known or {}).get(name)) for name, settings in data.datasets.items()]
        _refuse_other_vocabularies(datasets)
        _refuse_small_weights(data)
        modalities = list(dict.fromkeys(name for one in datasets for name in one.mixed.modalities))
        schemes = _schemes(data, modalities)
        with _at("data.datasets"):
            mixture = Mixture(
                [one.mixed for one in datasets],
                schemes,
                data.input_tokens,
                data.target_tokens,
                data.seed,
                data.window,
                read=Skipping() if data.broken == "skip" else read_unit,
            )
        return OpenData(data, datasets, mixture, list(_notes(data, datasets, mixture)))


@contextmanager
def _at(key: str) -> Iterator[None]:
    try:
        yield
    except (DatasetError, StorageError, FileNotFoundError) as error:
        raise RecipeError(f"{key}: {' '.join(str(error).split())}") from None


def _open(name: str, settings: DatasetSettings, cache: ShardCache | None, known: Eras | None) -> OpenDataset:
    key = f"data.datasets.{name}"
    with _at(f"{key}.url"):
        store = ShardStore(settings.url, settings.storage_options, cache)
        numbers = manifest_numbers(store)
        manifest = read_manifest_at(store, numbers[-1]) if numbers else require_manifest(store)
    inputs = _chosen(manifest, settings.inputs, f"{key}.inputs")
    targets = _chosen(manifest, settings.targets, f"{key}.targets")
    modalities = [one for one in manifest.modalities if one in inputs or one in targets]
    if not modalities:
        raise RecipeError(f"{key}.url: {store.url} keeps no tokens; give `keep: tokens` in its recipe and run it again")
    reader = DatasetReader(store, manifest)
    if settings.views and settings.views > reader.views:
        raise RecipeError(
            f"{key}.views: {settings.views} are asked for, and {store.url} has {reader.views} of a sample"
        )
    with _at(f"{key}.url"):
        units = reader.units(modalities)
        _refuse_unfinished(store.url, manifest, reader, modalities, units)
        eras = known or [(0, numbers[-1])]
        lists = [_taken_since(store, units, None if number == numbers[-1] else number) for _, number in eras]
    taken = list(dict.fromkeys(unit for one in lists for unit in one))
    ends = [len(frozenset().union(*lists[: place + 1])) for place in range(len(lists))]
    mixed = MixedDataset(
        name=name,
        reader=reader,
        modalities=modalities,
        weight=settings.weight,
        repeats=settings.repeats,
        inputs=inputs,
        targets=targets,
        views=settings.views,
        units=taken,
        eras=[Era(epoch, end) for (epoch, _), end in zip(eras, ends, strict=True)],
    )
    grown = sorted(set(units) - set(taken))
    return OpenDataset(mixed, manifest, numbers[-1], taken, grown, eras)


def _taken_since(store: ShardStore, units: Sequence[Unit], number: int | None) -> Sequence[Unit]:
    """The units of what the corpus was at a manifest; None: the present one."""
    if number is None:
        return units
    from ...pipeline.dataset.listings import taken_shards  # which needs what reads corpora

    shards = taken_shards(store, read_manifest_at(store, number).corpus)
    return [unit for unit in units if unit.shard in shards]


def _chosen(manifest: Manifest, names: Sequence[str] | None, key: str) -> Collection[str]:
    """These modalities, or all that can be read as tokens."""
    usable = [name for name, card in manifest.modalities.items() if _has_tokens(card)]
    for name in names or ():
        if name in usable:
            continue
        if name in manifest.modalities:
            what = f"keeps no tokens of {name!r}, or its tokenizer isn't fitted yet"
        elif name in manifest.pending:
            what = f"is still making {name!r} for the first time"
        else:
            close = difflib.get_close_matches(name, usable, n=1)
            what = f"has no modality {name!r}{f' (did you mean {close[0]!r}?)' if close else ''}"
        raise RecipeError(f"{key}: the dataset {what}; with tokens it has {', '.join(usable) or 'none'}")
    return usable if names is None else list(names)


def _has_tokens(card: ModalityCard) -> bool:
    return card.keeps_tokens and card.tokens is not None and card.tokens.spec is not None


def _refuse_unfinished(
    url: str, manifest: Manifest, reader: DatasetReader, modalities: Sequence[str], units: Sequence[Unit]
) -> None:
    """Raises DatasetError where shards are missing that a finished dataset has: its order would be another later."""
    everything = frozenset().union(*(reader.finished[name] for name in modalities))
    for name in modalities:
        if missing := sorted(everything - reader.finished[name]):
            raise DatasetError(
                f"{url} lacks the shards of {name} for {len(missing):,} of {len(everything):,} units (the first is "
                f"{missing[0].name}): run its recipe again to make them, or leave {name} out"
            )
    complete = complete_shards(everything)
    if len(complete) < manifest.corpus.shards:
        raise DatasetError(
            f"{url} is still being written: {len(complete):,} of {manifest.corpus.shards:,} shards of its corpus are "
            f"complete. Run its recipe to the end first"
        )
    if not sum(unit.count for unit in units):
        raise DatasetError(f"{url} has no samples")


def _refuse_other_vocabularies(datasets: Sequence[OpenDataset]) -> None:
    """Raises RecipeError where texts of two modalities are of different vocabularies, so that an id is two words."""
    first: tuple[str, str, str] | None = None
    for one in datasets:
        for name in one.mixed.modalities:
            tokens = one.manifest.modalities[name].tokens
            digest = tokens and tokens.vocabulary and tokens.vocabulary.digest
            if not digest:
                continue
            first = first or (one.mixed.name, name, digest)
            if digest != first[2]:
                raise RecipeError(
                    f"data.datasets.{one.mixed.name}.url: its {name} is written in another text vocabulary "
                    f"({digest[:8]}...) than {first[1]} of {first[0]} ({first[2][:8]}...), so that an id would mean "
                    f"two words. Make one of them anew with `vocabulary:` of the other, or leave one out"
                )


def _refuse_small_weights(data: DataSettings) -> None:
    try:
        turns([one.weight for one in data.datasets.values()])
    except ValueError:
        name, least = min(data.datasets.items(), key=lambda item: item[1].weight)
        total = sum(one.weight for one in data.datasets.values())
        raise RecipeError(
            f"data.datasets.{name}.weight: {least.weight:g} of {total:g} is less than one sample in 1,000, and weights "
            f"are told apart no finer; give it more"
        ) from None


def _schemes(data: DataSettings, modalities: Sequence[str]) -> list[Scheme]:
    if data.masking.name:
        schemes = named_schemes(data.masking.name, modalities)
        if not schemes:
            lacking = ", ".join(left_out(data.masking.name, modalities))
            raise RecipeError(f"data.masking: {data.masking.name} needs {lacking}, which no dataset gives")
        return schemes
    for place, scheme in enumerate(data.masking.schemes or ()):
        parts: Mapping[str, Mapping[str, object]] = {
            "inputs": scheme.inputs,
            "targets": scheme.targets,
            "keep": scheme.keep,
        }
        for part, named in parts.items():
            for name in named:
                if name not in modalities:
                    raise RecipeError(
                        f"data.masking.schemes.{place}.{part}.{name}: no dataset gives {name!r}; there are "
                        f"{', '.join(modalities)}"
                    )
    return [Scheme(one.weight, one.inputs, one.targets, one.keep) for one in data.masking.schemes or ()]


def _notes(data: DataSettings, datasets: Sequence[OpenDataset], mixture: Mixture) -> Iterator[str]:
    if data.masking.name and (lacking := left_out(data.masking.name, mixture.modalities)):
        yield f"{data.masking.name}: without the schemes around {', '.join(lacking)}, which no dataset gives"
    for one in datasets:
        for pending in one.manifest.pending:
            if pending in one.mixed.modalities:
                yield f"{one.mixed.name}: {pending} is being made anew; what readers get now is used"
        for side, names, (_, most) in (
            ("input", one.mixed.inputs, data.input_tokens),
            ("target", one.mixed.targets, data.target_tokens),
        ):
            room = {name: mixture.most(name) for name in names or ()}
            if sum(room.values()) < most:
                parts = ", ".join(f"{name} {own:,}" for name, own in room.items())
                yield (
                    f"{one.mixed.name}: {side}_tokens is {most:,}, and a sample has {sum(room.values()):,} at most "
                    f"({parts}): the rest stays empty"
                )
