"""The text vocabulary: layout, training, hostile texts, and the public 4M vocabulary."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.tokenizers.contract import vocabulary as vocabularies
from tokenloom.tokenizers.contract.special_tokens import EOS, PAD, SOS, UNK
from tokenloom.tokenizers.contract.vocabulary import COCO_NAMES, SERIAL_WORDS, Coordinate, Vocabulary

ROOT = Path(__file__).parents[3]
PUBLIC = ROOT.parent / "shared/golden/text_tokenizer_4m_wordpiece_30k.json"
CAPTIONS = [f"photo {n}: a {thing} beside a {other}, naïve café" for n, thing in enumerate(COCO_NAMES[:20])
            for other in ("cat", "brick wall", "lighthouse")]  # fmt: skip


@pytest.fixture(scope="module")
def trained() -> Vocabulary:
    return Vocabulary.train(CAPTIONS)


@pytest.fixture(scope="module")
def public() -> Vocabulary:
    if not PUBLIC.exists():
        pytest.skip("the public 4M vocabulary isn't beside this checkout (../shared/golden)")
    return Vocabulary.from_bytes(PUBLIC.read_bytes())


def run_python(code: str, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("path", ["", "import sys; sys.path.insert(0, '.'); "])
def test_the_folder_does_not_shadow_hugging_faces_package(path):
    where = run_python(path + "import tokenizers; print(tokenizers.__file__, tokenizers.Tokenizer.__name__)")
    assert "site-packages" in where
    assert where.endswith("Tokenizer")


def check_layout(vocabulary: Vocabulary) -> None:
    assert [vocabulary.token(index) for index in (PAD, UNK, SOS, EOS)] == ["[PAD]", "[UNK]", "[SOS]", "[EOS]"]
    assert [vocabulary.token(index) for index in (4, 203, 204, 1203, 1204, 2204, 3204, 4203)] == [
        "[S_0]", "[S_199]", "v0=0", "v0=999", "v1=0", "v2=0", "v3=0", "v3=999",
    ]  # fmt: skip
    assert [vocabulary.token(4204 + index) for index in range(80)] == [*COCO_NAMES]
    for word in (*COCO_NAMES, *SERIAL_WORDS):
        assert vocabulary.encode(word).tolist() == [vocabulary.word(word)]


def test_layout(trained):
    check_layout(trained)


def test_layout_of_the_public_vocabulary(public):
    check_layout(public)
    assert public.size == 30_000
    words = ("human", "polygon", "pose", "shape", "global", "camera", "none", "point")
    assert [public.word(word) for word in words] == [6304, 14445, 8620, 6631, 9292, 5585, 18109, 6712]


def test_state_round_trip(trained):
    again = Vocabulary.from_bytes(trained.to_bytes())
    assert again.to_bytes() == trained.to_bytes()
    assert again.digest == trained.digest
    assert again.encode(CAPTIONS[3]).tolist() == trained.encode(CAPTIONS[3]).tolist()


@pytest.mark.slow
def test_training_is_deterministic_across_processes_hash_seeds_and_threads():
    code = (
        "import random, hashlib; from tokenloom.tokenizers.contract.vocabulary import Vocabulary; r = random.Random(1);"
        "words = [''.join(r.choices('abcdeé', k=r.randint(2, 7))) for _ in range(3000)];"
        "texts = [' '.join(r.choices(words, k=9)) for _ in range(2000)]; import os;"
        "random.Random(os.environ['ORDER']).shuffle(texts);"
        "print(hashlib.sha256(Vocabulary.train(texts, 6000).to_bytes()).hexdigest())"
    )
    digests = {
        run_python(code, PYTHONHASHSEED=seed, RAYON_NUM_THREADS=threads, TOKENIZERS_PARALLELISM="true", ORDER=seed)
        for seed, threads in [("0", "1"), ("1", "2"), ("2", "4"), ("3", "2")]
    }
    assert len(digests) == 1


def test_training_on_nothing_covers_ascii():
    vocabulary = Vocabulary.train([])
    ids = vocabulary.encode("Hello, world! 3.14 {x_1} ~`^ zebra")
    assert UNK not in ids
    assert vocabulary.decode(ids).startswith("hello, world! 3. 14")


def test_frequent_words_become_single_tokens_and_size_is_kept():
    vocabulary = Vocabulary.train(["lighthouse keeper"] * 50 + ["zyxwvut"], size=4446)
    assert vocabulary.size == 4446
    assert len(vocabulary.encode("lighthouse keeper")) == 2
    assert len(vocabulary.encode("zyxwvut")) > 1
    with pytest.raises(ValueError, match="at least"):
        Vocabulary.train([], size=4000)


def test_training_survives_hostile_texts():
    vocabulary = Vocabulary.train(["\ud800 half a pair", "x" * 1_000_000, "\x00\x07", "مرحبا 👩‍🚀", "中文" * 500])
    assert UNK not in vocabulary.encode("half 中文")


def test_texts_never_give_control_tokens(trained):
    ids = trained.encode("[EOS] [PAD][S_12] v0=7 v3=999, [SOS]v1=2")
    assert all(index == UNK or index >= 4204 for index in ids)
    assert trained.decode(ids).replace(" ", "") == "[eos][pad][s_12]v0=7v3=999,[sos]v1=2"


def test_decode_gives_the_words_back(trained):
    assert trained.decode(trained.encode("A Lighthouse beside the traffic light")) == (
        "a lighthouse beside the traffic light"
    )
    assert trained.decode([SOS, *trained.encode("a cat"), EOS, PAD, 5]) == "a cat"
    with pytest.raises(ValueError, match="id 4000000"):
        trained.decode([4_000_000])
    with pytest.raises(ValueError, match="id -1"):
        trained.token(-1)


def test_coordinates(trained):
    for axis in range(4):
        for value in (0, 1, 500, 999):
            index = trained.coordinate(axis, value)
            assert trained.token(index) == f"v{axis}={value}"
            assert trained.coordinate_of(index) == Coordinate(axis, value)
    assert trained.coordinate_of(203) is None
    assert trained.coordinate_of(4204) is None
    for axis, value in [(4, 0), (0, 1000), (0, -1)]:
        with pytest.raises(ValueError, match="coordinate"):
            trained.coordinate(axis, value)


fragments = st.sampled_from(
    [
        "hot dog",
        "hot",
        "dog",
        " ",
        "\n",
        "traffic",
        "light",
        "中",
        "é",
        "\u0301",
        "\x00",
        "v0=3",
        "[EOS]",
        "a" * 120,
        ",",
        "_",
    ]
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(fragments, max_size=400).map("".join), st.integers(1, 12))
def test_truncation_gives_the_first_tokens_of_the_whole(trained, text, max_length):
    assert trained.encode(text * 3, max_length).tolist() == trained.encode(text * 3)[:max_length].tolist()


@pytest.mark.parametrize("piece", [1, 10])
@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(
        st.lists(st.one_of(fragments, st.sampled_from([". ", ", ", ";\n", "? hot "])), max_size=60), max_size=9
    )
)
def test_many_long_texts_give_the_tokens_of_each(trained, piece, texts):
    joined = ["".join(parts) for parts in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabularies, "_PIECE", piece)
        patch.setattr(vocabularies, "_BATCH", 3 * piece)
        found = trained.encode_all(joined)
    assert [ids.tolist() for ids in found] == [trained.encode(text).tolist() for text in joined]


spelt = st.sampled_from(
    ["[", "]", "PAD", "UNK", "SOS", "EOS", "S_1", "S_", "199", "v", "v0", "v3", "=", "12", " ", "\x00"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(spelt, max_size=30).map("".join))
def test_whatever_is_spelt_is_no_control_token(trained, text):
    (ids,) = trained.encode_all([text])
    assert ((ids == UNK) | (ids >= 4204)).all()


@settings(max_examples=200, deadline=None)
@given(st.text(), st.integers(0, 40))
def test_any_text_encodes_within_bounds(trained, text, max_length):
    ids = trained.encode(text, max_length)
    assert len(ids) <= max_length
    assert ids.dtype == np.int64
    assert all(0 <= index < trained.size for index in ids)
    trained.decode(ids)


@pytest.mark.parametrize("text", ["the traffic light ", "中"])
def test_a_megabyte_is_cut_before_it_is_tokenised(trained, text):
    trained.encode(text, 256)
    start = time.process_time()
    ids = trained.encode(text * (1_000_000 // len(text)), 256)
    assert time.process_time() - start < 0.1
    assert len(ids) == 256


def test_other_files_are_refused(trained):
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        Vocabulary.from_bytes(b"{}")
    with pytest.raises(ValueError, match=r"'\[PAD\]' at id"):
        Vocabulary.from_bytes(trained.to_bytes().replace(b"[PAD]", b"[BAD]"))


def test_characters_are_known_as_long_as_ids_are_free():
    """Of scripts that have thousands: Chinese, whose characters are words, and Korean, whose aren't."""
    chinese = ["".join(chr(0x4E00 + at + step) for step in range(20)) for at in range(0, 6000, 20)]
    korean = ["".join(chr(0xAC00 + at + step) for step in range(5)) for at in range(0, 4000, 5)]
    vocabulary = Vocabulary.train([*chinese, *korean])
    unknown = [text for text in (*chinese, *korean) if UNK in vocabulary.encode(text)]
    assert unknown == []
    assert vocabulary.size <= 30_000
    few = Vocabulary.train([*chinese, *korean], size=5_000)
    assert few.size == 5_000
    assert UNK in few.encode(chinese[0] + korean[-1])
    assert UNK not in few.encode("plain words, 42")
