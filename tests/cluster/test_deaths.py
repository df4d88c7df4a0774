"""Workers of a run that die again and again."""

from __future__ import annotations

import pytest
from tokenloom.pipeline.cluster.session import EngineError
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.run import execute
from waiting import wait_for_cpus
from weaving import odd, recipe


def test_a_labeler_that_dies_while_it_is_loaded_is_named(ray_session, small_corpus, tmp_path):
    graves = tmp_path / "graves"
    graves.mkdir()
    deadly = {"mean_colour": odd("DiesLoading", params={"folder": str(graves)})}
    with pytest.raises(EngineError) as told:
        execute(make_plan(recipe(small_corpus, tmp_path / "out", deadly, resources={"workers": 1})))
    assert "the labeler of mean_colour kills its process while it is loaded: SIGABRT" in str(told.value)
    assert '  File "' not in str(told.value)
    wait_for_cpus()
    assert len(list(graves.iterdir())) == 5  # three attempts at the unit, then two by the probe
    assert not (tmp_path / "out/quarantine").exists()
