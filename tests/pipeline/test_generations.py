"""Generations: what is made otherwise lies beside what there was, and nothing goes stale in silence."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from in_process import weave, without_ray
from PIL import Image as Pillow
from tokenloom.pipeline.checks.garbage import remove_garbage
from tokenloom.pipeline.checks.history import read_history
from tokenloom.pipeline.checks.status import read_status
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import DatasetError, require_manifest
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import Recipe
from tokenloom.pipeline.plan.weights import WeightsError
from tokenloom.pipeline.run import execute
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.contract.vocabulary import Vocabulary
from weaving import card_of, digests, labels_of, odd, recipe, shards_of

pytestmark = pytest.mark.slow
MORE = {"units": {"samples": 3}, "views": {"size": 32}, "fit": {"units": 2}}
DOUBLED = {"mean_colour": odd("MeanColour"), "doubled": odd("Doubled")}


@pytest.fixture(scope="module")
def corpus(small_corpus: Path) -> Path:
    return small_corpus


def grid(size: int = 4, **more: Any) -> dict[str, Any]:
    return {
        "labeler": "odd_labelers:Grid",
        "keep": "both",
        "tokenizer": {"name": "codebook", "params": {"size": size}},
        **more,
    }


def faults(output: Path) -> list[tuple[str, str]]:
    return [(fault.problem, fault.object) for fault in verify(output).faults]


def sizes(output: Path) -> dict[str, int]:
    return {entry.name: entry.size for entry in Store(output).list()}


def with_corpus(made: Recipe, **more: Any) -> Recipe:
    return made.model_copy(update={"corpus": made.corpus.model_copy(update=more)})


# --- replacing --------------------------------------------------------------------------------------------------------


def test_replacing_what_is_as_the_recipe_says_changes_nothing(corpus, tmp_path):
    made = recipe(corpus, tmp_path / "out", {"grid": grid(), "caption": {}}, **MORE)
    weave(made)
    before = digests(tmp_path / "out")
    for name in ("grid", "caption"):
        assert weave(made, [name]).units == 0
    assert digests(tmp_path / "out") == before
    assert faults(tmp_path / "out") == []


def test_what_is_replaced_stays_until_all_of_it_is_there(corpus, tmp_path):
    old, new = (recipe(corpus, tmp_path / "out", {"grid": grid(size)}, **MORE) for size in (4, 3))
    weave(old)
    before = digests(tmp_path / "out")
    reader = open_dataset(tmp_path / "out")
    weave(new, ["grid"], limit=3)
    assert before.items() <= digests(tmp_path / "out").items()
    assert open_dataset(tmp_path / "out").modalities["grid"].vocabulary == 4
    assert [(one.name, one.pending, one.units) for one in read_status(Store(tmp_path / "out")).modalities] == [
        ("grid", False, 2),
        ("grid", True, 1),
    ]
    assert faults(tmp_path / "out") == [("unfinished", "grid (new)")]
    tally = weave(new)  # which goes on without being told again
    assert open_dataset(tmp_path / "out").modalities["grid"].vocabulary == 3
    assert len(list(open_dataset(tmp_path / "out").iterate(["grid"]))) == len(list(reader.iterate(["grid"]))) == 6
    assert faults(tmp_path / "out") == []
    assert tally.superseded == read_status(Store(tmp_path / "out")).superseded
    tokenizers = {name: size for name, size in sizes(tmp_path / "out").items() if name.startswith("tokenizers/")}
    assert tally.superseded > min(tokenizers.values())


def test_a_replacement_may_be_taken_back(corpus, tmp_path):
    old, new = (recipe(corpus, tmp_path / "out", {"grid": grid(size)}, **MORE) for size in (4, 3))
    weave(old)
    weave(new, ["grid"], limit=3)
    assert weave(old, ["grid"]).units == 0
    assert require_manifest(Store(tmp_path / "out")).pending == {}
    assert faults(tmp_path / "out") == []


def test_what_hangs_on_a_replaced_modality_is_stale_though_no_recipe_names_it(corpus, tmp_path, capsys):
    from tokenloom.pipeline.commands.run import run

    output = tmp_path / "out"
    weave(recipe(corpus, output, DOUBLED, **MORE))
    changed = recipe(corpus, output, {"mean_colour": odd("Raises")}, **MORE)
    with pytest.raises(DatasetError, match=r"labeler: .*MeanColour.* -> .*Raises.*\n.*--replace mean_colour"):
        make_plan(changed)
    plan = make_plan(changed, ["mean_colour"])
    assert plan.stale == {"doubled": ["it was made from mean_colour as it was before"]}
    path = tmp_path / "changed.json"
    path.write_text(changed.model_dump_json(exclude_unset=True))
    run(str(path), [], [], None, ["mean_colour"], False, None, dry_run=True)
    said = "doubled, which this recipe doesn't make, is stale then: it was made from mean_colour"
    assert said in capsys.readouterr().out
    weave(changed, ["mean_colour"])
    assert ("stale", "doubled") in faults(output)
    stale = {one.name: one.stale for one in read_status(Store(output)).modalities}
    assert stale == {"mean_colour": [], "doubled": ["it was made from mean_colour as it was before"]}
    both = recipe(corpus, output, {"mean_colour": odd("Raises"), "doubled": odd("Doubled")}, **MORE)
    with pytest.raises(DatasetError, match=r"doubled was made differently:\n  requires.mean_colour"):
        make_plan(both)
    assert list(weave(both, ["doubled"]).rows) == ["doubled"]
    assert faults(output) == []


def test_what_is_made_from_it_is_replaced_with_it_where_the_recipe_has_both(corpus, tmp_path):
    weave(recipe(corpus, tmp_path / "out", DOUBLED, **MORE))
    both = recipe(corpus, tmp_path / "out", {"mean_colour": odd("Raises"), "doubled": odd("Doubled")}, **MORE)
    assert set(weave(both, ["mean_colour"]).rows) == {"mean_colour", "doubled"}
    assert faults(tmp_path / "out") == []


def test_what_a_recipe_keeps_no_more_goes_when_it_is_replaced_and_is_told_until_then(corpus, tmp_path, tokenloom):
    output = tmp_path / "out"
    weave(recipe(corpus, output, {"grid": grid(), "color_palette": {"keep": "both"}}, **MORE))
    fewer = recipe(corpus, output, {"grid": grid(keep="tokens"), "color_palette": {"keep": "both"}}, **MORE)
    path = tmp_path / "fewer.json"
    path.write_text(fewer.model_dump_json(exclude_unset=True))
    with without_ray():
        assert "grid: its labels stay kept, as the dataset has it; --replace grid lets" in tokenloom("plan", path)
    assert weave(fewer).units == 0
    assert card_of(output, "grid").keeps_labels
    with without_ray():
        said = tokenloom("plan", path, "--replace", "grid")
    assert "grid: its labels are kept no more" in said
    assert "nothing to replace" not in said
    assert weave(fewer, ["grid"]).units == 0
    assert not card_of(output, "grid").keeps_labels
    assert "grid" not in make_plan(fewer).kept_besides
    gone = {one.path.partition("-")[0] for one in remove_garbage(Store(output), timedelta(0))}
    assert gone == {"grid/labels"}
    assert faults(output) == []
    assert weave(fewer).units == 0


def test_all_that_was_made_differently_is_named_at_once_and_what_comes_with_it(corpus, tmp_path):
    others = {"canny_edge": {"keep": "labels"}, "grid": grid(), "doubled": odd("Doubled")}
    weave(recipe(corpus, tmp_path / "out", {"mean_colour": odd("MeanColour"), **others}, **MORE))
    others["canny_edge"] = {"keep": "labels", "params": {"low": 50}}
    changed = recipe(corpus, tmp_path / "out", {"mean_colour": odd("Raises"), **others}, **MORE)
    with pytest.raises(DatasetError) as error:
        make_plan(changed)
    made = "Make that anew with --replace mean_colour --replace canny_edge (with what is made from it: doubled), beside"
    assert made in str(error.value)
    assert make_plan(changed, ["mean_colour", "canny_edge"]).replacing == ["mean_colour", "canny_edge", "doubled"]


def test_a_new_tokenizer_on_kept_labels_runs_no_labeler(corpus, tmp_path):
    notes = tmp_path / "notes"
    notes.touch()
    counted = {"labeler": "odd_labelers:CountedGrid", "params": {"file": str(notes)}}
    weave(recipe(corpus, tmp_path / "out", {"grid": {**grid(4), **counted}}, **MORE))
    before, asked = labels_of(tmp_path / "out", "grid"), notes.read_text()
    tally = weave(recipe(corpus, tmp_path / "out", {"grid": {**grid(3), **counted}}, **MORE), ["grid"])
    assert (tally.samples, tally.decodes) == (6, 0)
    assert notes.read_text() == asked != ""
    assert labels_of(tmp_path / "out", "grid") == before
    assert faults(tmp_path / "out") == []
    weave(recipe(corpus, tmp_path / "fresh", {"grid": {**grid(3), **counted}}, **MORE))
    assert shards_of(tmp_path / "fresh").items() <= shards_of(tmp_path / "out").items()


@pytest.mark.parametrize("views", [1, 2])
def test_kept_labels_of_whole_images_are_cropped_as_fresh_ones_are(views, corpus, tmp_path):
    def edges(codes: int) -> dict[str, Any]:
        tokenizer = {"name": "patch_codebook", "params": {"size": codes}}
        return {"grey_image": {"labeler": "odd_labelers:GreyImage", "keep": "both", "tokenizer": tokenizer}}

    more = {**MORE, "views": {"size": 32, "count": views}}
    weave(recipe(corpus, tmp_path / "out", edges(4), **more))
    weave(recipe(corpus, tmp_path / "out", edges(5), **more), ["grey_image"])
    weave(recipe(corpus, tmp_path / "fresh", edges(5), **more))
    assert shards_of(tmp_path / "fresh").items() <= shards_of(tmp_path / "out").items()


def test_labels_that_are_kept_later_leave_readers_their_tokens(corpus, tmp_path):
    weave(recipe(corpus, tmp_path / "out", {"grid": grid(keep="tokens")}, **MORE))
    weave(recipe(corpus, tmp_path / "out", {"grid": grid()}, **MORE), limit=3)
    assert len(list(open_dataset(tmp_path / "out").iterate(["grid"]))) == 6
    weave(recipe(corpus, tmp_path / "out", {"grid": grid()}, **MORE))
    assert len(list(open_dataset(tmp_path / "out").iterate(["grid"], labels=True))) == 6
    assert faults(tmp_path / "out") == []


def test_the_history_tells_what_changed(corpus, tmp_path):
    weave(recipe(corpus, tmp_path / "out", {"grid": grid(4)}, **MORE))
    weave(recipe(corpus, tmp_path / "out", {"grid": grid(3)}, **MORE), ["grid"])
    told = ["; ".join(chapter.changes) for chapter in read_history(Store(tmp_path / "out"))]
    assert len(told) == 5
    assert told[0].startswith("begun, from ")
    assert "grid: its tokenizer is there" in told[1]
    assert "grid: is being made anew" in told[2]
    assert "grid: tokenizer.params.size: 4 -> 3" in told[4]


# --- the corpus and how it is read ------------------------------------------------------------------------------------


@pytest.mark.parametrize("otherwise", [{"fields": ["json"]}, {"image": "png"}, {"split": "last"}])
def test_another_reading_of_the_corpus_is_not_mixed_in(otherwise, corpus_folder, tmp_path):
    """Whether or not the recipe names what was made of the first."""
    for path in list(corpus_folder.glob("*.jpg")):
        Pillow.open(path).save(path.with_suffix(".png"))
    output = tmp_path / "out"
    weave(with_corpus(recipe(corpus_folder, output, DOUBLED, **MORE), image="jpg"))
    before = digests(output)
    for name in ("mean_colour", "canny_edge"):
        modality = {name: odd("MeanColour") if name == "mean_colour" else {"keep": "labels"}}
        changed = with_corpus(recipe(corpus_folder, output, modality, **MORE), **{"image": "jpg", **otherwise})
        for replacing in ([], [name]):
            with pytest.raises(DatasetError, match="read by"):
                make_plan(changed, replacing)
    assert digests(output) == before


def test_all_modalities_may_be_replaced_by_another_reading(corpus_folder, tmp_path):
    for path in list(corpus_folder.glob("*.jpg")):
        Pillow.open(path).rotate(90, expand=True).save(path.with_suffix(".png"))
    made = recipe(corpus_folder, tmp_path / "out", DOUBLED, **MORE)
    weave(with_corpus(made, image="jpg"))
    turned = with_corpus(made, image="png")
    weave(turned, ["mean_colour"], limit=3)  # and what is made from it
    weave(turned)
    assert faults(tmp_path / "out") == []
    with pytest.raises(DatasetError, match="read by"):
        make_plan(with_corpus(made, image="jpg"))


# --- vocabularies -----------------------------------------------------------------------------------------------------


def length_of(output: Path, name: str) -> float:
    rows = [row.values[name] for row in open_dataset(output).iterate([name])]
    return sum(map(len, rows)) / len(rows)


def test_a_vocabulary_that_was_trained_on_no_texts_does_not_stay(corpus, tmp_path):
    """As where a palette came first, and the captions lie in a field that nobody had named."""
    for path in (moved := tmp_path / "corpus").mkdir() or corpus.iterdir():
        if path.suffix == ".jpg":
            (moved / path.name).write_bytes(path.read_bytes())
        else:
            (moved / path.name).with_suffix(".json").write_text(json.dumps({"alt": path.read_text()}))
    output = tmp_path / "out"
    palette = {"color_palette": {"keep": "both"}}
    weave(recipe(moved, output, palette, **MORE))
    captions = {"caption": {"params": {"field": "alt"}}}
    weave(recipe(moved, output, captions, **MORE))
    assert length_of(output, "caption") < 25
    assert ("stale", "color_palette") in faults(output)
    both = recipe(moved, output, {**captions, **palette}, **MORE)
    with pytest.raises(DatasetError, match=r"color_palette was made differently:\n  tokenizer.vocabulary.trained_on"):
        make_plan(both)
    assert weave(both, ["color_palette"]).decodes == 0
    assert faults(output) == []


def test_a_wrong_caption_field_that_is_corrected_gives_another_vocabulary(corpus, tmp_path):
    output = tmp_path / "out"
    weave(recipe(corpus, output, {"caption": {"params": {"field": "nothing"}}, "color_palette": {}}, **MORE))
    right = recipe(corpus, output, {"caption": {}, "color_palette": {}}, **MORE)
    with pytest.raises(DatasetError, match="--replace caption"):
        make_plan(right)
    weave(right, ["caption", "color_palette"])
    assert length_of(output, "caption") < 25
    assert faults(output) == []
    weave(recipe(corpus, tmp_path / "fresh", {"caption": {}, "color_palette": {}}, **MORE))
    assert shards_of(tmp_path / "fresh").items() <= shards_of(output).items()


def test_another_given_vocabulary_is_not_ignored(corpus, tmp_path):
    output, words = tmp_path / "out", []
    for number, text in enumerate(("a photo of a rocket", "an entirely different sentence")):
        words.append(tmp_path / f"words-{number}.json")
        words[-1].write_bytes(Vocabulary.train([text] * 5).to_bytes())
    modalities = {"caption": {"keep": "both"}, "metadata": {}}
    one, other = (recipe(corpus, output, modalities, vocabulary=str(path), **MORE) for path in words)
    weave(one)
    with pytest.raises(DatasetError, match=r"caption was made differently:\n  tokenizer.vocabulary.digest"):
        make_plan(other)
    with pytest.raises(DatasetError, match=r"--replace caption \(with what is made from it: metadata\), beside"):
        make_plan(other)
    weave(other, ["caption", "metadata"])
    used = card_of(output, "metadata").tokens
    assert used is not None
    assert used.vocabulary is not None
    assert Store(output).read(f"vocabularies/{used.vocabulary.digest}/vocabulary.json") == words[1].read_bytes()
    assert faults(output) == []


def test_texts_that_come_later_take_the_vocabulary_that_there_is(corpus, tmp_path):
    output = tmp_path / "out"
    weave(recipe(corpus, output, {"caption": {}}, **MORE))
    before = shards_of(output)
    weave(recipe(corpus, output, {"caption": {}, "ocr": {}}, **MORE))
    weave(recipe(corpus, output, {"ocr": {}, "color_palette": {}}, **MORE))
    assert before.items() <= shards_of(output).items()
    assert len(list((output / "vocabularies").iterdir())) == 1
    assert faults(output) == []


def test_the_sample_counts_for_what_is_fitted_to_it_alone(corpus, tmp_path):
    modalities = {"caption": {}, "color_palette": {}, "grid": grid()}
    weave(recipe(corpus, tmp_path / "out", modalities, **MORE))
    more = {**MORE, "fit": {"units": 1}}
    make_plan(recipe(corpus, tmp_path / "out", {"caption": {}, "color_palette": {}}, **more))
    with pytest.raises(DatasetError, match=r"grid was made differently:\n  tokenizer.fit_units: 2 -> 1"):
        make_plan(recipe(corpus, tmp_path / "out", modalities, **more))


# --- tokenizers and labelers ------------------------------------------------------------------------------------------


def test_a_tokenizer_is_pinned_when_the_corpus_grows(corpus, corpus_folder, tmp_path):
    """Labels that an older run put aside for a fit are no part of a later one's sample."""
    output = tmp_path / "out"
    made = recipe(corpus_folder, output, {"grid": grid()}, **MORE)
    weave(made)
    pinned = card_of(output, "grid").tokenizer_digest
    weave(recipe(corpus_folder, output, {"grid": grid(), "canny_edge": {"keep": "labels"}}, **MORE))
    assert card_of(output, "grid").tokenizer_digest == pinned


