"""One run of one contender, which `engine.py` starts: `import contenders; contenders.main()`, NAME FITTED OUTPUT TAR...

FITTED is a dataset with the tokenizers that all contenders use. Every contender decodes each photograph, labels it by
the same labelers, tokenises the labels by the same tokenizers and writes Parquet, 256 samples a file.
"""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import shutil
import sys
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenloom import Batch
from tokenloom.labelers.canny_edge import CannyEdge
from tokenloom.labelers.caption import Caption
from tokenloom.labelers.contract.images import decode_view, read_header
from tokenloom.labelers.contract.views import ViewSettings, cut_view
from tokenloom.labelers.metadata import Metadata
from tokenloom.pipeline.dataset.layout import CORPUS, MANIFESTS, TOKENIZERS, VOCABULARIES
from tokenloom.pipeline.dataset.manifest import read_manifest
from tokenloom.pipeline.dataset.tokenizers import load_tokenizer
from tokenloom.pipeline.engine.tally import Tally
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import parse_recipe
from tokenloom.pipeline.run import execute
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.contract.tokenizer import Tokenizer

MODALITIES: dict[str, dict[str, Any]] = {
    "rgb": {"tokenizer": {"name": "patch_codebook", "params": {"size": 512, "sample": 16384}}},
    "caption": {},
    "canny_edge": {"tokenizer": {"name": "patch_codebook", "params": {"size": 512, "sample": 16384}}},
    "metadata": {},
}
LIGHT: dict[str, dict[str, Any]] = {
    "canny_edge": {},
    "color_palette": {},
    "metadata": {},
    **{
        name: {"labeler": f"light_labelers:{name.title().replace('_', '')}"}
        for name in ("mean_colour", "sharpness", "thumbnail", "hue_histogram", "edge_density")
    },
}
PROCESSES = 2
_UNIT = 256
_BATCH = 64
_VIEWS = ViewSettings()


def prepare(fitted: str, output: str, tars: Sequence[str]) -> None:
    """Fits the tokenizers. Prints decodes per image, with one and with eight light labelers."""
    run_recipe(fitted, tars, MODALITIES)
    counts = {}
    for count in (1, len(LIGHT)):
        modalities = {name: {**LIGHT[name], "keep": "labels"} for name in list(LIGHT)[:count]}
        tally = run_recipe(f"{output}/{count}", tars, modalities)
        counts[count] = tally.decodes / tally.samples
    print(json.dumps(counts))


def tokenloom(fitted: str, output: str, tars: Sequence[str]) -> None:
    for folder in (CORPUS, MANIFESTS, TOKENIZERS, VOCABULARIES):
        shutil.copytree(Path(fitted) / folder, Path(output) / folder)
    run_recipe(output, tars, MODALITIES)


def run_recipe(output: str, tars: Sequence[str], modalities: Mapping[str, Any]) -> Tally:
    recipe = parse_recipe(
        {
            "corpus": list(tars),
            "output": output,
            "modalities": modalities,
            "units": {"samples": _UNIT},
            "resources": {"workers": PROCESSES},
        }
    )
    return execute(make_plan(recipe))


def plain_loop(fitted: str, output: str, tars: Sequence[str]) -> None:
    """Two processes, each with its share of the tars, that decode with Pillow."""
    _loop(fitted, output, tars, decode_in_full)


def same_decode(fitted: str, output: str, tars: Sequence[str]) -> None:
    """The plain loop with tokenloom's own decoding, which leaves the engine as the only difference."""
    _loop(fitted, output, tars, decode_as_tokenloom)


