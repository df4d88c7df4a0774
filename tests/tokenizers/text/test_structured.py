"""Text and records as tokens: round trips, bounds, malformed tokens, and the spelling of ml-4m."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.labelers.contract.kinds import Record, Text
from tokenloom.tokenizers.contract.special_tokens import EOS
from tokenloom.tokenizers.contract.vocabulary import Vocabulary
from tokenloom.tokenizers.text.base import TextParams, VocabularyTokenizer
from tokenloom.tokenizers.text.documents import LONGEST, Documents
from tokenloom.tokenizers.text.records import (
    METADATA,
    Count,
    MetadataTokenizer,
    PaletteParams,
    PaletteTokenizer,
    RecordTokenizer,
)
from tokenloom.tokenizers.text.wordpiece import WordPiece

PUBLIC = Path(__file__).parents[4] / "shared/golden/text_tokenizer_4m_wordpiece_30k.json"
VOCABULARY = Vocabulary.train(["a photo of a lighthouse beside the sea"] * 3)
PALETTE_KIND = Record(tuple("1234567"))
METADATA_KIND = Record(tuple(METADATA))
RECORD_KIND = Record(("name", "size", "tags", "extra"))


def ready(tokenizer, vocabulary=VOCABULARY):
    tokenizer.use_vocabulary(vocabulary)
    return tokenizer


def check_contract(tokenizer: VocabularyTokenizer, labels: list) -> list:
    """Bounds, dtype and state; gives what the labels decode to."""
    tokens = tokenizer.encode(labels)
    spec = tokenizer.spec
    assert (spec.type, spec.length, spec.grid) == ("text", None, None)
    assert spec.vocabulary == tokenizer.vocabulary.size
    for ids in tokens:
        assert ids.dtype == spec.dtype
        assert ids.ndim == 1
        assert len(ids) <= spec.max_length
        assert (ids < spec.vocabulary).all()
    again = type(tokenizer).from_files(tokenizer.kind, tokenizer.to_files())
    assert again.spec == spec
    assert again.params == tokenizer.params
    for ids, same in zip(tokens, again.encode(labels), strict=True):
        np.testing.assert_array_equal(ids, same)
    assert again.to_files() == tokenizer.to_files()
    return tokenizer.decode(tokens)


@pytest.fixture(scope="module")
def public() -> Vocabulary:
    if not PUBLIC.exists():
        pytest.skip("the public 4M vocabulary isn't beside this checkout (../shared/golden)")
    return Vocabulary.from_bytes(PUBLIC.read_bytes())


def spelling(tokenizer: VocabularyTokenizer, label) -> list[str]:
    return [tokenizer.vocabulary.token(index) for index in tokenizer.encode([label])[0]]


@pytest.fixture
def palettes() -> PaletteTokenizer:
    return ready(PaletteTokenizer(PALETTE_KIND))


@pytest.fixture
def metadata() -> MetadataTokenizer:
    return ready(MetadataTokenizer(METADATA_KIND))


@pytest.fixture
def records() -> RecordTokenizer:
    return ready(RecordTokenizer(RECORD_KIND))


# text


def test_wordpiece():
    tokenizer = ready(WordPiece(Text(), TextParams(max_length=6)))
    decoded = check_contract(tokenizer, ["A photo of THE sea", "", "a " * 1000])
    assert decoded == ["a photo of the sea", "", "a a a a a a"]
    assert EOS not in tokenizer.encode(["a photo"])[0]


def test_documents_are_whole():
    tokenizer = ready(Documents(Text()))
    long = "one, two. " * 20_000
    decoded = check_contract(tokenizer, ["A photo of THE sea", "", long])
    assert decoded[:2] == ["a photo of the sea", ""]
    assert tokenizer.encode([long])[0].tolist() == tokenizer.vocabulary.encode(long).tolist()
    with pytest.raises(ValueError, match="16,777,217 characters, more than 16,777,216"):
        tokenizer.encode(["x" * (LONGEST + 1)])


def test_a_tokenizer_without_vocabulary_says_so():
    with pytest.raises(RuntimeError, match="use_vocabulary"):
        WordPiece(Text()).encode(["x"])


def test_state_of_another_tokenizer_is_refused(metadata, palettes):
    with pytest.raises(ValueError, match="made for the tokenizer MetadataTokenizer"):
        PaletteTokenizer.from_files(PALETTE_KIND, metadata.to_files())
    with pytest.raises(ValueError, match="made for the kind"):
        PaletteTokenizer.from_files(Record(("1",)), palettes.to_files())
    files = palettes.to_files()
    with pytest.raises(ValueError, match=r"tokenizer\.json is missing"):
        PaletteTokenizer.from_files(PALETTE_KIND, {"config.json": files["config.json"]})
    with pytest.raises(ValueError, match=r"config\.json isn't"):
        PaletteTokenizer.from_files(PALETTE_KIND, {**files, "config.json": b"[]"})


# palettes

colour = st.lists(st.integers(0, 255), min_size=3, max_size=3)
palette_labels = st.fixed_dictionaries({str(k): st.lists(colour, min_size=k, max_size=k) for k in range(1, 8)})


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(palette_labels, st.integers(1, 7))
def test_palette_round_trip(label, colors):
    tokenizer = ready(PaletteTokenizer(PALETTE_KIND, PaletteParams(colors=colors)))
    assert check_contract(tokenizer, [label]) == [{str(colors): label[str(colors)]}]
    assert len(tokenizer.encode([label])[0]) == 1 + 3 * colors


def test_palette_takes_what_there_is(palettes):
    few = {"1": [[1, 2, 3]], "3": [[1, 2, 3]] * 3}
    many = {"7": [[9, 9, index] for index in range(7)]}
    assert check_contract(palettes, [few, many]) == [{"3": few["3"]}, {"5": many["7"][:5]}]
    with pytest.raises(ValueError, match="no palette"):
        palettes.encode([{}])
    with pytest.raises(ValueError, match=r"0\.\.255"):
        palettes.encode([{"5": [[0, 0, 256]] * 5}])


def test_palette_spelling(public):
    tokenizer = ready(PaletteTokenizer(PALETTE_KIND, PaletteParams(colors=2)), public)
    label = {"2": [[0, 128, 255], [7, 8, 9]]}
    text = "v1=2 v0=0 v0=128 v0=255 v0=7 v0=8 v0=9"
    assert spelling(tokenizer, label) == text.split()
    assert tokenizer.encode([label])[0].tolist() == [1206, 204, 332, 459, 211, 212, 213]


def test_broken_palettes(palettes):
    ids = palettes.encode([{"5": [[1, 2, 3], [4, 5, 6]]}])[0]
    assert palettes.parse(ids) == ({"2": [[1, 2, 3], [4, 5, 6]]}, [])
    label, faults = palettes.parse(ids[:-1])
    assert label == {"1": [[1, 2, 3]]}
    assert faults
    assert palettes.parse(np.array([], np.uint16))[0] == {}


# metadata


def metadata_values(name: str) -> st.SearchStrategy:
    if isinstance(METADATA[name], Count):
        return st.integers(0, 40_000)
    return st.floats(-1, 300, allow_nan=False)


metadata_labels = st.fixed_dictionaries({}, optional={name: metadata_values(name) for name in METADATA})


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(metadata_labels)
def test_metadata_decodes_to_bin_centres(label):
    tokenizer = ready(MetadataTokenizer(METADATA_KIND))
    (decoded,) = check_contract(tokenizer, [label])
    assert set(decoded) == set(label)
    np.testing.assert_array_equal(tokenizer.encode([decoded])[0], tokenizer.encode([label])[0])
    METADATA_KIND.check(decoded)


@pytest.mark.parametrize("name", METADATA)
def test_every_bin_round_trips(name):
    bins = METADATA[name]
    assert [bins.bin(bins.value(index)) for index in range(bins.bins)] == list(range(bins.bins))


def test_metadata_has_no_bias():
    span = METADATA["brightness"]
    values = np.linspace(0, 255, 100_001)
    errors = [span.value(span.bin(value)) - value for value in values]
    assert abs(np.mean(errors)) < 0.01
    assert max(map(abs, errors)) <= 255 / 49 / 2 + 1e-9


def test_metadata_spelling(public):
    tokenizer = ready(MetadataTokenizer(METADATA_KIND), public)
    label = {"brightness": 120, "original_width": 640, "watermark_score": 0.5, "aesthetic_score": 6, "n_humans": 5000}
    text = "v1=0 v0=20 v1=5 v0=999 v1=10 v0=23 v1=19 v0=1 v1=20 v0=2"
    assert spelling(tokenizer, label) == text.split()
    assert tokenizer.encode([label])[0].tolist() == [1204, 224, 1209, 1203, 1214, 227, 1223, 205, 1224, 206]
    assert len(METADATA) == 21


def test_missing_and_wrong_metadata(metadata):
    assert metadata.encode([{}, {"entropy": None}])[1].tolist() == []
    for value in ("high", math.nan, [1]):
        with pytest.raises(ValueError, match="'entropy'"):
            metadata.encode([{"entropy": value}])
    with pytest.raises(ValueError, match="no bins for"):
        MetadataTokenizer(Record(("brightness", "mood")))


def test_broken_metadata(metadata):
    ids = metadata.encode([{"brightness": 120, "n_humans": 2}])[0].tolist()
    label, faults = metadata.parse(
        np.array([4300, *ids[:2], 4301, *ids[2:], 1204 + 21, 204, 1204 + 10, 204 + 50, ids[0]])
    )
    assert set(label) == {"n_humans", "brightness"}
    assert len(faults) == 5


# records

json_numbers = st.one_of(
    st.integers(-(10**9), 10**9), st.booleans(), st.none(), st.floats(allow_nan=False, allow_infinity=False)
)
json_values = st.recursive(json_numbers, lambda inner: st.lists(inner, max_size=4), max_leaves=5)


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return [rounded(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(json_values, json_values)
def test_record_numbers_come_back(first, second):
    tokenizer = ready(RecordTokenizer(RECORD_KIND, TextParams(max_length=2000)))
    assert check_contract(tokenizer, [{"size": first, "extra": second}]) == [
        {"size": rounded(first), "extra": rounded(second)}
    ]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40), st.dictionaries(st.text(max_size=5), st.text(max_size=10), max_size=3))
def test_record_of_any_strings_can_be_read(name, extra):
    tokenizer = ready(RecordTokenizer(RECORD_KIND, TextParams(max_length=2000)))
    label, faults = tokenizer.parse(tokenizer.encode([{"name": name, "extra": extra}])[0])
    assert faults == []
    assert set(label) == {"name", "extra"}
    assert isinstance(label["name"], str)
    assert len(label["extra"]) <= len(extra)


def test_record_strings(records):
    label = {"name": 'A "Photo"  of\nthe \\ SEA', "tags": ["Sea", "hot dog", ""], "extra": {"a b": 1.5, "c": None}}
    (decoded,) = check_contract(records, [label])
    assert decoded == {**label, "name": 'a " photo " of the \\ sea', "tags": ["sea", "hot dog", ""]}
    assert check_contract(records, [decoded]) == [decoded]


def test_record_leaves_out_whole_fields():
    tokenizer = ready(RecordTokenizer(RECORD_KIND, TextParams(max_length=20)))
    (decoded,) = check_contract(tokenizer, [{"name": "the sea", "size": 7, "tags": ["x"] * 50, "extra": 1}])
    assert decoded == {"name": "the sea", "size": 7}


def test_records_with_the_public_vocabulary(public):
    tokenizer = ready(RecordTokenizer(RECORD_KIND), public)
    label = {"name": "a photo of the sea", "size": -1.5e-07, "tags": [True, None, 12345]}
    assert check_contract(tokenizer, [label]) == [label]
    assert spelling(tokenizer, {"name": "sea"}) == ["v1=0", "v2=0", "sea", "v3=0"]


def test_broken_records(records):
    good = records.encode([{"name": "sea", "size": 3}])[0].tolist()
    broken = [4300, *good, 1204 + 99, 4300, 1204 + 2, *VOCABULARY.encode("[1,"), 1204 + 3, 65000]
    label, faults = records.parse(np.array(broken))
    assert label == {"name": "sea", "size": 3}
    assert len(faults) >= 4


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, VOCABULARY.size + 3), max_size=60))
def test_parsers_never_raise(ids):
    for tokenizer in (PaletteTokenizer(PALETTE_KIND), MetadataTokenizer(METADATA_KIND), RecordTokenizer(RECORD_KIND)):
        label, faults = ready(tokenizer).parse(np.array(ids, dtype=np.uint16))
        assert isinstance(faults, list)
        tokenizer.kind.check(label)
        json.dumps(label)
