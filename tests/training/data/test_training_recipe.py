"""Training recipes: what they say, what their datasets give, and each mistake in one line with its place."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from galleries import without_corpus
from small_dataset import SmallDataset, made_anew, path_of, pending, write_dataset
from tokenloom.pipeline.plan.recipe_file import RecipeError
from tokenloom.training.data.batches import Batches
from tokenloom.training.data.recipe import TrainingRecipe, load_training_recipe
from tokenloom.training.data.schemes import named_schemes
from training_recipes import NAMES, content, opened, refusal, run_command, two_datasets, written
from weaving import write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for small in two_datasets(tmp_path):
        without_corpus(small, tmp_path)
    return tmp_path


def test_short_forms_and_overrides(tmp_path):
    recipe = written(
        tmp_path / "train.yaml", content(tmp_path), "data.input_tokens=[8, 16]", "data.datasets.b.weight=2"
    )
    assert recipe.data.masking.name == "all2all"
    assert (recipe.data.input_tokens, recipe.data.target_tokens) == ((8, 16), (20, 20))
    assert recipe.data.datasets["b"].weight == 2
    assert recipe.data.datasets["a"].url == str(tmp_path / "one")


def test_4m21_is_what_the_paper_mixes(shared):
    """Alphas and keeps of all seven schemes, for all that is no picture of rgb: there 4M has pixels beside tokens."""
    golden = json.loads((shared / "golden/masking_stats.json").read_text())
    facts = {name: one for name, one in golden["modalities"].items() if "rgb" not in name}
    schemes = named_schemes("4m21", [*facts, "rgb"])
    assert [scheme.weight for scheme in schemes] == golden["sampling_weights"]
    for place, scheme in enumerate(schemes):
        for name, fact in facts.items():
            assert scheme.inputs[name] == fact["input_alphas"][place]
            if fact["type"] != "seq_emb" or place == len(schemes) - 1:
                assert scheme.targets[name] == fact["target_alphas"][place]
            assert scheme.keep.get(name, "random") == (fact.get("keep") or ["random"] * 7)[place]
    assert schemes[4].inputs["rgb"] == 1000
    assert [len(named_schemes(name, ["rgb", "depth"])) for name in ("4m21", "all2all", "rgb2all")] == [5, 4, 1]


def test_inputs_and_targets_are_kept_apart(folder):
    """Also where a sample lacks all that it might show: then it shows nothing."""
    mixed = content(folder)
    mixed["data"]["datasets"]["a"] |= {"inputs": ["caption"], "targets": ["dinov2", "caption"], "views": 1}
    data = opened(folder, **mixed["data"])
    batch = next(iter(Batches(data.mixture, 400)))
    caption, palette, dinov2 = (batch.modalities.index(name) for name in NAMES)
    for source, places in data.mixture.places(batch.positions):
        rows = places.position
        seen, said = (set(side.modality[rows].ravel().tolist()) - {-1} for side in (batch.inputs, batch.targets))
        if source == 0:
            assert (seen, said) == ({caption}, {caption, dinov2})
            assert set(places.view.tolist()) == {0}
            assert not batch.inputs.used[rows].any(axis=1).all()
        else:
            assert seen == said == {caption, palette, dinov2}
            assert set(places.view.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"datasets.a.weight": 0}, r"train.yaml:5: data.datasets.a.weight: input should be greater than 0"),
        ({"datasets.a.weight": -1}, r"train.yaml:5: data.datasets.a.weight: input should be greater than 0"),
        ({"datasets.b.weight": 1e-4}, r"data.datasets.b.weight: 0.0001 of 3.0001 is less than one sample in 1,000"),
        ({"datasets.a.wieght": 1}, r"data.datasets.a.wieght: unknown key; did you mean 'weight'\?"),
        ({"datasets.a.repeats": 0}, r"data.datasets.a.repeats: input should be greater than or equal to 1"),
        ({"datasets.a.views": 3}, r"data.datasets.a.views: 3 are asked for, and \S+one has 2 of a sample"),
        ({"datasets.a.inputs": ["captoin"]}, r"train.yaml:6: data.datasets.a.inputs: .* \(did you mean 'caption'\?\)"),
        (
            {"datasets.a.targets": ["canny_edge"]},
            r"a.targets: the dataset keeps no tokens of 'canny_edge'",
        ),
        ({"datasets.a.url": "s4://bucket/x"}, r"data.datasets.a.url: s4://bucket/x: no file system is called s4://"),
        ({"datasets.a.url": "/nowhere"}, r"train.yaml:4: data.datasets.a.url: /nowhere: no dataset here"),
        ({"datasets": {}}, r"data.datasets: it is empty; write at least one by its name, as `NAME: {url: ...}`"),
        ({"datasets": ["a", "b"]}, r"data.datasets: write at least one by its name, as `NAME: {url: ...}`"),
        (
            {"datasets.a": "out/"},
            r"train.yaml:3: data.datasets.a: write keys, as `a: {url: out/}`; there are url, weight",
        ),
        ({"datasets.a": "s3://me:it@host/x"}, r"data.datasets.a: write keys, as `a: {url: ...}`"),
        ({"datasets.a.inputs": []}, r"data.datasets.a.inputs: it is empty; write a list, as \[...\]"),
        ({"datasets.a.inputs": "rgb"}, r"data.datasets.a.inputs: write a list, as \[rgb\]"),
        ({"cache": "/tmp/x"}, r"data.cache: write keys, as `cache: {folder: /tmp/x}`; there are folder, gigabytes"),
        ({"cache": {"folder": ""}}, r"data.cache.folder: '' is no folder of this machine; give one"),
        ({"cache": {"folder": "s3://a/b"}}, r"data.cache.folder: 's3://a/b' is no folder of this machine"),
        ({"masking": "4m22"}, r"data.masking.name: input should be '4m21', 'all2all' or 'rgb2all'"),
        ({"masking": "rgb2all"}, r"data.masking: rgb2all needs rgb, which no dataset gives"),
        ({"masking": {}}, r"data.masking: give the `name` of one"),
        (
            {"masking": {"schemes": [{"inputs": {"rgb": 1}, "targets": {"caption": 1}}]}},
            r"data.masking.schemes.0.inputs.rgb: no dataset gives 'rgb'; there are caption, color_palette, dinov2",
        ),
        (
            {"masking": {"schemes": [{"inputs": {"caption": -1}, "targets": {"caption": 1}}]}},
            r"data.masking.schemes.0.inputs.caption: input should be greater than or equal to 0",
        ),
        *[
            (
                {"masking": {"schemes": [{"inputs": {"caption": alpha}, "targets": {"caption": 1}}]}},
                rf"data.masking.schemes.0.inputs.caption: input should be {said}",
            )
            for alpha, said in ((1e308, "less than or equal to 1000000000"), (1e-320, "0, or at least 1e-9"))
        ],
        ({"input_tokens": 0}, r"train.yaml:9: data.input_tokens: input should be at least 1"),
        ({"input_tokens": True}, r"data.input_tokens: write a number, or the least and the most, as \[64, 128\]"),
        ({"input_tokens": [1, 2, 3]}, r"data.input_tokens: write a number, or the least and the most"),
        ({"target_tokens": [9, 3]}, r"data.target_tokens: from 9 to 3 is no range"),
        *[
            ({key: 10**21}, rf"train.yaml:\d+: data.{key}: input should be less than 2147483648")
            for key in ("datasets.a.repeats", "window", "input_tokens", "target_tokens", "batch_size")
        ],
        ({"input_tokens": [1, 10**21]}, r"data.input_tokens.1: input should be less than 2147483648"),
        ({"max_tokens": {"caption": 10**21}}, r"data.max_tokens.caption: input should be less than 2147483648"),
        (
            {"datasets.a.repeats": 10**9},
            r"train.yaml:6: data.datasets.a.repeats: of a 2 units are read side by side, of up to 8 samples, with "
            r"repeats 8,000,000,000, whose order lies in memory: 16,777,216 at most",
        ),
        (
            {"input_tokens": [1, 10**9]},
            r"train.yaml:9: data.input_tokens: 16 samples of 1,000,000,000 input and 20 target tokens make a batch of",
        ),
        ({"target_tokens": 10**9}, r"data.target_tokens: 16 samples of 20 input and 1,000,000,000 target tokens"),
        ({"batch_size": 10**9}, r"train.yaml:11: data.batch_size: 1,000,000,000 samples of 20 input and 20 target"),
        ({"batch_size": "many"}, r"data.batch_size: input should be a valid integer"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(folder, capsys, changes, said):
    mixed: Any = content(folder)
    for key, value in changes.items():
        *parents, last = key.split(".")
        node = mixed["data"]
        for parent in parents:
            node = node[parent]
        node[last] = value
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(mixed, sort_keys=False))
    line = refusal(path, capsys)
    assert line.startswith(f"tokenloom: {path}:"), line
    assert re.search(said, line), line


def grow_the_corpus(one: SmallDataset) -> None:
    write_manifest(one.store, replace(one.manifest, corpus=replace(one.manifest.corpus, shards=3)))


def lose_a_shard(one: SmallDataset) -> None:
    path_of(one, one.token_path("dinov2", one.units[1])).unlink()


def lose_all_samples(one: SmallDataset) -> None:
    for entry in one.store.list():
        one.store.delete(entry.name)
    write_dataset(one.store.url, samples=0)


def change_the_vocabulary(one: SmallDataset) -> None:
    cards = dict(one.manifest.modalities)
    for name in ("caption", "color_palette"):
        tokens = cards[name].tokens
        assert tokens is not None
        assert tokens.vocabulary is not None
        cards[name] = replace(
            cards[name], tokens=replace(tokens, vocabulary=replace(tokens.vocabulary, digest="f" * 64))
        )
    _move_to_new_cards(one, cards)


def change_the_codebook(one: SmallDataset) -> None:
    card = one.manifest.modalities["dinov2"]
    assert card.tokens is not None
    other = replace(card, tokens=replace(card.tokens, files={"codebook.npz": "0" * 64}))
    _move_to_new_cards(one, {**one.manifest.modalities, "dinov2": other})


def _move_to_new_cards(one: SmallDataset, cards: dict[str, Any]) -> None:
    """Publishes other cards, and puts the shards where these look for them."""
    for name, card in cards.items():
        old = one.manifest.modalities[name]
        if card != old:
            folder = path_of(one, f"{name}/tokens-{old.tokens_generation}")
            folder.rename(path_of(one, f"{name}/tokens-{card.tokens_generation}"))
    write_manifest(one.store, replace(one.manifest, modalities=cards))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (grow_the_corpus, "one: 2 of 3 shards of its corpus are complete; either its run hasn't ended, or"),
        (lose_a_shard, "one lacks the shards of dinov2 for 1 of 4 units (the first is photos-00000-"),
        (lose_all_samples, "one has no samples"),
        (change_the_vocabulary, "data.datasets.b.url: its caption is written in another text vocabulary"),
        (change_the_codebook, "dinov2 was tokenised by one tokenizer in"),
    ],
)
def test_datasets_that_can_not_be_mixed_are_refused(tmp_path, capsys, damage, said):
    one, _ = two_datasets(tmp_path)
    damage(one)
    written(tmp_path / "train.yaml", content(tmp_path))
    assert said in refusal(tmp_path / "train.yaml", capsys)


def test_a_modality_that_is_being_made_anew_is_told(tmp_path):
    one, _ = two_datasets(tmp_path)
    pending(one, made_anew(one, "dinov2", 1, params={"size": 2}), "dinov2")
    assert "a: dinov2 is being made anew; what readers get now is used" in opened(tmp_path).notes


def test_plan_says_what_the_datasets_give(folder, capsys):
    mixed = content(folder, input_tokens=[10, 600])
    mixed["data"]["datasets"]["b"] |= {"targets": ["dinov2"], "repeats": 2}
    written(folder / "train.yaml", mixed)
    assert run_command("plan", str(folder / "train.yaml")) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a", "4", "16", "2", "1", "75.0%", "75,000.0"] in lines
    assert ["b", "6", "24", "2", "2", "25.0%", "8,333.3"] in lines
    assert [
        "color_palette",
        "<=",
        "8",
        next(line[3] for line in lines if line[:1] == ["caption"]),
        "a,",
        "b",
        "a",
    ] in lines
    text = " ".join(word for line in lines for word in line)
    assert "note: a: input_tokens is 600, and a sample has 273 at most (caption 256, color_palette 8, dinov2 9)" in text
    assert run_command("plan", str(folder / "train.yaml"), "--corpus", "x") == 2


def test_a_budget_that_max_tokens_keeps_from_being_filled_says_so(folder):
    """As many as are lacking, of a text that may have as many; where none may, nothing."""
    alone = {"url": str(folder / "one")}
    (note,) = opened(folder, input_tokens=600, target_tokens=8, datasets={"a": alone}).notes
    assert note.startswith("a: input_tokens is 600, and a sample has 273 at most (caption 256, ")
    assert note.endswith(": the rest stays empty; `max_tokens: {caption: 257}` shows more of a text")
    (note,) = opened(folder, input_tokens=600, target_tokens=8, datasets={"a": {**alone, "inputs": ["dinov2"]}}).notes
    assert note.endswith(": the rest stays empty")


def test_batches_prints_what_they_hold(folder, capsys):
    written(folder / "train.yaml", content(folder))
    assert run_command("batches", str(folder / "train.yaml"), "--batches", "2", "--steps", "10") == 0
    printed = capsys.readouterr().out
    (dinov2,) = (line.split() for line in printed.splitlines() if line.startswith("dinov2"))
    assert 0 < float(dinov2[1]) + float(dinov2[3]) <= 9
    assert "epochs in 10 steps" in printed
    assert "32 samples at" in printed


def test_a_training_recipe_is_a_file(tmp_path):
    with pytest.raises(RecipeError, match="no such file; a training recipe is a YAML file with the key `data`"):
        load_training_recipe(tmp_path / "none.yaml")


def test_a_recipe_of_a_dataset_is_told_from_one(tmp_path, capsys):
    (tmp_path / "images.yaml").write_text("corpus: photos\noutput: out\nmodalities: {rgb: {}}")
    line = refusal(tmp_path / "images.yaml", capsys, "batches")
    assert "images.yaml: a recipe of which a dataset is made, with the key 'corpus': `tokenloom run " in line


def test_what_is_empty_is_told(tmp_path, capsys):
    (tmp_path / "train.yaml").write_text("data:")
    line = refusal(tmp_path / "train.yaml", capsys)
    assert (
        "train.yaml:1: data: it is empty; write keys, as `data: {datasets: ...}`; there are datasets, masking" in line
    )


def test_a_window_of_all_units_takes_what_they_take(folder):
    """However large a number it is; and of many tokens fewer batches are made at once."""
    few, many = (opened(folder, window=window).mixture for window in (100, 2**31 - 1))
    positions = np.arange(200)
    np.testing.assert_array_equal(few.batch(positions).inputs.ids, many.batch(positions).inputs.ids)
    large = Batches(opened(folder, input_tokens=2**20, batch_size=1).mixture, 1)
    assert large.span == 3


@pytest.mark.parametrize("words", [("run",), ("tokenizer", "fit", "--to", "somewhere")])
def test_no_dataset_is_made_of_one(tmp_path, capsys, words):
    written(tmp_path / "train.yaml", content(tmp_path))
    more = ("caption",) if "fit" in words else ()
    assert run_command(*words, str(tmp_path / "train.yaml"), *more) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "train.yaml: a training recipe, of which no dataset is made; `tokenloom plan " in said
    assert "`tokenloom batches " in said


def test_its_schema_is_printed(capsys):
    assert run_command("schema", "--training") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == TrainingRecipe.model_json_schema()
    assert "corpus_options" in told["$defs"]["DatasetSettings"]["properties"]