def test_leftovers_of_another_sample_are_not_fitted_to(corpus, tmp_path):
    made = recipe(corpus, tmp_path / "out", {"grid": grid()}, **MORE)
    weave(recipe(corpus, tmp_path / "fresh", {"grid": grid()}, **MORE))
    for entry in Store(tmp_path / "fresh").list("grid"):
        if entry.name.endswith(".tar"):
            data = Store(tmp_path / "fresh").read(f"grid/{entry.name}")
            name = entry.name.rpartition("/")[2]
            for folder in ("fit/grid", "fit/grid/0123456789abcdef"):
                Store(tmp_path / "out").create(f"{folder}/other-{name}", data)
    weave(made)
    assert shards_of(tmp_path / "fresh").items() <= shards_of(tmp_path / "out").items()


def test_weights_that_change_after_the_plan_are_refused_where_they_are_loaded(corpus, tmp_path):
    from tokenloom.labelers.depth import Depth
    from tokenloom.pipeline.plan.weights import localise

    weights = Path(localise("tiny", labeler_class=Depth))
    copy = tmp_path / "weights"
    copy.mkdir()
    for path in weights.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    made = recipe(corpus, tmp_path / "out", {"depth": {"keep": "labels", "weights": str(copy)}}, **MORE)
    plan = make_plan(made)
    config = copy / "config.json"
    config.write_text(config.read_text() + "\n")
    with without_ray(), pytest.raises(WeightsError, match=r"their SHA-256 is .* here and was"):
        execute(plan)
    assert not list((tmp_path / "out").glob("depth/*/*"))


def test_a_damaged_tokenizer_is_named(corpus, tmp_path):
    old, new = (recipe(corpus, tmp_path / "out", {"grid": grid(size)}, **MORE) for size in (4, 3))
    weave(old)
    path = tmp_path / "out/tokenizers" / card_of(tmp_path / "out", "grid").tokenizer_digest / "config.json"
    weave(new, ["grid"])
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DatasetError, match=r"config.json: it is damaged; delete it"):
        weave(old, ["grid"])
    path.unlink()
    weave(old)
    assert faults(tmp_path / "out") == []
