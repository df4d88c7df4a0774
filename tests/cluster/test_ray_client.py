"""Ray Client, `ray://`: the same recipe, and its plugin, from a machine that is none of the cluster's."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from cut_line import Line
from held_plugin import contents
from in_process import weave
from ray_head import CLIENT, CLUSTER, GCS, Head, asked
from tokenloom.pipeline.commands.console import counted
from tokenloom.pipeline.plan.recipe import load_recipe

ADDRESS = f"ray://127.0.0.1:{CLIENT}"

_THROUGH = """
import ray, ray.data
ray.init()
print("tasks", ray.get(ray.remote(lambda: 1).remote()))
ray.data.range(2).map_batches(lambda batch: batch).take_all()
"""


def drivers(head: Head) -> list[str]:
    """What runs as a driver on the head for somebody who waits for it."""
    running = [job["entrypoint"] for job in asked(head, "/api/jobs/") if job["status"] == "RUNNING"]
    return [entrypoint for entrypoint in running if entrypoint.endswith("in_job.py --attached")]


def started(head: Head, place: Path, **environment: str) -> subprocess.Popen[str]:
    """A run that is held up after its first unit."""
    (place / "held").touch()
    run = head.start("run", "mine.yaml", cwd=place, **{"RAY_ADDRESS": ADDRESS, **environment})
    while not list((place / "out/means").rglob("*.tar")):
        assert run.poll() is None, run.stdout and run.stdout.read()
        time.sleep(0.1)
    return run


def test_ctrl_c_stops_a_run_and_the_same_command_goes_on_to_the_same_bytes(head: Head, place: Path, monkeypatch):
    run = started(head, place)
    run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 130, said
    assert "plugin_means:Means: sent along from" in said
    assert said.count("labelling ...") == 1
    assert said.endswith("tokenloom: stopped; what was committed stays, the same command goes on from there\n")
    (place / "held").unlink()
    left = len(list((place / "out/means").rglob("*.tar")))
    assert 0 < left < 6
    code, said = head.command("run", "mine.yaml", cwd=place, RAY_ADDRESS=ADDRESS)
    assert code == 0, said
    assert f"{counted(6 - left, 'sample')} in {counted(6 - left, 'unit')}, " in said

    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    weave(load_recipe("mine.yaml", output="here"))
    assert contents(place / "out") == contents(place / "here")


def test_a_connection_that_breaks_and_comes_back_loses_nothing(head: Head, place: Path):
    with Line(CLIENT) as line:
        run = started(head, place, RAY_ADDRESS=line.address.replace("http", "ray"))
        line.cut()
        time.sleep(1)
        line.mend()
        (place / "held").unlink()
        said, _ = run.communicate(timeout=120)
    assert run.returncode == 0, said
    assert said.count("labelling ...") == 1
    assert said.splitlines()[-1].startswith("6 samples in 6 units, ")


@pytest.mark.parametrize("how", ["killed", "cut off"])
def test_a_run_ends_when_who_started_it_is_gone(head: Head, place: Path, how):
    with Line(CLIENT) as line:
        address = line.address.replace("http", "ray")
        run = started(head, place, RAY_ADDRESS=address, RAY_CLIENT_RECONNECT_GRACE_PERIOD="2")
        assert drivers(head)
        if how == "killed":
            run.kill()
        line.cut()
        said, _ = run.communicate(timeout=60)
        assert run.returncode == (-signal.SIGKILL if how == "killed" else 75), said
        if how == "cut off":
            assert f"tokenloom: {address}: lost sight of what runs there (there is no connection). " in said
        deadline = time.monotonic() + 60
        while drivers(head):
            assert time.monotonic() < deadline
            time.sleep(0.5)


def test_what_goes_wrong_there_is_told_as_here(head: Head, place: Path):
    """By the same streams and exit codes; but a path that was made absolute has come by an option."""
    recipe = yaml.safe_load((place / "mine.yaml").read_text()) | {"corpus": str(place / "nowhere")}
    (place / "wrong.yaml").write_text(yaml.safe_dump(recipe))
    ended = {}
    for address in (ADDRESS, f"127.0.0.1:{GCS}"):
        ended[address] = subprocess.run(
            [CLUSTER / "python", "-m", "tokenloom.pipeline.cli", "run", "wrong.yaml"],
            cwd=place,
            env={**head.environment, "RAY_ADDRESS": address},
            capture_output=True,
            text=True,
        )
    there, here = ended.values()
    assert (there.returncode, here.returncode) == (2, 2), there.stderr + here.stderr
    told = f"corpus.url: {place}/nowhere: nothing is there"
    assert here.stderr.startswith(f"tokenloom: wrong.yaml:1: {told}")
    assert there.stderr.startswith(f"tokenloom: --corpus: {told}")
    assert there.stderr.count("\n") == 1


def test_what_is_refused_is_one_line(head: Head, place: Path):
    code, said = head.command("run", "mine.yaml", cwd=place, RAY_ADDRESS=ADDRESS, RAY_AUTH_TOKEN="0" * 32)
    assert code == 1
    assert re.fullmatch(rf"tokenloom: {ADDRESS}: .* or has another token: .*", said.splitlines()[3])
    assert len(said.splitlines()) == 4
    other = "import tokenloom.pipeline.commands.package as package; package.version = lambda name: '0.0.1'; "
    other += "from tokenloom.pipeline.cli import main; main()"
    ended = subprocess.run(
        [CLUSTER / "python", "-c", other, "run", "mine.yaml"],
        cwd=place,
        env={**head.environment, "RAY_ADDRESS": ADDRESS},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout.splitlines()[-1].startswith("tokenloom: the cluster has tokenloom 0.1.0, and 0.0.1 where this")
    assert not (place / "out").exists()


def test_plan_and_doctor_are_done_there(head: Head, place: Path):
    for words in (("plan", "mine.yaml", "--calibrate", "0"), ("doctor", "mine.yaml", "--address", ADDRESS)):
        code, said = head.command(*words, cwd=place, RAY_ADDRESS=ADDRESS)  # doctor's option is that, too
        assert code == 0, said
    assert re.search(r"^plan +ok +.*there is work to do for means", said, re.MULTILINE), said


def test_ray_data_does_not_work_through_it(head: Head):
    """Tasks do. Once this fails, there may be a simpler way."""
    ended = subprocess.run(
        [CLUSTER / "python", "-c", _THROUGH],
        env={**head.environment, "RAY_ADDRESS": ADDRESS},
        capture_output=True,
        text=True,
    )
    assert ended.stdout == "tasks 1\n"
    assert ended.stderr.rstrip().endswith("AttributeError: 'Worker' object has no attribute 'core_worker'")
