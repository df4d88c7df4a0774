"""Fits by several of Ray Train's workers."""

from __future__ import annotations

from functools import partial

import pytest
from small_fits import KIND, Heard, fit_job, pictures, put_aside, train_both
from tokenloom.pipeline.cluster.trainers import Board
from tokenloom.pipeline.fitting import ray_train
from tokenloom.pipeline.fitting.ray_train import FitError, run_fit
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.vq.vq import VQTokenizer


def test_two_workers_train_one_network(ray_session, tmp_path, capfd, monkeypatch):
    """And then, in the same processes, another whose gradients aren't finite: who is told why, and nothing more."""
    import ray

    store, heard, board = Store(tmp_path), Heard(), ray.remote(Board).options(num_cpus=0).remote()
    put_aside(store)
    monkeypatch.setattr(ray_train, "train_worker", partial(train_both, fit_job(store, workers=2), board))
    with pytest.raises(FitError, match=r"^training stopped at step \d+ of 12, after 5 steps in a row.*learning_rate"):
        run_fit(fit_job(store, workers=2, learning_rate=1e30), heard)
    files, news = ray.get([board.outcome.remote(), board.take.remote()])
    assert VQTokenizer.from_files(KIND, files).encode(pictures(2))[0].shape == (16,)
    assert news[:2] == ["reading the labels", "training for 12 steps on 23 examples"]
    assert [figures.step for figures in news[2:]] == [2, 4, 6, 8, 10, 12]
    assert news[-1].loss < news[2].loss
    # Other settings are another fit.
    assert heard.said[:2] == ["reading the labels", "checkpoints of another fit were in its place, and are removed"]
    assert capfd.readouterr() == ("", "")
