"""Environments in recipes: what may be listed, what it does to generations and stages, and what a plan says of it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from in_process import said, stream_here, weave
from tokenloom.pipeline.cluster.size import ClusterSize, Node
from tokenloom.pipeline.dataset.manifest import Manifest
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import RecipeError, load_recipe
from tokenloom.pipeline.plan.stages import stages
from tokenloom.pipeline.plan.steps import step_graph
from tokenloom.pipeline.retry import recipe_of
from weaving import odd, recipe

RECIPE = """\
corpus: {corpus}
output: {output}
environments:
  old: {{pip: [tiny-scale==1.0]}}
modalities:
  rgb: {{keep: labels}}
  mean_colour: {{labeler: "odd_labelers:MeanColour", keep: labels, environment: old}}
  doubled: {{labeler: "odd_labelers:Doubled", keep: labels}}
"""


def graph_of(modalities, **more):
    return step_graph(recipe("photos", "out", modalities, **more))


def pinned(*pins: str, **more):
    return odd("MeanColour", environment={"pip": list(pins)}, **more)


@pytest.mark.parametrize(
    ("pin", "message"),
    [
        ("timm", r"'timm': name one version, as timm==1.2.3"),
        ("timm>=0.4", "name one version"),
        ("timm==0.4.*", "name one version"),
        ("timm==0.4,!=0.5", "name one version"),
        ("timm[extra]==0.4", "leave out an extra"),
        ("timm==0.4; python_version<'4'", "leave out a condition"),
        ("not a requirement", "is no requirement"),
        ("Ray==2.50", "ray has to be the cluster's own"),
        ("numpy==1.26.4", r"tokenloom itself is at work there, and needs numpy>=2.0"),
    ],
)
def test_what_is_no_pin_names_its_line(tmp_path, pin, message):
    (tmp_path / "mine.yaml").write_text(RECIPE.format(corpus="a", output="b").replace("tiny-scale==1.0", f'"{pin}"'))
    with pytest.raises(RecipeError, match=rf"mine.yaml:4: environments.old.pip.0: .*{message}"):
        load_recipe(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    "pin", ["--index-url=https://me:hunter2@host/", "timm @ https://me:hunter2@host/t.whl", "-r hunter2.txt"]
)
def test_what_may_hold_a_credential_is_refused_and_not_repeated(pin):
    with pytest.raises(RecipeError, match="PIP_INDEX_URL") as refused:
        recipe("photos", "out", {"mean_colour": pinned(pin)})
    assert "hunter2" not in str(refused.value)


def test_an_environment_is_named_or_written_out_and_none_of_that_name_is_said():
    with pytest.raises(RecipeError, match=r"modalities.mean_colour.environment: write the name"):
        recipe("photos", "out", {"mean_colour": odd("MeanColour", environment={})})
    with pytest.raises(RecipeError, match=r"modalities.mean_colour.environment: 'odl' isn't among .*; these have old"):
        graph_of({"mean_colour": odd("MeanColour", environment="odl")}, environments={"old": {"pip": ["a==1"]}})
    with pytest.raises(RecipeError, match="tiny-scale is there twice"):
        recipe("photos", "out", {"mean_colour": pinned("tiny-scale==1", "Tiny_Scale==2")})


def test_the_lock_is_part_of_the_generation_and_nothing_else_of_it_is():
    def card(**settings):
        return graph_of({"mean_colour": odd("MeanColour", **settings)}, environments=named).cards["mean_colour"]

    named = {"old": {"pip": ["b==2", "Tiny_Scale==1.0"]}}
    old, same = card(environment="old"), card(environment={"pip": ["tiny-scale==1.0", "b==2"]})
    assert old == same
    assert old.environment == ["b==2", "tiny-scale==1"]
    built = card(environment={"pip": ["b==2+cpu", "tiny_scale==1"]})
    for pin in ("tiny-scale==1", "Tiny.Scale == 1.0.0", "tiny-scale==v1.0", " TINY__scale(==1.0) "):
        assert card(environment={"pip": [pin, "b==2.0+CPU"]}) == built
    generations = {one.labels_generation for one in (old, card(), card(environment={"pip": ["b==2"]}))}
    assert len(generations) == 3
    assert "environment" not in card().label_parts()  # by which generations stay what they were before there were any


def test_a_dataset_knows_its_environments_and_one_without_any_says_nothing_of_them(small_corpus, tmp_path):
    modalities = {"rgb": {"keep": "labels"}, "mean_colour": pinned("tiny-scale==1.0")}
    manifest = make_plan(recipe(small_corpus, tmp_path / "out", modalities)).manifest
    written = manifest.to_bytes()
    assert written.count(b'"environment"') == 1
    assert Manifest.from_bytes(written, "here") == manifest
    again = step_graph(recipe_of(manifest, "out", {}))
    assert again.step_of("mean_colour").environment == ("tiny-scale==1",)
    assert again.cards["mean_colour"].labels_generation == manifest.modalities["mean_colour"].labels_generation


def test_workers_have_one_environment():
    modalities = {"mean_colour": pinned("a==1"), "doubled": odd("Doubled"), "rgb": {}, "caption": {"environment": "a"}}
    more = {"environments": {"a": {"pip": ["A==1"]}}}
    made = recipe("photos", "out", modalities, **more)
    found = stages(step_graph(made), made, ClusterSize((Node(8),)))
    assert [(stage.modalities, stage.environment) for stage in found] == [
        (("mean_colour", "caption"), ("a==1",)),
        (("rgb",), ()),
        (("doubled",), ()),
    ]
    together = {"stages": [{"modalities": ["mean_colour", "rgb"]}]}
    with pytest.raises(RecipeError, match=r"stages.0.modalities: mean_colour and rgb have different environments"):
        graph_of(modalities, resources=together, **more)


def test_who_joins_a_labeler_of_another_joins_its_environment():
    modalities = {"dinov2_global": {}, "dinov2": {"environment": {"pip": ["a==1"]}}}
    (step,) = graph_of(modalities, weights="tiny").steps
    assert (step.modalities, step.environment) == (("dinov2_global", "dinov2"), ("a==1",))


def test_a_plan_tells_what_is_installed_and_what_it_could_not_try(small_corpus: Path, tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(RECIPE.format(corpus=small_corpus, output=tmp_path / "out"))
    told = said("plan", tmp_path / "mine.yaml", "--calibrate", "2")
    assert "to install on every node, for the workers of mean_colour: tiny-scale==1" in told
    assert "not tried, and not counted: mean_colour, doubled, which are made in an environment of its own" in told
    assert "tried on 2 samples here" in told


def test_environments_are_made_and_workers_started_for_what_is_made_in_them(small_corpus, tmp_path, monkeypatch):
    """Also in passing, and for a fitting sample; for nothing else."""
    here = f"pyyaml=={version('pyyaml')}"  # so that this process is in it
    wanted, started = list[dict[tuple[str, ...], list[str]]](), list[list[str]]()
    monkeypatch.setattr("tokenloom.pipeline.run.make_environments", lambda made, *_: wanted.append(dict(made)))

    def streamed(works, reader, configs):
        started.append([name for config in configs if config.stage.environment for name in config.stage.modalities])
        return stream_here(works, reader, configs)

    monkeypatch.setattr("in_process.stream_here", streamed)

    def woven(output: str, **modalities) -> None:
        wanted.clear()
        started.clear()
        weave(recipe(small_corpus, tmp_path / output, modalities))

    tokenized = {"keep": "tokens", "tokenizer": {"name": "product_codebook", "params": {"parts": 1, "size": 2}}}
    apart = pinned(here, **tokenized)
    (pins,) = graph_of({"mean_colour": apart}).cards["mean_colour"].environment
    ours = {(pins,): ["mean_colour"]}
    woven("out", mean_colour=apart)
    assert (wanted, started) == ([ours], [["mean_colour"], ["mean_colour"]])  # a fitting sample, and all
    woven("out", mean_colour=apart, caption={"keep": "labels"})
    assert (wanted, started) == ([{}], [[]])
    woven("out", mean_colour=apart, doubled=odd("Doubled"))  # of labels that aren't kept
    assert (wanted, started) == ([ours], [["mean_colour"]])
    woven("kept", mean_colour=pinned(here))
    woven("kept", mean_colour=pinned(here), doubled=odd("Doubled", **tokenized))
    assert (wanted, started) == ([ours], [["mean_colour"], []])  # the sample makes labels that are kept once more
