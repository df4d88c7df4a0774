"""Opening the datasets of a training recipe: what each gives, whether they fit each other, and the mixture of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import nlargest
from typing import TypeAlias

from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.finished import complete_shards
from ...pipeline.dataset.layout import is_merged
from ...pipeline.dataset.manifest import DatasetError, Manifest, manifest_numbers, read_manifest_at, require_manifest
from ...pipeline.dataset.reader import DatasetReader
from ...pipeline.plan.recipe_file import RecipeError
from ...pipeline.storage.store import StorageError
from .broken import Skipping
from .masking import Scheme
from .mixed import KEEP_LABELS, MixedDataset, UnmixableError
from .mixture import Mixture
from .order import Era, turns
from .recipe import DatasetSettings, DataSettings, TrainingRecipe
from .ride_along import PIXELS, is_embeddings, read_held
from .schemes import left_out, named_schemes
from .shard_cache import ShardCache
from .shards import ShardStore

Eras: TypeAlias = "Sequence[tuple[int, int]]"

_MOST_TOKENS, _MOST_ROWS = 2**26, 2**24
"""Of a batch, and samples of a window with their repeats: both lie in memory, 30 bytes or so of each."""


@dataclass(frozen=True)
class OpenDataset:
    """A dataset as it was opened. number: of its manifest. units: those that come up, which have all of the modalities;
    grown: those that came later than the eras tell. eras: from which epoch on it is as of which manifest.
    lacking: by modality, the units whose shards are missing."""

    mixed: MixedDataset
    manifest: Manifest
    number: int
    units: Sequence[Unit]
    grown: Sequence[Unit]
    eras: Eras
    lacking: Mapping[str, Sequence[Unit]]

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
        _refuse_large_batches(data)
        cache = data.cache and ShardCache(data.cache.folder, int(data.cache.gigabytes * 1e9))
        skip = data.broken == "skip"
        datasets = [
            _open(name, settings, cache, skip, (known or {}).get(name)) for name, settings in data.datasets.items()
        ]
        for one in datasets:
            _refuse_large_windows(data, one)
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
                data.max_tokens,
                Skipping() if skip else read_held,
            )
        gone = list(_pixels_gone(datasets, mixture, skip))
        return OpenData(data, datasets, mixture, [*_notes(data, datasets, mixture), *gone])


@contextmanager
def _at(key: str) -> Iterator[None]:
    try:
        yield
    except UnmixableError as error:
        raise RecipeError(f"data.{error.key}: {' '.join(str(error).split())}") from None
    except (DatasetError, StorageError, FileNotFoundError) as error:
        raise RecipeError(f"{key}: {' '.join(str(error).split())}") from None


def _open(
    name: str, settings: DatasetSettings, cache: ShardCache | None, skip: bool, known: Eras | None
) -> OpenDataset:
    key = f"data.datasets.{name}"
    with _at(f"{key}.url"):
        store = ShardStore(settings.url, settings.storage_options, cache)
        numbers = manifest_numbers(store)
        manifest = read_manifest_at(store, numbers[-1]) if numbers else require_manifest(store)
    tokenised = [one for one, card in manifest.modalities.items() if _has_tokens(card)]
    if not tokenised:
        raise RecipeError(f"{key}.url: {store.url} keeps no tokens; give `keep: tokens` in its recipe and run it again")
    embedded = [one for one, card in manifest.modalities.items() if is_embeddings(card) and card.keeps_labels]
    inputs = _chosen(manifest, settings.inputs, tokenised, [*embedded, PIXELS], f"{key}.inputs")
    targets = _chosen(manifest, settings.targets, tokenised, [], f"{key}.targets")
    if settings.targets is None:  # as 4M has it: an embedding's share of the targets is drawn, and lost
        targets = [*targets, *(one for one in embedded if one in inputs)]
    stored = [one for one in manifest.modalities if one in inputs or one in targets]
    reader = DatasetReader(store, manifest)
    if settings.views and settings.views > reader.views:
        raise RecipeError(
            f"{key}.views: {settings.views} are asked for, and {store.url} has {reader.views} of a sample"
        )
    with _at(f"{key}.url"):
        units, lacking = _units_of(store.url, manifest, reader, stored, skip)
        eras = known or [(0, numbers[-1])]
        lists = [_taken_since(store, units, None if number == numbers[-1] else number) for _, number in eras]
    taken = list(dict.fromkeys(unit for one in lists for unit in one))
    ends = [len(frozenset().union(*lists[: place + 1])) for place in range(len(lists))]
    mixed = MixedDataset(
        name=name,
        reader=reader,
        modalities=[*stored, PIXELS] if PIXELS in inputs else stored,
        weight=settings.weight,
        repeats=settings.repeats,
        inputs=inputs,
        targets=targets,
        views=settings.views,
        units=taken,
        eras=[Era(epoch, end) for (epoch, _), end in zip(eras, ends, strict=True)],
        corpus_options=settings.corpus_options,
    )
    grown = sorted(set(units) - set(taken))
    return OpenDataset(mixed, manifest, numbers[-1], taken, grown, eras, lacking)


def _taken_since(store: ShardStore, units: Sequence[Unit], number: int | None) -> Sequence[Unit]:
    """The units of what the corpus was at a manifest; None: the present one."""
    if number is None:
        return units
    from ...pipeline.dataset.listings import taken_shards  # which needs what reads corpora

    shards = taken_shards(store, read_manifest_at(store, number).corpus)
    return [unit for unit in units if unit.shard in shards]


def _chosen(
    manifest: Manifest, names: Sequence[str] | None, tokenised: Sequence[str], others: Sequence[str], key: str
) -> Sequence[str]:
    """These modalities, of which each is tokenised or among the `others`; by default all that are tokenised."""
    for name in names or ():
        if name in tokenised or name in others:
            continue
        card = manifest.modalities.get(name)
        if name == PIXELS or (card and is_embeddings(card) and card.keeps_labels):
            what = f"{name} have no tokens, and can be an input alone; leave them out here"
        elif card and is_embeddings(card):
            what = f"{name} are embeddings, and the dataset keeps no labels of them; {KEEP_LABELS}"
        elif card:
            what = f"the dataset keeps no tokens of {name!r}, or its tokenizer isn't fitted yet"
        elif name in manifest.pending:
            what = f"the dataset is still making {name!r} for the first time"
        else:
            close = difflib.get_close_matches(name, [*tokenised, *others], n=1)
            what = f"the dataset has no modality {name!r}{f' (did you mean {close[0]!r}?)' if close else ''}"
        raise RecipeError(f"{key}: {what}; with tokens it has {', '.join(tokenised)}")
    return tokenised if names is None else list(names)


def _has_tokens(card: ModalityCard) -> bool:
    return card.keeps_tokens and card.tokens is not None and card.tokens.spec is not None


def _units_of(
    url: str, manifest: Manifest, reader: DatasetReader, modalities: Sequence[str], skip: bool
) -> tuple[list[Unit], dict[str, list[Unit]]]:
    """The units of a finished dataset, and by modality those whose shards are missing: with `skip` their samples stay
    where they stand in the order, as long as any other modality of the dataset tells of them.

    Raises DatasetError where units are missing that a finished dataset has, since its order would be another later, and
    without `skip` for each shard that is missing.
    """
    everything = frozenset().union(*(reader.finished[name] for name in modalities))
    if len(complete_shards(everything)) < manifest.corpus.shards:
        everything = frozenset().union(*reader.finished.values())
    complete = complete_shards(everything)
    if len(complete) < manifest.corpus.shards:
        raise DatasetError(
            f"{url}: {len(complete):,} of {manifest.corpus.shards:,} shards of its corpus are complete; either its run "
            f"hasn't ended, or shards of all its modalities are missing. Run its recipe to the end, which makes them"
        )
    lacking = {name: sorted(everything - reader.finished[name]) for name in modalities}
    for name, missing in lacking.items():
        if missing and not skip:
            raise DatasetError(
                f"{url} lacks the shards of {name} for {len(missing):,} of {len(everything):,} units (the first is "
                f"{missing[0].name}): run its recipe again to make them, leave {name} out, or have them masked with "
                f"`broken: skip`"
            )
    if not sum(unit.count for unit in everything):
        raise DatasetError(f"{url} has no samples")
    return sorted(everything), {name: missing for name, missing in lacking.items() if missing}


def _refuse_large_batches(data: DataSettings) -> None:
    sizes = {"input_tokens": data.input_tokens[1], "target_tokens": data.target_tokens[1]}
    if (tokens := data.batch_size * sum(sizes.values())) > _MOST_TOKENS:
        sizes["batch_size"] = data.batch_size
        name = max(sizes, key=lambda one: sizes[one])
        raise RecipeError(
            f"data.{name}: {data.batch_size:,} samples of {sizes['input_tokens']:,} input and "
            f"{sizes['target_tokens']:,} target tokens make a batch of {tokens:,}, which lies in memory: "
            f"{_MOST_TOKENS:,} at most"
        )


def _refuse_large_windows(data: DataSettings, one: OpenDataset) -> None:
    repeats = one.mixed.repeats
    samples = sum(nlargest(data.window, (unit.count for unit in one.units)))
    if samples * repeats > _MOST_ROWS:
        key = "data.window" if samples > _MOST_ROWS else f"data.datasets.{one.mixed.name}.repeats"
        raise RecipeError(
            f"{key}: of {one.mixed.name} {min(data.window, len(one.units)):,} units are read side by side, of up to "
            f"{samples:,} samples, with repeats {samples * repeats:,}, whose order lies in memory: {_MOST_ROWS:,} at "
            f"most. Give a smaller `window`, or more `weight` in place of `repeats`"
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


def _pixels_gone(datasets: Sequence[OpenDataset], mixture: Mixture, skip: bool) -> Iterator[str]:
    """Of each corpus that hasn't what the dataset was made of, as far as its first sample tells; without `skip` it is
    refused: RecipeError."""
    for one, pixels in zip(datasets, mixture.pixels, strict=True):
        first = next((unit for unit in one.units if unit.count), None)
        if pixels is None or first is None:
            continue
        key = f"data.datasets.{one.mixed.name}"
        try:
            pixels.check(first)
        except StorageError as error:
            raise RecipeError(f"{key}.corpus_options: {' '.join(str(error).split())}") from None
        except DatasetError as error:
            said = " ".join(str(error).split())
            if not skip:
                raise RecipeError(f"{key}.inputs: {said}") from None
            yield f"{one.mixed.name}: {said}; until then they are masked"


def _notes(data: DataSettings, datasets: Sequence[OpenDataset], mixture: Mixture) -> Iterator[str]:
    if data.masking.name and (lacking := left_out(data.masking.name, mixture.modalities)):
        yield f"{data.masking.name}: without the schemes around {', '.join(lacking)}, which no dataset gives"
    from_rgb = data.masking.name in ("4m21", "rgb2all") and not left_out("rgb2all", mixture.modalities)
    for one in datasets:
        if from_rgb and left_out("rgb2all", one.mixed.inputs or ()):
            yield f"{one.mixed.name}: has no rgb; where all inputs are to be rgb, they are drawn from what it has"
        for modality, missing in one.lacking.items():
            samples = sum(unit.count for unit in missing)
            yield (
                f"{one.mixed.name}: the shards of {modality} are missing for {samples:,} of {one.samples:,} samples "
                f"(the first is of the unit {missing[0].name}), and it is masked there"
            )
        for pending in one.manifest.pending:
            if pending in one.mixed.modalities:
                yield f"{one.mixed.name}: {pending} is being made anew; what readers get now is used"
        store, columns = one.mixed.reader.store, one.mixed.reader.columns
        if not (data.cache or store.is_local) and any(
            is_merged(columns.token_path(unit, name)) for unit in one.units[:1] for name in one.mixed.tokenised
        ):
            yield f"{one.mixed.name}: its shards are merged, and are fetched once each with `cache`; without, in pieces"
        for side, names, (_, most) in (
            ("input", one.mixed.inputs, data.input_tokens),
            ("target", one.mixed.targets, data.target_tokens),
        ):
            room = {name: mixture.most(name) for name in names or () if side == "input" or mixture.spec(name)}
            if sum(room.values()) < most:
                parts = ", ".join(f"{name} {own:,}" for name, own in room.items())
                longer = {
                    name: min(mixture.longest(name), own + most - sum(room.values())) for name, own in room.items()
                }
                more = ", ".join(f"{name}: {longest}" for name, longest in longer.items() if longest > room[name])
                yield (
                    f"{one.mixed.name}: {side}_tokens is {most:,}, and a sample has {sum(room.values()):,} at most "
                    f"({parts}): the rest stays empty{f'; `max_tokens: {{{more}}}` shows more of a text' * bool(more)}"
                )
