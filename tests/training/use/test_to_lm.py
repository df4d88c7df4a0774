"""Exports for decoder-only trainers, read by what is written of their files, and decoded."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from command import command
from hypothesis import given
from hypothesis import strategies as st
from lm_files import MegatronReader, documents, packed, vocabulary
from small_dataset import SmallDataset, rewrite_tokens, write_dataset
from tokenloom import Dataset, open_dataset
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.use import to_lm
from tokenloom.training.use.lm_decode import decode
from tokenloom.training.use.lm_tasks import LmTasks, Task
from tokenloom.training.use.lm_vocabulary import END_OF_DOCUMENT, PAD, LmVocabulary, Place

TASKS = """\
seed: 7
length: 512
tasks:
  - {order: [caption, dinov2], weight: 2}
  - {order: [dinov2, caption]}
  - {order: any}
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> SmallDataset:
    """Not to be changed. A sample has nothing but a palette: no caption, and no features of its second view."""
    small = write_dataset(tmp_path_factory.mktemp("small") / "dataset")
    unit = small.units[0]
    rewrite_tokens(small, "dinov2", unit, change=lambda tokens: [*tokens[:6], None, None])
    return small


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lm")
    (folder / "tasks.yaml").write_text(TASKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to_lm.DecoderOnly, "most_rows", 16)
        words = (small.store.url, folder / "out", "--to", "lm", "--tasks", folder / "tasks.yaml")
        ended = command("export", *words)
    assert ended.code == 0, ended.err
    (folder / "said").write_text(ended.out)
    return folder / "out"


def open_it(small: SmallDataset) -> Dataset:
    return open_dataset(small.store.url)


# --- the vocabulary ---------------------------------------------------------------------------------------------------


def test_modalities_of_one_text_vocabulary_share_a_block_and_others_have_their_own(small, exported):
    found = json.loads((exported / "vocabulary.json").read_text())
    places = found["places"]
    words = open_it(small).modalities["caption"].vocabulary
    assert words
    assert places["caption"]["offset"] == places["color_palette"]["offset"] == 2 + 2 * 3
    assert places["dinov2"]["offset"] == 8 + words
    assert found["size"] == 8 + words + 16
    markers = [place[which] for place in places.values() for which in ("begin", "end")]
    assert sorted(markers) == list(range(2, 8))
    assert found["special"] == {"pad": 0, "end_of_document": 1}
    assert found["dtype"] == "uint16"


def test_a_large_vocabulary_is_int32():
    def of(size: int) -> LmVocabulary:
        return LmVocabulary({"a": Place(2, 3, 4, size - 4, None)}, size, "", {})

    assert of(65_499).dtype == np.uint16
    assert of(65_500).dtype == np.int32
    document = of(70_000).document({"a": np.array([69_995], np.uint32)})
    assert document.tolist() == [2, 69_999, 3, END_OF_DOCUMENT]


# --- the sequences ----------------------------------------------------------------------------------------------------


def test_documents_hold_the_rows_in_the_orders_that_are_drawn(small, exported):
    words = vocabulary(exported)
    tasks = LmTasks(
        seed=7,
        length=512,
        tasks=[
            Task(order=["caption", "dinov2"], weight=2),
            Task(order=["dinov2", "caption"]),
            Task(order="any"),
        ],
    )
    rows = {(row.key, row.view): row.values for row in open_it(small).iterate(["caption", "color_palette", "dinov2"])}
    orders = set()
    found = documents(exported)
    for key, view, ids in found:
        segments = words.parse(ids)
        order = tasks.order(list(words.places), key, view)
        assert [one.modality for one in segments] == [name for name in order if rows[key, view][name] is not None]
        assert {one.problem for one in segments} == {""}
        for one in segments:
            np.testing.assert_array_equal(one.ids, rows[key, view][one.modality])
        assert ids[-1] == END_OF_DOCUMENT
        orders.add(tuple(order))
    assert len(orders) > 2
    places = [place for place in rows if place in {(key, view) for key, view, _ in found}]
    assert [(key, view) for key, view, _ in found] == places
    missing = {place: rows[place] for place in rows if place not in places}
    assert missing, "the sample without both should be drawn a task of these two"
    for values in missing.values():
        assert values["caption"] is None
        assert values["dinov2"] is None
    said = (exported.parent / "said").read_text()
    assert f"{len(missing)} row{'s' * (len(missing) > 1)} left out: its sample has none of its task's" in said


