"""The probe: who killed the process, found by a child that may die."""

from __future__ import annotations

import pytest
from tokenloom.pipeline.cluster.session import EngineError
from tokenloom.pipeline.corpus.corpus import Corpus
from tokenloom.pipeline.engine.config import stage_configs
from tokenloom.pipeline.engine.labeling import DECODING
from tokenloom.pipeline.engine.payload import UnitPayload
from tokenloom.pipeline.engine.probe import find_poison
from tokenloom.pipeline.engine.unit_labeler import UnitLabeler
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.stages import Stage
from tokenloom.pipeline.storage.store import Store
from weaving import odd, recipe

pytestmark = pytest.mark.slow


def prepared(corpus_folder, output, modalities):
    """The configuration of one stage of all modalities, and the payload of the corpus' one unit."""
    made = recipe(corpus_folder, output, modalities)
    plan = make_plan(made)
    (config,) = stage_configs(plan, [Stage("all", plan.graph.steps, 1.0, 0.0, 0, 1, 1)])
    (work,) = plan.works
    (unit,) = Corpus(made.corpus).read(work.shard)
    return config, UnitPayload.of(unit, work.todo)


def test_the_step_that_a_sample_kills_is_found_and_others_go_on(corpus_folder, tmp_path):
    modalities = {"canny_edge": {"keep": "labels"}, "mean_colour": odd("Aborts"), "doubled": odd("Doubled")}
    config, payload = prepared(corpus_folder, tmp_path / "out", modalities)
    poison = find_poison(config, payload)
    assert {(payload.samples[index].key, step) for index, step in poison} == {("coffee", "mean_colour")}
    made = UnitLabeler(config, Store(tmp_path / "out")).label(payload, poison)
    assert [label is None for label in made.of("canny_edge").labels] == [False] * 6
    assert [failure.key for failure in made.of("doubled").failures] == ["coffee"]
    assert made.of("doubled").failures[0].reason == "needs mean_colour, which failed: killed its process: SIGABRT"


def test_an_image_that_kills_its_decoder_is_never_decoded_again(corpus_folder, tmp_path):
    deadly = {"labeler": "odd_decoder:DiesDecoding", "keep": "labels"}
    config, payload = prepared(corpus_folder, tmp_path / "out", {"mean_colour": deadly, "caption": {"keep": "labels"}})
    poison = find_poison(config, payload)
    assert {(payload.samples[index].key, step) for index, step in poison} == {("coffee", DECODING)}
    made = UnitLabeler(config, Store(tmp_path / "out")).label(payload, poison)
    assert [failure.key for failure in made.of("mean_colour").failures] == ["coffee"]
    assert made.of("caption").failures == []


def test_a_labeler_that_dies_while_it_is_loaded_is_no_samples_fault(corpus_folder, tmp_path):
    (tmp_path / "graves").mkdir()
    deadly = odd("DiesLoading", params={"folder": str(tmp_path / "graves")})
    config, payload = prepared(corpus_folder, tmp_path / "out", {"canny_edge": {}, "mean_colour": deadly})
    with pytest.raises(EngineError, match="the labeler of mean_colour kills its process while it is loaded: SIGABRT"):
        find_poison(config, payload)
    assert len(list((tmp_path / "graves").iterdir())) == 2


def test_nothing_deadly_is_found_where_nothing_is(corpus_folder, tmp_path):
    config, payload = prepared(corpus_folder, tmp_path / "out", {"mean_colour": odd("Raises")})
    assert find_poison(config, payload) == {}
