"""Compaction of a dataset whose corpus changes: what was made of a part that is no more is superseded, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_files import tar_bytes
from in_process import weave
from test_compact import NOTHING, compacted, swept
from tokenloom.pipeline.checks.garbage import find_garbage
from tokenloom.pipeline.checks.quarantine import list_failures
from tokenloom.pipeline.checks.status import read_status
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.storage.store import Store
from weaving import odd, recipe

SMALL = {"views": {"size": 32}, "units": {"samples": 2}, "max_failures": 1.0}


def tar(folder: Path, name: str, photos: dict[str, bytes], *keys: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(tar_bytes([(f"{key}.jpg", photos[key]) for key in keys]) if keys else b"")


@pytest.mark.parametrize("change", ["an empty tar is mended", "a failing sample is mended", "a tar is dropped"])
def test_a_retired_part_that_no_list_of_merged_shards_names_is_no_fault(change, photos, tmp_path):
    """Nor what was quarantined of it, by the corpus reader or by a modality; `gc` deletes that."""
    folder, output = tmp_path / "tars", tmp_path / "out"
    tar(folder, "a.tar", photos, "coffee", "rocket", "china")
    tar(folder, "b.tar", photos, *(() if change == "an empty tar is mended" else ("chelsea", "flower")))
    modalities = {"mean_colour": odd("MeanColour"), "grid": odd("GridWaitsForFlower", params={"file": "/nowhere"})}
    made = recipe(folder, output, modalities, **SMALL)
    weave(made)
    compacted(output, 12)
    swept(output)
    if change == "a tar is dropped":
        (folder / "b.tar").unlink()
    else:
        tar(folder, "b.tar", photos, "chelsea", "astronaut")
    weave(made, take_changes=True)
    assert verify(output, deep=True).faults == []
    compacted(output, 12)
    assert verify(output, deep=True).faults == []
    assert {one.what for one in find_garbage(Store(output), NOTHING)} >= {
        "of a part of the corpus that changed, or is gone"
    }
    swept(output)
    assert verify(output, deep=True).faults == []
    assert list(list_failures(Store(output))) == []
    assert len(open_dataset(output)) == read_status(Store(output)).total == (3 if change == "a tar is dropped" else 5)
