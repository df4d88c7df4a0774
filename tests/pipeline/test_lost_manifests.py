"""A dataset whose last manifest was lost: nothing is deleted of it, and the recipe makes it whole again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from in_process import weave
from tokenloom.pipeline.checks.garbage import remove_garbage
from tokenloom.pipeline.checks.status import read_status
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.commands.dataset import _status_notes
from tokenloom.pipeline.dataset.layout import manifest_path
from tokenloom.pipeline.dataset.manifest import DatasetError, manifest_numbers
from tokenloom.pipeline.storage.store import Store
from weaving import digests, recipe


def test_what_the_lost_one_named_is_kept_and_named_again(corpus, tmp_path):
    """That which the tokenizers were fitted in."""
    made = recipe(corpus, tmp_path / "out", {"caption": {}, "color_palette": {}})
    weave(made)
    store = Store(tmp_path / "out")
    whole, last = digests(store.url), manifest_numbers(store)[-1]
    store.delete(manifest_path(last))
    then = time.time() - 3 * 86400
    for path in Path(store.url).rglob("*"):
        os.utime(path, (then, then))
    with pytest.raises(DatasetError, match=r"no manifest names c.*run the recipe"):
        remove_garbage(store)
    status = read_status(store)
    assert status.superseded == 0
    assert any("has a later one been lost?" in line for line in _status_notes(status))
    assert "delete it" not in {fault.way_out for fault in verify(store).faults if "`" not in fault.way_out}
    assert digests(store.url).items() == whole.items() - {(manifest_path(last), whole[manifest_path(last)])}
    assert weave(made).units == 0
    assert digests(store.url) == whole
    assert remove_garbage(store) == []
    assert read_status(store).lost == ""
