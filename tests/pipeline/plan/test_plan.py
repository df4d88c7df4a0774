"""Plans: steps in order, cards with generations, stages, and what a recipe can't ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tokenloom.pipeline.cluster.size import ClusterSize, Node
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import RecipeError
from tokenloom.pipeline.plan.stages import stages
from tokenloom.pipeline.plan.steps import step_graph
from tokenloom.pipeline.plan.weights import WeightsError, WeightsSource, hash_files, localise
from tokenloom.pipeline.storage.errors import without_credentials
from tokenloom.pipeline.storage.store import Store
from weaving import odd, recipe


def graph_of(modalities, **more):
    return step_graph(recipe("photos", "out", modalities, **more))


def test_steps_come_after_what_they_need():
    plan = graph_of({"metadata": {}, "doubled": odd("Doubled"), "mean_colour": odd("MeanColour"), "caption": {}})
    assert [step.name for step in plan.steps] == ["mean_colour", "doubled", "caption", "metadata"]
    assert plan.step_of("metadata").wants == ("caption",)


def test_a_generation_covers_parameters_views_and_what_a_label_is_made_from():
    def prints(**more):
        graph = graph_of(BASE | more.pop("modalities", {}), **more)
        return {name: card.labels_generation for name, card in graph.cards.items()}

    BASE = {"caption": {}, "canny_edge": {}, "metadata": {}}  # noqa: N806
    base = prints()
    assert prints() == base
    assert prints(views={"size": 128}).items().isdisjoint(base.items())
    changed = prints(modalities={"caption": {"params": {"field": "alt"}}})
    assert {name for name in base if changed[name] != base[name]} == {"caption", "metadata"}
    made = recipe("photos", "out", BASE)
    made = made.model_copy(update={"corpus": made.corpus.model_copy(update={"fields": ["alt"]})})
    read_otherwise = {name: card.labels_generation for name, card in step_graph(made).cards.items()}
    assert read_otherwise.items().isdisjoint(base.items())
    kept = prints(modalities={"canny_edge": {"keep": "both"}}, units={"samples": 7})
    assert kept == base


def test_what_is_stale_and_what_is_made_in_passing():
    modalities = {"mean_colour": {**odd("MeanColour"), "keep": "tokens"}, "doubled": odd("Doubled")}
    plan = graph_of(modalities)
    assert plan.downstream(["mean_colour"]) == ["mean_colour", "doubled"]
    assert plan.made_for(["doubled"], kept=[]) == {"doubled", "mean_colour"}
    assert plan.made_for(["doubled"], kept=["mean_colour"]) == {"doubled"}
    assert plan.made_for(["doubled", "mean_colour"], kept=["mean_colour"]) == {"doubled"}
    assert plan.made_for(["doubled"], kept=["doubled"]) == set()


def test_stages_fuse_on_a_laptop_and_split_where_asked():
    modalities = {"mean_colour": odd("MeanColour"), "doubled": odd("Doubled"), "canny_edge": {}}
    made = recipe("photos", "out", modalities)
    (stage,) = stages(step_graph(made), made, ClusterSize((Node(2),)))
    assert (stage.modalities, stage.max_workers) == (("mean_colour", "doubled", "canny_edge"), 2)
    wish = {"stages": [{"modalities": ["mean_colour"], "num_cpus": 1.5, "max_workers": 3}]}
    made = recipe("photos", "out", modalities, resources=wish)
    names = [[step.name for step in stage.steps] for stage in stages(step_graph(made), made, ClusterSize((Node(8),)))]
    assert names == [["mean_colour"], ["canny_edge"], ["doubled"]]
    assert sum(stage.num_cpus for stage in stages(step_graph(made), made, ClusterSize((Node(2),)))) <= 2
    wishes = [{"modalities": [name], "num_gpus": 0.5} for name in ("mean_colour", "canny_edge")]
    made = recipe("photos", "out", modalities, resources={"stages": wishes})
    assert [stage.num_gpus for stage in stages(step_graph(made), made, ClusterSize((Node(8, 1),)))] == [0.5, 0.5, 0.0]
    made = recipe("photos", "out", modalities, resources={"stages": [{"modalities": ["depth"]}]})
    with pytest.raises(RecipeError, match="depth"):
        stages(step_graph(made), made, ClusterSize((Node(8),)))


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ({"cany_edge": {}}, "canny_edge"),
        ({"canny_edge": {"params": {"lo": 1}}}, r"modalities.canny_edge.params.lo: unknown key; did you mean .low"),
        ({"doubled": odd("Doubled")}, "needs the modality 'mean_colour'; add"),
        ({"edges": {"labeler": "canny_edge"}}, "makes canny_edge, not 'edges'"),
        ({"caption": {"tokenizer": "patch_codebook"}}, "takes labels of the kind image, not text"),
        ({"caption": {"weights": "some/where"}}, "takes no weights"),
        ({"dinov2": {"weights": "./nowhere"}}, r"modalities.dinov2.weights: .*\./nowhere: no such file"),
        (
            {"canny_edge": {"tokenizer": {"weights": "./nowhere"}}},
            r"modalities.canny_edge.tokenizer.weights: .*\./nowhere: no such file",
        ),
    ],
)
def test_what_cannot_be_made_says_why(modalities, message):
    with pytest.raises(RecipeError, match=message):
        graph_of(modalities)


def test_a_hub_that_cannot_be_reached_says_how_to_give_a_path():
    with pytest.raises(WeightsError, match="give a local folder"):
        localise("nobody/nothing-of-the-kind")


def test_paths_mean_the_same_in_every_process(tmp_path, monkeypatch):
    """In the working directory of Ray's workers, too, which is another."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net/weights").write_bytes(b"!")
    monkeypatch.chdir(tmp_path)
    made = recipe("photos", "out", {"mean_colour": odd("Weighty", weights="net/weights")})
    assert made.output == str(tmp_path / "out")
    (step,) = step_graph(made).steps
    assert step.weights == WeightsSource(str(tmp_path / "net/weights"))