def test_sequences_are_full_of_whole_documents(exported):
    rows = packed(exported)
    assert {len(row["tokens"]) for row in rows} == {512}
    for row, following in pairwise(rows):
        if following["keys"][0].split("/")[1] == row["keys"][0].split("/")[1]:  # of one piece
            assert sum(row["lengths"]) + following["lengths"][0] > 512
    assert any(len(row["lengths"]) > 1 for row in rows)


def test_megatron_finds_the_same_documents(exported):
    readers = [MegatronReader(path.with_suffix("")) for path in sorted((exported / "megatron").glob("*.idx"))]
    assert len(readers) == 2
    found = [reader[number] for reader in readers for number in range(len(reader))]
    expected = [ids for _, _, ids in documents(exported)]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    for reader in readers:
        assert reader.dtype == np.uint16
        assert reader.documents.tolist() == list(range(len(reader) + 1))
        assert len(reader.data) == 2 * reader.lengths.sum()


@given(st.integers(0, 2**32), st.text(), st.integers(0, 255))
def test_an_order_is_a_function_of_seed_key_and_view(seed, key, view):
    tasks = LmTasks(seed=seed, tasks=[Task(order="any"), Task(order=["b", "a"], weight=0.1)])
    order = tasks.order(["a", "b", "c"], key, view)
    assert order == tasks.order(["a", "b", "c"], key, view)
    assert sorted(order) in (["a", "b", "c"], ["a", "b"])


def test_tasks_are_drawn_by_their_weights():
    tasks = LmTasks(tasks=[Task(order=["a"], weight=3), Task(order=["b"])])
    drawn = [tasks.order(["a", "b"], str(key), 0)[0] for key in range(4000)]
    assert 2900 < drawn.count("a") < 3100  # three standard deviations are 82
    orders = [tuple(LmTasks().order(["a", "b", "c"], str(key), 0)) for key in range(6000)]
    assert all(900 < orders.count(one) < 1100 for one in set(orders))
    assert len(set(orders)) == 6


# --- back to labels ---------------------------------------------------------------------------------------------------


def test_a_sequence_is_decoded_to_labels(small, exported, tmp_path):
    dataset = open_it(small)
    row = next(row for row in packed(exported) if len(row["lengths"]) > 1)
    (tmp_path / "ids.json").write_text(json.dumps(row["tokens"]))
    decoded = decode(vocabulary(exported), row["tokens"], dataset)
    assert [one.problem for one in decoded] == [""] * len(decoded)
    for one in decoded:
        values = dataset.get(row["keys"][one.segment.document], row["views"][one.segment.document]).values
        expected = dataset.decode(one.segment.modality, values[one.segment.modality])
        np.testing.assert_equal(one.label, expected)
    ended = command("decode", exported, tmp_path / "ids.json", "--output", tmp_path / "labels")
    assert ended.code == 0, ended.err
    assert len(ended.out.splitlines()) == len(decoded)
    caption = next(one for one in decoded if one.segment.modality == "caption")
    assert f"document {caption.segment.document}, caption, " in ended.out
    assert caption.label in ended.out
    number = decoded.index(caption)
    assert (tmp_path / f"labels/{number:03d}-caption.txt").read_text() == caption.label


