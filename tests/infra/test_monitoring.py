"""Prometheus' rules and Grafana's dashboard, as far as promtool can tell without a scrape, which tests/cluster has."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import yaml
from monitoring import FOLDER, metrics_of, of_dashboard, of_rules, program
from tokenloom.pipeline.engine.metrics import UnitMetrics


def promtool(*words: object) -> None:
    done = subprocess.run([program("promtool"), *map(str, words)], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_hold_what_they_promise():
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "rules_test.yml")
    tried = (FOLDER / "rules_test.yml").read_text()
    assert [name for name, _ in of_rules() if not name.startswith("tokenloom:") and name not in tried] == []


def test_every_query_of_the_dashboard_is_one(tmp_path: Path):
    rules = [{"record": "tried", "expr": expression} for _, expression in of_dashboard()]
    assert len(rules) > 20
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yml")
    assert all("$" not in rule["expr"] for rule in rules)


def test_panels_have_a_place_each():
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    places = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in panels)
    ]
    assert sum(map(len, places)) == len(set().union(*places))
    assert max(x for place in places for x, _ in place) < 24


def test_tokenlooms_metrics_are_those_that_it_counts():
    counted = {f"ray_{counter.info['name']}" for counter in vars(UnitMetrics()).values()}
    asked = set().union(*(metrics_of(expression) for _, expression in (*of_dashboard(), *of_rules())))
    assert {name for name in asked if name.startswith("ray_tokenloom_")} == counted