@pytest.mark.parametrize(
    ("weights", "theirs"),
    [
        ("s3://bucket/w", True),
        ("s3://user:word@bucket/w?x=y", True),
        ("s3://other/w", False),
        ("https://bucket/w", False),
        ("org/net", False),
        ("package:nsfw/model.onnx", False),
    ],
)
def test_the_outputs_options_are_told_to_nobody_else(weights, theirs):
    made = recipe("photos", "s3://bucket/out", {"rgb": {}}, storage_options={"secret": "hush"})
    assert WeightsSource.of(made, weights).options == ({"secret": "hush"} if theirs else {})


def test_weights_are_read_once(tmp_path, monkeypatch):
    """However often a plan asks for their hash; changed ones are read again."""
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first, read = hash_files(file), []
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: read.append(self) or opened(self, mode))
    assert (hash_files(file), read) == (first, [])
    os.truncate(file, 2)
    assert (hash_files(file) == first, read) == (False, [file])


def test_weights_are_hashed_by_content_and_fetched_from_storage(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "cache"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    assert hash_files(tmp_path / "one") == hash_files(tmp_path / "two")
    fetched = localise(f"file://{tmp_path}/one")
    assert hash_files(type(tmp_path)(fetched)) == hash_files(tmp_path / "one")
    (tmp_path / "two" / "config.json").write_text("{ }")
    assert hash_files(tmp_path / "one") != hash_files(tmp_path / "two")
    assert without_credentials("s3://user:secret@host/path?token=x") == "s3://host/path"


@pytest.mark.parametrize("names", [["photos/a.jpg"], ["notes.txt", "rgbs/labels-0/a.tar"]])
def test_an_output_among_other_things_is_refused(corpus_folder, tmp_path, names):
    """As where corpus and output were mixed up."""
    output = Store(tmp_path / "out")
    for name in names:
        output.create(name, b"1")
    with pytest.raises(DatasetError, match=r"holds \S+.* and is no dataset.*choose an empty or a new folder"):
        make_plan(recipe(corpus_folder, output.url, {"mean_colour": odd("MeanColour")}))


def test_what_a_disk_or_a_run_that_died_has_left_is_no_hindrance(corpus_folder, tmp_path):
    output = Store(tmp_path / "out")
    for name in (".gitkeep", "lost+found/x", "corpus/0123.jsonl"):
        output.create(name, b"1")
    assert make_plan(recipe(corpus_folder, output.url, {"mean_colour": odd("MeanColour")})).works
