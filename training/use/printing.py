"""What the commands `export` and `decode` do and print."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ...labelers.contract.instances import InstanceSet
from ...labelers.contract.kinds import LabelError
from ...pipeline.commands.console import counted, plain_console
from ...pipeline.commands.dataset import readable_size
from ...pipeline.commands.printable import printable
from ...pipeline.commands.progress import Shown
from ...pipeline.dataset.dataset import Dataset
from ...pipeline.dataset.manifest import DatasetError
from ...pipeline.storage.store import Store
from .export import Exported, export
from .lm_decode import Decoded, decode
from .lm_tasks import read_tasks
from .lm_vocabulary import LmVocabulary
from .pieces import ExportError, Format
from .to_hf import HuggingFace
from .to_lm import VOCABULARY, DecoderOnly
from .to_ml4m import Ml4m
from .to_webdataset import WebDataset

_MOST_DAMAGED = 10
_MOST_DIGITS = 4000
"""Of a number that Python reads."""
FORMATS = (WebDataset.name, HuggingFace.name, DecoderOnly.name, Ml4m.name)


def run_export(url: str, output: str, to: str, modalities: Sequence[str], tasks: Path | None, verify: bool) -> None:
    """Raises ExportError for a format that there isn't, and what `export` raises."""
    format = _format(to, tasks)
    console = plain_console()
    with Shown(console) as shown:

        def progress(done: int, of: int) -> None:
            shown.show(lambda: _table(done, of), lambda: f"{done:,} of {counted(of, 'piece')}", last=done == of)

        done = export(Store(url), Store(output), format, modalities, progress, verify)
    for line in _told(done, Store(output).url):
        console.print(Text(printable(line)), soft_wrap=True)


def _format(to: str, tasks: Path | None) -> Format:
    if tasks is not None and to != DecoderOnly.name:
        raise ExportError(f"--tasks {tasks}: only --to {DecoderOnly.name} has tasks")
    if to == WebDataset.name:
        return WebDataset()
    if to == HuggingFace.name:
        return HuggingFace()
    if to == DecoderOnly.name:
        return DecoderOnly(*read_tasks(tasks))
    if to == Ml4m.name:
        return Ml4m()
    raise ExportError(f"--to {to}: there is no such format; there are {', '.join(FORMATS)}")


def _table(done: int, of: int) -> Table:
    table = Table.grid()
    table.add_row(f"{done:,} of {counted(of, 'piece')}")
    return table


def _told(done: Exported, where: str) -> Iterator[str]:
    names = ", ".join(done.modalities)
    rows, files = counted(done.rows, "row"), counted(done.files, "file")
    before = done.pieces - done.made
    read = ", read back" if done.verified or not before else ""
    yield f"{rows} of {names} in {files}, {readable_size(done.bytes)}{read} -> {where}"
    if before:
        looked = "read again" if done.verified else "there by name and size; --verify reads them, too"
        yield f"made before: {before:,} of {counted(done.pieces, 'piece')}, {looked}"
    for path, why in islice(sorted(done.damaged.items()), _MOST_DAMAGED):
        yield f"{path} is made anew: {why}"
    if (more := len(done.damaged) - _MOST_DAMAGED) > 0:
        yield f"made anew besides: {counted(more, 'file')}"
    for reason, count in sorted(done.left_out.items()):
        yield f"{counted(count, 'row')} left out: {reason}"
    for reason, count in sorted(done.told.items()):
        yield f"{counted(count, 'row')} {reason}"
    for name, why in done.refused.items():
        yield f"{name} is left out: {why}"
    yield from done.notes


def run_decode(exported: str, ids: str, dataset: str | None, folder: Path | None) -> None:
    """Prints what is in a sequence. Raises ExportError for what is no sequence, or no export for such."""
    store = Store(exported)
    if not store.exists(VOCABULARY):
        raise ExportError(f"{store.url}: there is no {VOCABULARY}: give the folder that `export --to lm` finished")
    vocabulary = LmVocabulary.from_bytes(store.read(VOCABULARY), f"{store.url}/{VOCABULARY}")
    source = _dataset(dataset, vocabulary.dataset)
    console = plain_console()
    for number, one in enumerate(decode(vocabulary, _read_ids(ids), source)):
        segment = one.segment
        said = one.problem or _label(source, number, one, folder)
        place = f"document {segment.document}, {segment.modality or 'no modality'}"
        console.print(Text(printable(f"{place}, {counted(len(segment.ids), 'token')}: {said}")), soft_wrap=True)


def _dataset(given: str | None, exported: str) -> Dataset:
    try:
        return Dataset(Store(given or exported))
    except DatasetError as error:
        way = "" if given else "; the export is of it: where it is now is told by --dataset URL"
        raise ExportError(f"{error}{way}") from None


def _label(dataset: Dataset, number: int, one: Decoded, folder: Path | None) -> str:
    """The label as text, or what it is; in the folder as the dataset would keep it."""
    modality = one.segment.modality
    kind = dataset.modalities[modality].kind
    try:
        # of instances tokens hold neither scores nor all attributes, which their kind promises
        data = kind.encode(one.label if isinstance(one.label, InstanceSet) else kind.check(one.label))
    except LabelError as error:
        return f"its tokenizer made no label of it ({error})"
    said = data.decode() if kind.extension in ("txt", "json") else f"{kind.name}, {readable_size(len(data))}"
    if folder is None:
        return said
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:03d}-{modality}.{kind.extension}"
    path.write_bytes(data)
    return f"{said} -> {path}"


def _read_ids(source: str) -> list[int]:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(errors="replace")
    except OSError as error:
        raise ExportError(
            f"{source}: it can't be read ({error.strerror}): give a file of ids, or - for stdin"
        ) from None
    words = text.replace("[", " ").replace("]", " ").replace(",", " ").split()
    wrong = next((word for word in words if not word.isdecimal() or len(word) > _MOST_DIGITS), None)
    if wrong is not None or not words:
        what = f"{wrong[:20]!r} is no id" if wrong is not None else "there is no id in it"
        raise ExportError(f"{source}: {what}: write numbers from 0 on, as a list in JSON or with blanks between")
    return [int(word) for word in words]
