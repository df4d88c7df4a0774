"""`tokenloom submit` to a dashboard that answers late, or not at all: what is sent to it runs, or may."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Ended, command
from fake_dashboard import FakeDashboard, for_ever, serving
from tokenloom.pipeline.cluster import jobs
from tokenloom.pipeline.commands import submit


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    content = {"corpus": "s3://b/photos", "output": "s3://b/out", "modalities": {"rgb": {}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))


def _sent_to(dashboard: FakeDashboard) -> Ended:
    with serving(dashboard):
        return command("submit", "mine.yaml", "--address", dashboard.address)


def _told(dashboard: FakeDashboard, ended: Ended) -> bool:
    """Whether the job is named first of all, and how to come back to it last."""
    (job,) = dashboard.jobs
    assert f"job {job}\n" in ended.out
    return ended.err.endswith(f"  ray job stop --address {dashboard.address} {job}\n")


def _once_heard(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """It happens when a piece of the job's log is printed."""
    follow = jobs.follow

    def follows(client: Any, job: str, write: Callable[[str], None], say: Callable[[str], None]) -> int:
        def heard(text: str) -> None:
            write(text)
            happens()

        return follow(client, job, heard, say)

    monkeypatch.setattr(submit, "follow", follows)


def test_a_job_that_was_stopped_while_it_was_sent_is_named_then_and_when_it_is_sent_again():
    async def stopped() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await for_ever()

    dashboard = FakeDashboard()
    dashboard.taking = stopped
    ended = _sent_to(dashboard)
    assert ended.code == 130
    assert "the cluster may have taken the job" in ended.err
    assert _told(dashboard, ended)
    assert "is at work" not in ended.err

    (first,) = dashboard.jobs
    ended = _sent_to(dashboard)
    assert f"tokenloom: {first} is at work on the same output" in ended.err
    dashboard.status = "STOPPED"
    assert "is at work" not in _sent_to(dashboard).err


def test_a_job_that_is_never_said_to_be_taken_is_left_with_the_way_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs, "_TAKING", 0.5)
    dashboard = FakeDashboard()
    dashboard.taking = for_ever
    ended = _sent_to(dashboard)
    assert ended.code == 75
    assert "the dashboard doesn't say that it has taken the job" in ended.err
    assert _told(dashboard, ended)


def test_a_dashboard_that_falls_silent_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch):
    """No connection breaks: as where a laptop changes its network."""
    for name, seconds in (("_SILENCE", 0.3), ("_ANSWER", 0.5), ("_PATIENCE", 1.0)):
        monkeypatch.setattr(jobs, name, seconds)
    dashboard = FakeDashboard("labelling ...\n")
    _once_heard(monkeypatch, lambda: setattr(dashboard, "silent", True))
    ended = _sent_to(dashboard)
    assert ended.code == 75
    assert ended.out.endswith("labelling ...\n")
    assert "the dashboard is out of reach; trying again for 1 s" in ended.err
    assert _told(dashboard, ended)


def test_the_end_of_a_log_whose_connection_fell_silent_is_heard(monkeypatch: pytest.MonkeyPatch):
    """As behind a router that forgot the connection, while new ones are taken."""
    monkeypatch.setattr(jobs, "_SILENCE", 0.3)
    dashboard = FakeDashboard("labelling ...\n")

    def end() -> None:
        dashboard.log, dashboard.status = "labelling ...\n6 samples\n", "SUCCEEDED"

    _once_heard(monkeypatch, end)
    ended = _sent_to(dashboard)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith("\nlabelling ...\n6 samples\n")
    assert dashboard.tails == 2


def test_a_job_that_the_head_has_forgotten_is_told_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs, "_SILENCE", 0.3)
    dashboard = FakeDashboard("labelling ...\n")
    _once_heard(monkeypatch, lambda: setattr(dashboard, "forgets", True))
    ended = _sent_to(dashboard)
    (job,) = dashboard.jobs
    assert (ended.code, "out of reach" in ended.err) == (1, False)
    assert f"{job}: the cluster doesn't know this job any more" in ended.err
    assert "Submit the recipe again, which goes on where this stopped" in ended.err
