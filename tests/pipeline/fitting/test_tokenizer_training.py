"""What a fit by Ray Train takes and refuses. (tests/cluster has some that train.)"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_fits import KIND, fit_job, pictures, put_aside
from tokenloom.labelers.contract.kinds import Image
from tokenloom.pipeline.cluster.trainers import Board
from tokenloom.pipeline.fitting.examples import gather
from tokenloom.pipeline.fitting.ray_train import FitError, run_fit
from tokenloom.pipeline.fitting.sample import SampleLabels
from tokenloom.pipeline.storage.store import Store

# --- fits -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ray_session")
def test_more_workers_than_the_cluster_has_cpus_are_refused(tmp_path):
    with pytest.raises(FitError, match="workers = 4, and the cluster has 2 CPUs"):
        run_fit(fit_job(Store(tmp_path), workers=4))


def test_jobs_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(FitError, match="patch_codebook has no network"):
        run_fit(replace(fit_job(Store(tmp_path)), tokenizer="patch_codebook", params={}))
    with pytest.raises(FitError, match="vq: codes: "):
        run_fit(fit_job(Store(tmp_path), {"codes": 1}))


def test_the_digest_tells_what_the_outcome_depends_on(tmp_path):
    job = fit_job(Store(tmp_path))
    same = fit_job(Store(tmp_path / "elsewhere"), checkpoint_every=7, report_every=3)
    others = [
        fit_job(Store(tmp_path), learning_rate=0.5),
        fit_job(Store(tmp_path), {"codes": 32}),
        replace(job, seed=1),
        replace(job, kind=Image(1).describe()),
    ]
    digests = [one.digest(1, "labels") for one in (job, *others)]
    digests += [job.digest(2, "labels"), job.digest(1, "other labels")]
    assert same.digest(1, "labels") == digests[0]
    assert len(set(digests)) == len(digests)


def test_the_board_keeps_the_first_reason():
    board = Board()
    assert board.tell("a") is None
    board.stop("first")
    board.stop("second")
    assert board.tell("b") == board.reason() == "first"
    assert board.take() == ["a", "b"]
    assert board.take() == []


# --- examples ---------------------------------------------------------------------------------------------------------


def test_examples_lie_on_disk_and_their_digest_tells_them_apart(tmp_path):
    store = Store(tmp_path)
    labels = put_aside(store)
    tokenizer = fit_job(store).new_tokenizer()
    examples = gather(tokenizer, labels.read(KIND))
    expected = [picture for index, picture in enumerate(pictures(24)) if index != 1]
    assert isinstance(examples.array, np.memmap)
    assert np.array_equal(examples.array, np.concatenate([tokenizer.examples(label) for label in expected]))
    assert gather(tokenizer, expected).digest == examples.digest
    assert gather(tokenizer, expected[::-1]).digest != examples.digest
    assert gather(tokenizer, expected[:-1]).digest != examples.digest


def test_labels_that_make_no_examples_are_refused(tmp_path):
    tokenizer = fit_job(Store(tmp_path)).new_tokenizer()
    with pytest.raises(ValueError, match="too few examples"):
        gather(tokenizer, SampleLabels(Store(tmp_path), "fit/rgb").read(KIND))
    with pytest.raises(ValueError, match="labels of one size"):
        gather(tokenizer, [np.zeros((16, 16, 3), np.uint8), np.zeros((16, 8, 3), np.uint8)])
