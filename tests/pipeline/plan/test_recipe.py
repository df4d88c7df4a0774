"""Recipes: what is read, and what a mistake says."""

from __future__ import annotations

import json

import pytest
from tokenloom.pipeline.plan.recipe import Recipe, RecipeError, load_recipe, shipped_recipes

GOOD = """\
corpus: photos
output: out
modalities:
  rgb: {}
  canny_edge:
    params: {low: 50}
    tokenizer: patch_codebook
views: {size: 128}
"""


def load(tmp_path, text: str, *overrides: str, **more) -> Recipe:
    (tmp_path / "mine.yaml").write_text(text)
    return load_recipe(tmp_path / "mine.yaml", overrides, **more)


def test_short_forms_are_the_long_ones(tmp_path):
    short = load(tmp_path, "corpus: photos\noutput: out\nmodalities: [rgb, caption]\n")
    long = load(tmp_path, "corpus: {url: photos}\noutput: out\nmodalities: {rgb: {}, caption: }\n")
    assert short == long
    recipe = load(tmp_path, GOOD)
    tokenizer = recipe.modalities["canny_edge"].tokenizer
    assert tokenizer is not None
    assert tokenizer.name == "patch_codebook"


def test_a_tokenizer_is_trained_here_or_given(tmp_path):
    trained = load(tmp_path, GOOD.replace("patch_codebook", "{fit: {steps: 30}}")).modalities["canny_edge"].tokenizer
    assert trained is not None
    assert trained.fit is not None
    assert trained.fit.steps == 30
    given = load(tmp_path, GOOD.replace("patch_codebook", "{weights: EPFL-VILAB/4M_tokenizers_edge_8k_224-512}"))
    assert given.modalities["canny_edge"].tokenizer.weights.startswith("EPFL-VILAB/")  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match="give one of them"):
        load(tmp_path, GOOD.replace("patch_codebook", "{fit: {}, weights: some/where}"))
    with pytest.raises(RecipeError, match=r"modalities.canny_edge.tokenizer.fit.step: unknown key; did you mean 'ste"):
        load(tmp_path, GOOD.replace("patch_codebook", "{fit: {step: 30}}"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("modaliti: {}", r"mine.yaml:9: modaliti: unknown key; did you mean 'modalities'\?"),
        ("units: {sampels: 3}", r"mine.yaml:9: units.sampels: unknown key; did you mean 'samples'\?"),
        ("max_failures: lots", r"mine.yaml:9: max_failures: "),
        ("units: {samples: 0}", r"mine.yaml:9: units.samples: input should be greater than or equal to 1"),
        ("seed: [", r"mine.yaml:10: not YAML"),
    ],
)
def test_a_mistake_names_the_line_and_the_way_out(tmp_path, wrong, message):
    with pytest.raises(RecipeError, match=message):
        load(tmp_path, GOOD + wrong + "\n")


def test_a_modality_is_checked_in_depth(tmp_path):
    with pytest.raises(
        RecipeError, match=r"mine.yaml:6: modalities.canny_edge.parms: unknown key; did you mean 'params'"
    ):
        load(tmp_path, GOOD.replace("params:", "parms:"))
    with pytest.raises(RecipeError, match=r"'tokenizers' can't be a modality's name"):
        load(tmp_path, GOOD.replace("rgb:", "tokenizers:"))


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"mine.yaml: output: it is missing; give --output URL, or write it"):
        load(tmp_path, "corpus: photos\nmodalities: [rgb]\n")


def test_overrides(tmp_path):
    recipe = load(tmp_path, GOOD, "views.size=448", "corpus.format=tar", "modalities.dinov2.weights=here/it/is")
    assert recipe.views.size == 448
    assert (recipe.corpus.url, recipe.corpus.format) == ("photos", "tar")
    assert recipe.modalities["dinov2"].weights == "here/it/is"
    recipe = load(tmp_path, GOOD, corpus="s3://bucket/{0..3}.tar", output="/else: where")
    assert (recipe.corpus.url, recipe.output) == ("s3://bucket/{0..3}.tar", "/else: where")


@pytest.mark.parametrize("override", ["views.size", "=3", "seed=["])
def test_a_bad_override_says_how_to_write_it(tmp_path, override):
    with pytest.raises(RecipeError, match="--set"):
        load(tmp_path, GOOD, override)


@pytest.mark.parametrize("name", ["quickstart", "mine.yaml"])
def test_a_key_that_an_override_brought_is_its_mistake(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(GOOD)
    for override, key in {"unitz.samples=4": "unitz", "views.a.b=1": "views.a", "a.b.c=1": "a"}.items():
        with pytest.raises(RecipeError, match=rf"^--set {override}: {key}: unknown key"):
            load_recipe(name, [override], corpus="photos", output="out")


def test_shipped_recipes_load_and_unknown_names_list_them():
    assert "quickstart" in shipped_recipes()
    for name in shipped_recipes():
        load_recipe(name, corpus="photos", output="out")
    with pytest.raises(RecipeError, match="quickstart"):
        load_recipe("quickstrat")


def test_several_corpora_may_be_given_and_each_mistake_in_them_is_theirs(tmp_path):
    assert load(tmp_path, GOOD, corpus=["a", "b"]).corpus.url == ["a", "b"]
    assert load(tmp_path, GOOD, corpus=["a"]).corpus.url == "a"
    with pytest.raises(RecipeError, match=r"^--corpus: corpus"):
        load_recipe("quickstart", corpus="a.tar::b.tar", output="out")
    with (
        pytest.raises(RecipeError, match=r"^--corpus: corpus.image"),
        load_recipe("quickstart", corpus="photos", output="out").named(),
    ):
        raise RecipeError("corpus.image: none")


@pytest.mark.parametrize("name", ["mine.yaml", "mine.json", "mine", "./mine.txt"])
def test_a_file_of_any_name_is_a_recipe(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"no such file|named by its file, as mine\.yaml"):
        load_recipe(name)
    (tmp_path / name).write_text(GOOD)
    assert load_recipe(name).corpus.url == load(tmp_path, GOOD).corpus.url


def test_a_file_does_not_hide_a_shipped_recipe_and_a_folder_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").write_text("no recipe")
    assert load_recipe("quickstart", corpus="photos", output="out").modalities
    (tmp_path / "photos").mkdir()
    with pytest.raises(RecipeError, match="photos: a folder"):
        load_recipe("photos")


def test_the_schema_is_json_and_describes_the_keys():
    schema = json.loads(json.dumps(Recipe.model_json_schema()))
    assert set(schema["required"]) == {"corpus", "output", "modalities"}
    assert schema["additionalProperties"] is False
