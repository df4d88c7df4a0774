"""Fits by Ray Train. (tests/pipeline/test_trained_tokenizers_end_to_end.py has some that are killed.)"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from small_fits import KIND, Heard, fit_job, pictures, put_aside, train_both
from tokenloom.labelers.contract.kinds import Image
from tokenloom.pipeline.fitting import ray_train
from tokenloom.pipeline.fitting.examples import gather
from tokenloom.pipeline.fitting.ray_train import FitError, run_fit
from tokenloom.pipeline.fitting.sample import SampleLabels
from tokenloom.pipeline.fitting.worker import Board
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.vq.vq import VQTokenizer

# --- fits -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ray_session")
def test_two_workers_train_one_network(tmp_path, capfd, monkeypatch):
    """And then, in the same processes, another whose gradients aren't finite: who is told why, and nothing more."""
    import ray

    store, heard, board = Store(tmp_path), Heard(), ray.remote(Board).options(num_cpus=0).remote()
    put_aside(store)
    monkeypatch.setattr(ray_train, "train_worker", partial(train_both, fit_job(store, workers=2), board))
    with pytest.raises(FitError, match=r"^training stopped at step \d+ of 12, after 5 steps in a row.*learning_rate"):
        run_fit(fit_job(store, workers=2, learning_rate=1e30), heard)
    files, news = ray.get([board.files.remote(), board.take.remote()])
    assert VQTokenizer.from_files(KIND, files).encode(pictures(2))[0].shape == (16,)
    assert news[:2] == ["reading the labels", "training for 12 steps on 23 examples"]
    assert [figures.step for figures in news[2:]] == [2, 4, 6, 8, 10, 12]
    assert news[-1].loss < news[2].loss
    # Other settings are another fit.
    assert heard.said[:2] == ["reading the labels", "checkpoints of another fit were in its place, and are removed"]
    assert capfd.readouterr() == ("", "")


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
