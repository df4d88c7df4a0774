"""`tokenloom submit` to a real head with its dashboard: what is sent, heard, refused, stopped and gone on with."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

from cut_line import Line
from held_plugin import contents, read_until
from in_process import weave
from ray_head import CLUSTER, Head, asked
from tokenloom.pipeline.commands.console import counted
from tokenloom.pipeline.plan.recipe import load_recipe


def test_a_job_that_is_stopped_is_gone_on_with_to_the_same_bytes(head: Head, place: Path, monkeypatch):
    (place / "held").touch()  # for as long as that is there, one unit is all that is made
    following = head.start("submit", "mine.yaml", "--address", head.address, cwd=place)
    assert following.stdout is not None
    job = read_until(following.stdout, r"^job (\S+)$")
    while not list((place / "out/means").rglob("*.tar")):
        assert following.poll() is None
        time.sleep(0.1)
    following.send_signal(signal.SIGINT)
    said, _ = following.communicate(timeout=60)
    assert following.returncode == 130
    stop = re.search(r"^  ray (job stop .*)$", said, re.MULTILINE)
    assert stop, said
    assert re.search(rf"ray job logs --follow --address {head.address} {job}$", said, re.MULTILINE)
    subprocess.run(
        [CLUSTER / "python", "-m", "ray.scripts.scripts", *stop[1].split()], env=head.environment, check=True
    )
    (place / "held").unlink()
    left = len(list((place / "out/means").rglob("*.tar")))
    assert 0 < left < 6
    code, said = head.command("submit", "mine.yaml", "--address", head.address, cwd=place)
    assert code == 0, said
    assert "plugin_means:Means: sent along from" in said
    assert "WebSocket" not in said
    assert f"{counted(6 - left, 'sample')} in {counted(6 - left, 'unit')}, " in said

    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    weave(load_recipe("mine.yaml", output="here"))
    assert contents(place / "out") == contents(place / "here")


def test_the_exit_code_is_the_jobs_and_another_version_is_refused_there(head: Head, place: Path):
    """A distribution of another version than the cluster's is told by what a job does first."""
    changed = "import tokenloom.pipeline.commands.package as package; package.version = lambda name: '0.0.1'; "
    changed += "from tokenloom.pipeline.cli import main; main()"
    ended = subprocess.run(
        [CLUSTER / "python", "-c", changed, "submit", "mine.yaml", "--address", head.address],
        cwd=place,
        env=head.environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2, ended.stderr
    assert "the cluster has tokenloom 0.1.0, and 0.0.1 where this was started: install tokenloom==0.0.1" in (
        ended.stdout
    )
    assert not (place / "out").exists()


def test_another_token_is_refused(head: Head, place: Path):
    code, said = head.command("submit", "mine.yaml", "--address", head.address, cwd=place, RAY_AUTH_TOKEN="0" * 32)
    assert code == 2
    assert "the cluster refuses this one's token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in said
    code, said = head.command("submit", "mine.yaml", "--address", head.address, cwd=place, RAY_AUTH_MODE="disabled")
    assert code == 2
    assert "the cluster asks for a token" in said


def test_a_dashboard_that_is_lost_and_comes_back_is_told(head: Head, place: Path):
    """Nothing of the log is lost or told twice."""
    (place / "held").touch()
    with Line(int(head.address.rpartition(":")[2])) as line:
        following = head.start("submit", "mine.yaml", "--address", line.address, cwd=place)
        assert following.stdout is not None
        read_until(following.stdout, r"^(labelling) ")
        line.cut()
        read_until(following.stdout, r"^tokenloom: the (dashboard) is out of reach; trying again for 60 s$")
        line.mend()
        (place / "held").unlink()
        said, _ = following.communicate(timeout=120)
    assert following.returncode == 0, said
    assert said.count("tokenloom: the dashboard is back\n") == 1
    assert said.count("labelling ...") == 0
    assert said.count("6 samples in 6 units") == 1


def test_a_dashboard_that_stays_lost_is_left_with_the_way_back(head: Head, place: Path):
    (place / "held").touch()
    hasty = "import tokenloom.pipeline.cluster.jobs as jobs; jobs._PATIENCE = 2; "
    hasty += "from tokenloom.pipeline.cli import main; main()"
    with Line(int(head.address.rpartition(":")[2])) as line:
        following = subprocess.Popen(
            [CLUSTER / "python", "-c", hasty, "submit", "mine.yaml", "--address", line.address],
            cwd=place,
            env=head.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert following.stdout is not None
        job = read_until(following.stdout, r"^job (\S+)$")
        read_until(following.stdout, r"^(labelling) ")
        line.cut()
        said, _ = following.communicate(timeout=60)
    assert following.returncode == 75, said
    assert f"tokenloom: {job}: the dashboard is out of reach for 2 s" in said
    assert f"ray job logs --follow --address {line.address} {job}" in said
    (place / "held").unlink()
    while asked(head, f"/api/jobs/{job}")["status"] == "RUNNING":
        time.sleep(0.5)
    assert asked(head, f"/api/jobs/{job}")["status"] == "SUCCEEDED"
