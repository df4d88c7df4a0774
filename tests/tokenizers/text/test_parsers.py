"""What every serialisation has in common: it is read back as it was written, without bias, and nothing breaks it."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.labelers.contract.instances import InstanceSet, Mask
from tokenloom.labelers.contract.kinds import Instances, Record, Text
from tokenloom.labelers.contract.poses import ATTRIBUTES, nearest_rotations
from tokenloom.tokenizers.contract.grammar import Sentence, UngrammaticalError, fault
from tokenloom.tokenizers.contract.special_tokens import EOS, PAD
from tokenloom.tokenizers.contract.vocabulary import UNK, Vocabulary
from tokenloom.tokenizers.instances.human_poses import HumanPosesTokenizer
from tokenloom.tokenizers.instances.instance_text import box_coordinates
from tokenloom.tokenizers.instances.instances import InstancesTokenizer
from tokenloom.tokenizers.instances.pose_text import SCALES
from tokenloom.tokenizers.text.base import StructuredTokenizer, TextParams
from tokenloom.tokenizers.text.records import (
    METADATA,
    Count,
    Edges,
    MetadataTokenizer,
    PaletteTokenizer,
    RecordTokenizer,
    Span,
)
from tokenloom.tokenizers.text.wordpiece import WordPiece

PUBLIC = Path(__file__).parents[4] / "shared/golden/text_tokenizer_4m_wordpiece_30k.json"
OURS = Vocabulary.train(["a photo of a lighthouse beside the sea, not far from the harbour"])
POSES = Instances(attributes=ATTRIBUTES["smpl"], pose="smpl")
EXAMPLES = 25


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    corners = np.sort(generator.random((count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float32)


def things(seed: int) -> InstanceSet:
    generator = rng(seed)
    count = int(generator.integers(0, 6))
    words = ["cup", "traffic light", "a photo of the sea", "x-ray 3.5"]
    return InstanceSet(boxes(generator, count), [words[index] for index in generator.integers(0, 4, count)])


def texts(seed: int) -> InstanceSet:
    found = things(seed)
    return InstanceSet(found.boxes, ["text"] * len(found), texts=found.labels)


def masked(seed: int) -> InstanceSet:
    generator = rng(seed)
    count = int(generator.integers(0, 4))
    masks = [Mask.from_array(np.kron(generator.random((8, 8)) < 0.5, np.ones((8, 8), bool))) for _ in range(count)]
    return InstanceSet(boxes(generator, count), ["cup"] * count, masks=masks)


def people(seed: int) -> InstanceSet:
    generator = rng(seed)
    count = int(generator.integers(0, 4))
    turned = np.eye(3) + 0.3 * generator.standard_normal((count, 24, 3, 3))
    rotations = nearest_rotations(turned.astype(np.float32))
    attributes = {
        "global_orient": rotations[:, 0],
        "body_pose": rotations[:, 1:],
        "betas": generator.standard_normal((count, 10)).astype(np.float32),
        "pred_cam": generator.uniform(-1, 2, (count, 3)).astype(np.float32),
        "camera": generator.standard_normal((count, 3)).astype(np.float32),
    }
    return InstanceSet(boxes(generator, count), ["human"] * count, attributes=attributes)


def palette(seed: int) -> dict[str, Any]:
    return {"5": rng(seed).integers(0, 256, (5, 3)).tolist()}


def metadata(seed: int) -> dict[str, Any]:
    chosen = rng(seed).random(len(METADATA)) < 0.7
    return {name: 300 * rng(seed + 1).random() for name, here in zip(METADATA, chosen, strict=True) if here}


def record(seed: int) -> dict[str, Any]:
    generator = rng(seed)
    return {"name": "a photo", "size": float(f"{generator.normal():.6g}"), "tags": ["sea", [1, None, True], {"a": "b"}]}


CASES: dict[str, tuple[type[StructuredTokenizer], Any, Any]] = {
    "instances": (InstancesTokenizer, Instances(), things),
    "texts": (InstancesTokenizer, Instances(texts=True), texts),
    "masks": (InstancesTokenizer, Instances(masks=True), masked),
    "poses": (HumanPosesTokenizer, POSES, people),
    "palette": (PaletteTokenizer, Record(tuple("1234567")), palette),
    "metadata": (MetadataTokenizer, Record(tuple(METADATA)), metadata),
    "record": (RecordTokenizer, Record(("name", "size", "tags")), record),
}


def make(name: str, vocabulary: Vocabulary) -> StructuredTokenizer:
    tokenizer_class, kind, label = CASES[name]
    tokenizer = tokenizer_class(kind)
    tokenizer.use_vocabulary(vocabulary)
    if tokenizer.needs_fit:
        tokenizer.fit([label(seed) for seed in range(40)], 0)
    return tokenizer


@pytest.fixture(scope="module")
def vocabularies() -> dict[str, Vocabulary]:
    found = {"ours": OURS}
    if PUBLIC.exists():
        found["public"] = Vocabulary.from_bytes(PUBLIC.read_bytes())
    return found


@pytest.fixture(scope="module", params=["ours", "public"])
def tokenizers(request, vocabularies) -> dict[str, StructuredTokenizer]:
    if request.param not in vocabularies:
        pytest.skip("the public 4M vocabulary isn't beside this checkout (../shared/golden)")
    return {name: make(name, vocabularies[request.param]) for name in CASES}


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 10**6))
def test_what_was_written_is_grammatical(tokenizers, name, seed):
    """But for exponents, and what is longer than it may be, which no label of these has."""
    tokenizer = tokenizers[name]
    (ids,) = tokenizer.encode([CASES[name][2](seed)])
    assert fault(tokenizer.grammar(), ids.tolist(), tokenizer.max_length) is None


@pytest.mark.parametrize("name", [*CASES, "words"])
@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 10**6), room=st.integers(23, 120))
def test_what_is_grammatical_has_no_faults(tokenizers, name, seed, room):
    """However it is drawn, and however little room there is: each choice is as likely as the others, so that a text
    comes to boxes and brackets, too."""
    tokenizer, generator = tokenizers.get(name), rng(seed)
    if tokenizer is None:
        tokenizer = WordPiece(Text())
        tokenizer.use_vocabulary(tokenizers["record"].vocabulary)
    room = room + 20 if name == "poses" else room
    sentence, ids = Sentence(tokenizer.grammar(), room), list[int]()
    while not sentence.done:
        goes_on = [one for one in sentence.choices if one.needs >= 0 or len(ids) > room // 2]
        fitting = goes_on or sentence.choices
        ids.append(int(generator.choice(fitting[int(generator.integers(len(fitting)))].ids)))
        sentence.say(ids[-1])
    assert ids.pop() == EOS
    assert len(ids) <= room
    label, faults = tokenizer.parse(np.array(ids))
    assert faults == []
    tokenizer.kind.decode(tokenizer.kind.encode(tokenizer.kind.check(label)))
    for place in {0, len(ids) // 2, len(ids)}:
        assert fault(tokenizer.grammar(), [*ids[:place], PAD], room) == place


def test_a_room_too_small_is_named(tokenizers):
    with pytest.raises(UngrammaticalError, match="a text has 4 tokens at least, and there is room for 3"):
        Sentence(tokenizers["palette"].grammar(), 3)
    assert len(Sentence(tokenizers["poses"].grammar(), 1).allowed()) == 1


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 10**6))
def test_what_was_written_is_read_back(tokenizers, name, seed):
    """Once quantised, a label is a fixed point: reading and writing it again gives the same tokens."""
    tokenizer = tokenizers[name]
    label = CASES[name][2](seed)
    (ids,) = tokenizer.encode([label])
    assert ids.tolist() == tokenizer._write(tokenizer.groups(label)).tolist()
    read, faults = tokenizer.parse(ids)
    assert faults == []
    tokenizer.kind.check(read)
    if isinstance(label, InstanceSet):
        assert len(read) == len(label)
        order = np.lexsort(np.rint(label.boxes.astype(np.float64) * 999).T)
        same = np.lexsort(np.rint(read.boxes.astype(np.float64) * 999).T)
        assert np.abs(label.boxes[order] - read.boxes[same]).max(initial=0) <= 0.5 / 999 + 1e-6
    elif name != "metadata":
        assert read == label
    if name not in ("masks", "poses"):  # masks are painted into another frame, and rotations aren't rounded alike
        assert tokenizer.encode([read])[0].tolist() == ids.tolist()


def check_read(tokenizer: StructuredTokenizer, ids: list[int]) -> list[str]:
    """Whatever the ids are, a label of the kind comes out, and faults as text."""
    label, faults = tokenizer.parse(np.array(ids, np.int64))
    tokenizer.kind.check(label)
    assert all(isinstance(fault, str) and fault for fault in faults)
    if isinstance(label, dict):
        json.dumps(label)
    (decoded,) = tokenizer.decode([np.array(ids, np.int64)])
    assert decoded == label
    return faults


token = st.one_of(
    st.integers(0, 30_010),
    st.integers(204, 4203),
    st.sampled_from([204, 1204, 2204, 3204, 4300]),
    st.integers(-(2**40), 2**40),
    st.sampled_from([OURS.word(word) for word in ("human", "polygon", "pose", "shape", "global", "camera", "none")]),
)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=EXAMPLES)
@given(ids=st.lists(token, max_size=120))
def test_any_tokens_can_be_read(tokenizers, name, ids):
    check_read(tokenizers[name], ids)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_damaged_tokens_can_be_read(tokenizers, name, data):
    tokenizer = tokenizers[name]
    ids = tokenizer.encode([CASES[name][2](data.draw(st.integers(0, 1000)))])[0].tolist()
    how = data.draw(st.sampled_from(["cut", "shuffled", "replaced", "doubled", "begun late"]))
    at = data.draw(st.integers(0, len(ids)))
    if how == "cut":
        ids = ids[:at]
    elif how == "begun late":
        ids = ids[at:]
    elif how == "shuffled":
        ids = data.draw(st.permutations(ids))
    elif how == "doubled":
        ids = ids[:at] + ids
    else:
        ids[at : at + 1] = [data.draw(token)]
    check_read(tokenizer, ids)


@pytest.mark.parametrize("name", CASES)
def test_an_id_outside_the_vocabulary_is_a_fault_beside_what_can_be_saved(tokenizers, name):
    tokenizer = tokenizers[name]
    label = next(label for label in map(CASES[name][2], range(100)) if len(label) >= 2 or name == "palette")
    ids = tokenizer.encode([label])[0].tolist()
    for wrong in (-1, tokenizer.vocabulary.size, 2**40):
        assert check_read(tokenizer, [*ids, wrong])
    kept = tokenizer.parse(np.array([*ids, tokenizer.vocabulary.size]))[0]
    assert len(kept) >= len(label) - 1


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])
def test_ids_may_have_any_integer_dtype(tokenizers, dtype):
    for name, tokenizer in tokenizers.items():
        ids = tokenizer.encode([CASES[name][2](3)])[0]
        assert tokenizer.parse(ids.astype(dtype)) == tokenizer.parse(ids)


def test_no_instances_are_none(tokenizers):
    for name in ("instances", "texts", "masks", "poses"):
        kind = tokenizers[name].kind
        empty = InstanceSet.empty(kind.masks, kind.scores, kind.texts, kind.attributes)
        (ids,) = tokenizers[name].encode([empty])
        assert ids.tolist() == [tokenizers[name].vocabulary.word("none")]
        assert tokenizers[name].parse(ids) == (empty, [])
        assert tokenizers[name].encode([]) == []


# bins


def bias(bins: Any, low: float, high: float) -> float:
    """Mean of value(bin(x)) - x over evenly spread x, as a share of the range."""
    values = np.linspace(low, high, 20_001)
    return float(np.mean([bins.value(bins.bin(value)) - value for value in values.tolist()])) / (high - low)


@pytest.mark.slow
@pytest.mark.parametrize("name", METADATA)
def test_metadata_bins_have_no_bias(name):
    match METADATA[name]:
        case Count() as bins:
            whole = range(bins.step * bins.bins)
            assert np.mean([bins.value(bins.bin(number)) - number for number in whole]) == pytest.approx(0, abs=1e-9)
        case Span(low, high) as bins:
            assert abs(bias(bins, low, high)) < 1e-4
        case Edges(edges, values) as bins:
            width = values[1] - values[0]  # the outer bins are taken to be as wide as the inner ones
            assert abs(bias(bins, edges[0] - width, edges[-1] + width)) < 1e-4


@pytest.mark.slow
def test_boxes_and_pose_numbers_have_no_bias():
    shares = np.linspace(0, 1, 200_001, dtype=np.float64)
    steps = np.array([coordinate.value for coordinate in box_coordinates(shares)[:4]])
    assert steps.tolist() == [0, 0, 0, 0]
    written = np.concatenate([[one.value for one in box_coordinates(part)] for part in shares[:200_000].reshape(-1, 4)])
    assert abs(np.mean(written / 999 - shares[:200_000])) < 1e-5
    for _, scale, _ in SCALES.values():
        numbers = np.linspace(scale.low, scale.high, 200_001)
        errors = scale.numbers(scale.steps(numbers)).astype(np.float64) - numbers
        assert abs(errors.mean()) < 1e-5 * (scale.high - scale.low)
        assert np.abs(errors).max() <= 0.5 / 999 * (scale.high - scale.low) * 1.001


# text

written = st.text(alphabet=string.ascii_letters + string.digits + string.punctuation + " \n\t", max_size=60)


@settings(max_examples=200)
@given(text=written)
def test_texts_are_read_back_but_for_case_and_spacing(vocabularies, text):
    for vocabulary in vocabularies.values():
        tokenizer = WordPiece(Text(), TextParams(max_length=400))
        tokenizer.use_vocabulary(vocabulary)
        (ids,) = tokenizer.encode([text])
        read, faults = tokenizer.parse(ids)
        assert faults == []
        assert [read] == tokenizer.decode([ids])
        if vocabulary is not OURS and UNK in ids:  # the public one lacks pieces for some marks
            continue
        assert re.sub(r"\s", "", read) == re.sub(r"\s", "", text).lower()
        assert tokenizer.decode(tokenizer.encode([read])) == [read]


@settings(max_examples=200)
@given(ids=st.lists(token, max_size=60))
def test_any_ids_are_a_text(vocabularies, ids):
    for vocabulary in vocabularies.values():
        tokenizer = WordPiece(Text())
        tokenizer.use_vocabulary(vocabulary)
        text, faults = tokenizer.parse(np.array(ids, np.int64))
        Text().check(text)
        outside = [index for index in ids if not 0 <= index < vocabulary.size]
        assert len(faults) == len(outside)
        if outside:
            with pytest.raises(ValueError, match="isn't in the vocabulary"):
                tokenizer.decode([np.array(ids, np.int64)])
