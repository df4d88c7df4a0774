"""Fits by Ray Train: what comes out is what a fit in one process gives, whatever was killed meanwhile."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from mortal_tokenizers import MortalVQ
from small_fits import KIND, PREFIX, Heard, fit_job, pictures, put_aside
from tokenloom.labelers.contract.kinds import Image
from tokenloom.pipeline.fitting.examples import gather
from tokenloom.pipeline.fitting.ray_train import FitError, FitJob, run_fit
from tokenloom.pipeline.fitting.sample import SampleLabels
from tokenloom.pipeline.fitting.worker import Board
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.vq.vq import VQTokenizer


def fitted_here(job: FitJob) -> dict[str, bytes]:
    """What a fit of the job in this process gives, without Ray."""
    tokenizer = job.new_tokenizer()
    tokenizer.fit(job.labels.read(KIND), job.seed)
    return tokenizer.to_files()


def steps_in_metrics(store: Store) -> list[int]:
    return [json.loads(line)["step"] for line in store.read(f"{PREFIX}/metrics.jsonl").splitlines()]


def steps_of_checkpoints(store: Store) -> list[int]:
    names = [entry.name for entry in store.list(f"{PREFIX}/checkpoints")]
    return sorted(int(name.removesuffix(".json")[-8:]) for name in names if name.endswith(".json"))


# --- fits -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ray_session")
def test_a_fit_whose_worker_dies_gives_what_one_in_this_process_gives(tmp_path):
    store = Store(tmp_path)
    put_aside(store)
    grave, heard = tmp_path / "grave", Heard()
    job = replace(fit_job(store, {"grave": str(grave)}), tokenizer="mortal_tokenizers:MortalVQ")
    files = run_fit(job, heard)
    assert grave.exists()
    begin = "training for 12 steps on 23 examples"
    assert heard.said == [
        "reading the labels",
        begin,
        "reading the labels",
        "going on from step 4 of 12 steps on 23 examples",
    ]
    assert [figures.step for figures in heard.figures] == [2, 4, 6, 6, 8, 10, 12]
    assert steps_in_metrics(store) == [2, 4, 6, 8, 10, 12]
    assert steps_of_checkpoints(store) == [8, 12]
    assert files == fitted_here(job)
    assert MortalVQ.from_files(KIND, files).encode(pictures(2))[0].shape == (16,)


@pytest.mark.usefixtures("ray_session")
def test_two_workers_train_one_network(tmp_path, capfd):
    store = Store(tmp_path)
    put_aside(store)
    heard = Heard()
    files = run_fit(fit_job(store, workers=2), heard)
    assert len(VQTokenizer.from_files(KIND, files).encode(pictures(2))) == 2
    assert heard.figures[-1].loss < heard.figures[0].loss
    assert steps_in_metrics(store) == [2, 4, 6, 8, 10, 12]
    # Other settings are another fit. This one's gradients aren't finite, and the user is told why, and nothing more.
    with pytest.raises(FitError, match=r"^training stopped at step \d+ of 12, after 5 steps in a row.*learning_rate"):
        run_fit(fit_job(store, workers=2, learning_rate=1e30), heard)
    assert "checkpoints of another fit were in its place, and are removed" in heard.said
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