def test_what_a_model_made_wrong_is_named(small, exported, tmp_path):
    words = vocabulary(exported)
    caption, features = words.places["caption"], words.places["dinov2"]
    good = [features.begin, *range(features.offset, features.offset + 9), features.end]
    ids = [
        *[caption.offset + 5000, caption.end],  # outside of any
        *[caption.begin, caption.offset + 4300, *good],  # no end
        *[features.begin, *good[1:8], features.end, END_OF_DOCUMENT],  # too few
        *[features.begin, *good[1:9], caption.offset, features.end],  # of another modality
        *[PAD, PAD, caption.begin],
    ]
    (tmp_path / "ids.txt").write_text(" ".join(map(str, ids)))
    ended = command("decode", exported, tmp_path / "ids.txt")
    assert ended.code == 0, ended.err
    lines = [line.partition(": ") for line in ended.out.splitlines()]
    assert [line[0] for line in lines] == [
        "document 0, no modality, 2 tokens",
        "document 0, caption, 1 token",
        "document 0, dinov2, 9 tokens",
        "document 0, dinov2, 7 tokens",
        "document 1, dinov2, 9 tokens",
        "document 1, caption, 0 tokens",
    ]
    assert [line[2].split(",")[0].split(":")[0] for line in lines] == [
        "it stands in no modality",
        "its end marker",
        "feature_map",
        "it has 7 tokens",
        f"{caption.offset} is no id of it",
        "its end marker",
    ]


@given(st.lists(st.integers(0, 40), max_size=60))
def test_every_id_is_in_a_segment_or_a_marker(ids):
    places = {"a": Place(2, 3, 6, 10, 3), "b": Place(4, 5, 16, 20, None)}
    words = LmVocabulary(places, 36, "", {})
    segments = words.parse(ids)
    inside = [int(one) + (places[s.modality].offset if s.modality else 0) for s in segments for one in s.ids]
    rest = list(ids)
    for index in inside:
        rest.remove(index)
    assert set(rest) <= {PAD, END_OF_DOCUMENT, 2, 3, 4, 5}


@given(st.permutations(["a", "b"]), st.lists(st.integers(0, 9), min_size=3, max_size=3), st.lists(st.integers(0, 19)))
def test_a_document_is_parsed_to_what_it_was_made_of(order, a, b):
    words = LmVocabulary({"a": Place(2, 3, 6, 10, 3), "b": Place(4, 5, 16, 20, None)}, 36, "", {})
    values = {"a": np.array(a, np.uint16), "b": np.array(b, np.uint16)}
    document = words.document({name: values[name] for name in order})
    segments = words.parse(np.concatenate([document, document]))
    assert [(one.document, one.modality, one.problem) for one in segments] == [
        (number, name, "") for number in range(2) for name in order
    ]
    for one in segments:
        assert one.ids.tolist() == values[one.modality].tolist()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("length: 99999999999999", ":1: length: input should be less than or equal to 16777216"),
        ("tasks: [{order: [caption, depth]}]", "tasks.0.order: there are no tokens of 'depth'"),
        ("tasks: [{order: [caption, caption]}]", "a modality is there twice"),
        ("length: 8\ntasks:\n- {order: any}", ":3: tasks.0.order: a document may have"),
        ("tasks: [{order: any, weight: 0}]", ":1: tasks.0.weight: input should be greater than 0"),
        ("tasks: [{order: any, weight: .nan}]", "tasks.0.weight"),
        ("tasks: [{order: any, weight: .inf}, {order: any}]", "tasks.0.weight: input should be"),
        ("tasks: [{order: any, weight: 1e308}, {order: any, weight: 1e9}]", "tasks.0.weight: input should be"),
        ("tasks: [{order: caption}]", "tasks.0.order: write a list, as [caption] or input should be 'any'"),
        ("tasks: []", "tasks: "),
        ("seeds: 3", "did you mean 'seed'?"),
        ("- caption", "tasks are a mapping"),
        ("tasks: [", "not YAML"),
    ],
)
def test_mistakes_in_tasks(small, tmp_path, text, said):
    (tmp_path / "tasks.yaml").write_text(text)
    words = (small.store.url, tmp_path / "out", "--to", "lm", "--tasks", tmp_path / "tasks.yaml")
    ended = command("export", *words)
    assert ended.code == 2
    assert said in ended.err
    assert str(tmp_path / "tasks.yaml") in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_tasks_that_cant_be_read(small, tmp_path):
    ended = command("export", small.store.url, tmp_path / "out", "--to", "lm", "--tasks", tmp_path)
    assert ended.code == 2
    assert f"{tmp_path}: it can't be read" in ended.err