def naive_ray(fitted: str, output: str, tars: Sequence[str]) -> None:
    """Ray Data as its guide shows it, with default settings."""
    import ray

    ray.init(num_cpus=PROCESSES, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset: Any = ray.data.read_webdataset(list(tars), decoder=None)
    dataset = dataset.map(_decoded_row).map_batches(_labelled_columns)
    dataset.map_batches(functools.partial(_token_columns, fitted=fitted)).write_parquet(output)


def decode_in_full(key: str, jpeg: bytes) -> np.ndarray:
    """The centre square at 224 x 224, as most scripts do it."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((_VIEWS.size, _VIEWS.size), Image.Resampling.BICUBIC))


def decode_as_tokenloom(key: str, jpeg: bytes) -> np.ndarray:
    header = read_header(jpeg)
    return decode_view(jpeg, cut_view(0, key, 0, header.height, header.width, _VIEWS))


@functools.cache
def fitted_tokenizers(fitted: str) -> dict[str, Tokenizer]:
    store = Store(fitted)
    manifest = read_manifest(store)
    assert manifest is not None
    return {name: load_tokenizer(store, name, card) for name, card in manifest.modalities.items()}


def _labels(keys: Sequence[str], images: np.ndarray, captions: Sequence[str], sizes: Sequence[tuple[int, int]]):
    """The labels of all modalities, by name."""
    views = [cut_view(0, key, 0, height, width, _VIEWS) for key, (width, height) in zip(keys, sizes, strict=True)]
    fields = [{"caption": caption} for caption in captions]
    labels = dict(Caption().label(Batch(list(keys), None, [], fields, {})))
    batch = Batch(list(keys), images, views, fields, {"caption": list(labels["caption"])})
    return {"rgb": list(images), **labels, **CannyEdge().label(batch), **Metadata().label(batch)}


def _loop(fitted: str, output: str, tars: Sequence[str], decode: Callable[[str, bytes], np.ndarray]) -> None:
    shares = [tars[index::PROCESSES] for index in range(PROCESSES)]
    processes = [multiprocessing.Process(target=_share, args=(fitted, output, share, decode)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a process of the loop failed")


def _share(fitted: str, output: str, tars: Sequence[str], decode: Callable[[str, bytes], np.ndarray]) -> None:
    tokenizers = fitted_tokenizers(fitted)
    for tar in tars:
        samples = samples_of(tar)
        for number in range(sys.maxsize):
            unit = list(islice(samples, _UNIT))
            if not unit:
                break
            tokens: defaultdict[str, list[np.ndarray]] = defaultdict(list)
            for start in range(0, len(unit), _BATCH):
                keys, jpegs, captions = zip(*unit[start : start + _BATCH], strict=True)
                images = np.stack([decode(key, jpeg) for key, jpeg in zip(keys, jpegs, strict=True)])
                sizes = [Image.open(io.BytesIO(jpeg)).size for jpeg in jpegs]
                for name, labels in _labels(keys, images, captions, sizes).items():
                    tokens[name] += tokenizers[name].encode(labels)
            for name, rows in tokens.items():
                _write(Path(output, name, f"{Path(tar).stem}-{number:05d}.parquet"), [key for key, *_ in unit], rows)


def samples_of(tar: str) -> Iterator[tuple[str, bytes, str]]:
    """(key, JPEG, caption) of a tar in which each caption follows its photograph."""
    with tarfile.open(tar) as file:
        jpeg = b""
        for member in file:
            content = file.extractfile(member)
            assert content is not None
            if member.name.endswith(".jpg"):
                jpeg = content.read()
            else:
                yield member.name.removesuffix(".txt"), jpeg, content.read().decode()


def _write(path: Path, keys: Sequence[str], tokens: Sequence[np.ndarray]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    offsets = np.cumsum([0, *map(len, tokens)]).astype(np.int32)
    column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(tokens)))
    unfinished = path.with_suffix(".unfinished")
    pq.write_table(pa.table({"key": pa.array(keys), "tokens": column}), unfinished, compression="zstd")
    unfinished.replace(path)


def _decoded_row(row: dict[str, Any]) -> dict[str, Any]:
    width, height = Image.open(io.BytesIO(row["jpg"])).size
    image = decode_in_full(row["__key__"], row["jpg"])
    return {"key": row["__key__"], "image": image, "caption": row["txt"].decode(), "width": width, "height": height}


def _labelled_columns(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    keys = [str(key) for key in batch["key"]]
    sizes = list(zip(batch["width"].tolist(), batch["height"].tolist(), strict=True))
    labels = _labels(keys, batch["image"], [str(caption) for caption in batch["caption"]], sizes)
    labels["metadata"] = [json.dumps(record) for record in labels["metadata"]]
    return {
        "key": batch["key"],
        "rgb": batch["image"],
        "canny_edge": np.stack(labels.pop("canny_edge")),
        **{name: np.array(labels[name], object) for name in ("caption", "metadata")},
    }


def _token_columns(batch: dict[str, np.ndarray], fitted: str) -> dict[str, Any]:
    columns: dict[str, Any] = {"key": batch["key"]}
    for name, tokenizer in fitted_tokenizers(fitted).items():
        labels = [json.loads(label) for label in batch[name]] if name == "metadata" else list(batch[name])
        columns[name] = tokenizer.encode(labels)
    return columns


CONTENDERS = {"tokenloom": tokenloom, "plain_loop": plain_loop, "same_decode": same_decode, "naive_ray": naive_ray}


def main() -> None:
    {**CONTENDERS, "prepare": prepare}[sys.argv[1]](sys.argv[2], sys.argv[3], sys.argv[4:])
