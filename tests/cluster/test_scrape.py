"""A real run scraped by a real Prometheus: every metric that rules and dashboard ask for is there by that name."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitoring import FOLDER, metrics_of, of_dashboard, of_rules, program
from ray_head import Head

PLUGIN = """
import time
from tokenloom import Labeler, Modality, Vector

class Slow(Labeler):
    makes = (Modality("slow", Vector(dim=3)),)

    def label(self, batch):
        time.sleep(4)
        return {"slow": [image.mean((0, 1), dtype="float32") for image in batch.images]}
"""
"""Slow enough for Ray, which reports every 10 s."""

WITHOUT = {
    "ray_tokenloom_refused_samples_total",  # the corpus is sound
    "autoscaler_recently_failed_nodes",  # the nodes were started by hand
    # From a port that is the same for all heads, of which another test may have one on this machine.
    "autoscaler_active_nodes",
    "autoscaler_pending_nodes",
}
"""What a run doesn't have, or not always."""


@pytest.fixture
def prometheus(head: Head, tmp_path: Path) -> Iterator[str]:
    """The address of a Prometheus with infra/monitoring's settings, but quicker."""
    settings = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "2s", "evaluation_interval": "2s"}
    settings["rule_files"] = [str(FOLDER / "rules.yml")]
    (discovery,) = settings["scrape_configs"][0]["http_sd_configs"]
    (tmp_path / "token").write_text(head.environment["RAY_AUTH_TOKEN"])
    discovery["url"] = discovery["url"].replace("http://head:8265", head.address)
    discovery |= {"refresh_interval": "2s", "authorization": {"type": "Bearer", "credentials_file": "token"}}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [program("prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    with open(tmp_path / "prometheus.log", "wb") as log:
        process = subprocess.Popen(
            [*words, f"--web.listen-address={address}"], cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def ask(prometheus: str, expression: str) -> list[dict[str, Any]]:
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"{prometheus}/api/v1/query?{query}", timeout=10) as answer:
            return json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        pytest.fail(f"{expression}: {error.read().decode()}", pytrace=False)


def test_a_run_is_told_by_the_names_that_are_asked_for(head: Head, prometheus: str, small_corpus: Path, tmp_path: Path):
    photos = Path(shutil.copytree(small_corpus, tmp_path / "photos"))
    (photos / "broken.jpg").write_bytes((photos / "coffee.jpg").read_bytes()[:500])
    content = {
        "corpus": str(photos),
        "output": "out",
        "units": {"samples": 1},
        "modalities": {"slow": {"labeler": "plugin_slow:Slow", "keep": "labels"}},
        "resources": {"workers": 1},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "plugin_slow.py").write_text(PLUGIN)
    job = head.start("submit", "mine.yaml", "--address", head.address, cwd=tmp_path)
    asked = set().union(*(metrics_of(expression) for _, expression in (*of_dashboard(), *of_rules())))
    lacking = asked - WITHOUT
    until = time.monotonic() + 150
    while lacking and time.monotonic() < until:
        time.sleep(2)
        lacking = {name for name in lacking if not ask(prometheus, f"last_over_time({name}[10m])")}
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert not lacking