def test_tasks_of_another_format(small, tmp_path):
    (tmp_path / "tasks.yaml").write_text(TASKS)
    words = (small.store.url, tmp_path / "out", "--to", "hf", "--tasks", tmp_path / "tasks.yaml")
    assert "only --to lm has tasks" in command("export", *words).err


def test_other_tasks_than_before(small, exported, tmp_path):
    ended = command("export", small.store.url, exported, "--to", "lm")
    assert ended.code == 2
    assert "whose pieces, tasks differ" in ended.err


def test_what_is_no_sequence_or_no_export(small, exported, tmp_path):
    wrong = {
        "1 2 x": "'x' is no id",
        "[1, -2]": "'-2' is no id",
        "": "there is no id in it",
        f"2 {2**63} 3": f"{2**63} is no id: the vocabulary has",
        "7" * 5000: "'77777777777777777777' is no id",
    }
    for text, said in wrong.items():
        (tmp_path / "ids").write_text(text)
        ended = command("decode", exported, tmp_path / "ids")
        assert ended.code == 2
        assert said in ended.err
    for nothing in (tmp_path / "missing", tmp_path):
        ended = command("decode", exported, nothing)
        assert ended.code == 2
        assert f"{nothing}: it can't be read" in ended.err
        assert ended.err.count("\n") == 1
    (tmp_path / "ids").write_text("[4]")
    assert "there is no vocabulary.json" in command("decode", small.store.url, tmp_path / "ids").err
    (tmp_path / "vocabulary.json").write_text("{}")
    assert "it isn't the vocabulary of an export" in command("decode", tmp_path, tmp_path / "ids").err


def test_a_dataset_that_was_moved(small, exported, tmp_path):
    words = vocabulary(exported)
    shutil.copytree(exported, tmp_path / "out")
    (tmp_path / "out/vocabulary.json").write_bytes(replace(words, dataset=str(tmp_path / "gone")).to_bytes())
    (tmp_path / "ids").write_text(f"{words.places['caption'].begin}")
    ended = command("decode", tmp_path / "out", tmp_path / "ids")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "gone: no dataset here" in ended.err
    assert "where it is now is told by --dataset URL" in ended.err
    assert command("decode", tmp_path / "out", tmp_path / "ids", "--dataset", small.store.url).code == 0


@pytest.mark.parametrize("weights", [[5e-324, 5e-324], [1e9, 1e-300]])
def test_a_task_is_drawn_whatever_the_weights(weights):
    tasks = LmTasks(tasks=[Task(order=[str(place)], weight=weight) for place, weight in enumerate(weights)])
    assert {tasks.order(["0", "1"], str(key), 0)[0] for key in range(100)} <= {"0", "1"}


def test_a_dataset_with_other_tokenizers(small, exported, tmp_path):
    from tokenloom.pipeline.dataset.manifest import publish

    other = write_dataset(tmp_path / "other")
    card = replace(other.manifest.modalities["caption"], version=2)
    publish(other.store, lambda now: replace(other.manifest, modalities={"caption": card}))
    words = vocabulary(exported)
    (tmp_path / "ids").write_text(f"{words.places['caption'].begin} {words.places['dinov2'].begin}")
    ended = command("decode", exported, tmp_path / "ids", "--dataset", other.store.url)
    assert ended.code == 2
    assert "caption, as it was exported, was made anew since" in ended.err
    assert Store(other.store.url).url in ended.err
