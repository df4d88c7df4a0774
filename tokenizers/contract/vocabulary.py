"""Vocabulary: the dataset's one text vocabulary, WordPiece with the special tokens of 4M.

Its first ids are those of special_tokens; from 4204 on there are the 80 COCO class names, each one token, and word
pieces. So the public vocabulary of ml-4m can be used as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np

# Hugging Face's package: an absolute import, and this folder has no __init__.py by which it could shadow it.
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from .special_tokens import (
    COORDINATE_AXES,
    COORDINATE_BINS,
    FIRST_COORDINATE,
    FIRST_SENTINEL,
    FIRST_WORD,
    SENTINELS,
    UNK,
)

# fmt: off
COCO_NAMES = (
    "airplane", "apple", "backpack", "banana", "baseball bat", "baseball glove", "bear", "bed", "bench", "bicycle",
    "bird", "boat", "book", "bottle", "bowl", "broccoli", "bus", "cake", "car", "carrot", "cat", "cell phone",
    "chair", "clock", "couch", "cow", "cup", "dining table", "dog", "donut", "elephant", "fire hydrant", "fork",
    "frisbee", "giraffe", "hair drier", "handbag", "horse", "hot dog", "keyboard", "kite", "knife", "laptop",
    "microwave", "motorcycle", "mouse", "orange", "oven", "parking meter", "person", "pizza", "potted plant",
    "refrigerator", "remote", "sandwich", "scissors", "sheep", "sink", "skateboard", "skis", "snowboard", "spoon",
    "sports ball", "stop sign", "suitcase", "surfboard", "teddy bear", "tennis racket", "tie", "toaster", "toilet",
    "toothbrush", "traffic light", "train", "truck", "tv", "umbrella", "vase", "wine glass", "zebra",
)
# fmt: on
SERIAL_WORDS = ("human", "polygon", "pose", "shape", "global", "camera", "none", "point", "text", "object")
"""Words that structured serialisations use: always one token each."""

_ASCII = "!\"#$%&'()*+,-./0123456789:;<=>?@[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"
_LONGEST_WORD = 100  # characters; WordPiece takes longer words for unknown
_CUT = re.compile("[ \t\n\r]|(?=[\u4e00-\u9fff])")  # where BertNormalizer and BertPreTokenizer always end a word
_CLAUSE = re.compile(r"[.,;:!?](?= )")
_PIECE, _BATCH = 2**15, 2**19
"""Characters of a piece of a long text, and of the pieces that are encoded together."""
_CONTROLS = (re.compile(r"\[(?=(?:PAD|UNK|SOS|EOS|S_\d+)\])"), re.compile(r"v[0-3](?==\d)"))
"""Of texts that spell control tokens, what a space behind it takes apart. Each begins with a letter of its own, which
makes them quick to find."""


class Coordinate(NamedTuple):
    """The token v<axis>=<value>."""

    axis: int
    value: int


class Vocabulary:
    """Text to token ids and back. Ids of texts hold no [SOS] and no [EOS]: a trainer adds those as it needs them.

    Text is cleaned, lower-cased and stripped of accents before it is cut into pieces, so `decode` gives back the same
    words, not the same characters.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises ValueError when the special tokens aren't where this module's docstring says."""
        for index, token in enumerate(_special_tokens()):
            if tokenizer.token_to_id(token) != index:
                raise ValueError(
                    f"the vocabulary has {token!r} at id {tokenizer.token_to_id(token)}, not at {index}: it isn't a "
                    "4M text vocabulary; leave it out to train one on the corpus"
                )
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    @classmethod
    def train(cls, texts: Iterable[str], size: int = 30_000) -> Vocabulary:
        """A vocabulary of at most `size` tokens; fewer when the texts don't have that many pieces.

        The result depends on the texts' words and their counts alone, not on their order. Printable ASCII and the
        words of structured serialisations are always covered. Raises ValueError when `size` is too small for those.
        """
        counts = _count_words(texts)
        fixed = [*_special_tokens(), *COCO_NAMES, *SERIAL_WORDS]
        smallest = len(fixed) + 2 * len(_ASCII)
        if size < smallest:
            raise ValueError(f"a vocabulary of {size} tokens is too small: it needs at least {smallest}")
        alphabet, others = _alphabet(counts, (size - smallest) // 2)
        room = size - len(fixed) - len(alphabet) + len(COCO_NAMES) + len(SERIAL_WORDS)
        learnt = _learn_pieces(counts, alphabet, room)
        tokens = list(dict.fromkeys([*fixed, *alphabet, *learnt, *others]))[:size]
        return cls(_wordpiece(tokens))

    @classmethod
    def from_bytes(cls, data: bytes) -> Vocabulary:
        """Reads a tokenizer.json. Raises ValueError for any other content."""
        return _read(data)

    def to_bytes(self) -> bytes:
        """The vocabulary as a tokenizer.json."""
        return self._tokenizer.to_str().encode()

    @cached_property
    def size(self) -> int:
        return self._tokenizer.get_vocab_size()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tokens in the order of their ids, as hex: the same for equal vocabularies."""
        by_id = sorted(self._tokenizer.get_vocab().items(), key=lambda item: item[1])
        return hashlib.sha256(json.dumps(by_id).encode()).hexdigest()

    def encode(self, text: str, max_length: int | None = None) -> np.ndarray:
        """The ids of the first `max_length` tokens, int64 (length,).

        A long text is cut first, at spaces or CJK characters, where that can't change these tokens.

        Text that spells a control token ("[EOS]", "v0=7") becomes its characters' pieces, never that token.
        """
        if max_length is None:
            return self._ids(text)
        needed = max_length + self._lookahead
        length = 8 * needed
        while length < len(text):
            cuts = [match.start() for match in _CUT.finditer(text, 0, length)]
            if cuts and len(ids := self._ids(text[: cuts[-1]])) >= needed:
                return ids[:max_length]
            length *= 4
        return self._ids(text)[:max_length]

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of whole texts, int64 (length,) each, as `encode` gives them, and quicker.

        Memory is bounded: long texts are cut where that changes no token, and few characters are in hand at once.
        """
        pieces = [(place, piece) for place, text in enumerate(texts) for piece in _pieces(_plain(text))]
        found: list[list[np.ndarray]] = [[] for _ in texts]
        for batch in _batches(pieces):
            encoded = self._tokenizer.encode_batch_fast([piece for _, piece in batch], add_special_tokens=False)
            for (place, _), one in zip(batch, encoded, strict=True):
                found[place].append(np.array(one.ids, dtype=np.int64))
        return [parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts]) for parts in found]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`, without [PAD], [SOS], [EOS] and sentinels. Raises ValueError for an id out of range."""
        numbers = [int(index) for index in ids]
        for index in numbers:
            self.token(index)
        words = [index for index in numbers if index >= FIRST_COORDINATE or index == UNK]
        return self._tokenizer.decode(words, skip_special_tokens=False)

    def token(self, index: int) -> str:
        """The token with that id. Raises ValueError when there is none."""
        token = self._tokenizer.id_to_token(int(index)) if 0 <= index < self.size else None
        if token is None:
            raise ValueError(f"token id {index} isn't in the vocabulary of {self.size} tokens")
        return token

    def word(self, word: str) -> int:
        """The id of a word that is one token. Raises ValueError when it isn't."""
        index = self._tokenizer.token_to_id(word)
        if index is None:
            raise ValueError(f"the vocabulary has no single token for the word {word!r}")
        return index

    @cached_property
    def words(self) -> np.ndarray:
        """int64 (k,): the ids of names, words and pieces; neither of control tokens nor of coordinates."""
        return np.arange(FIRST_WORD, self.size)

    @cached_property
    def beginnings(self) -> np.ndarray:
        """int64 (k,): the `words` with which a text may begin, since they don't go on with a word."""
        return np.array([index for index in self.words.tolist() if not self.token(index).startswith("##")], np.int64)

    @staticmethod
    def coordinates(axis: int, first: int, stop: int) -> np.ndarray:
        """int64 (k,): the ids of v<axis>=<first> up to the one before v<axis>=<stop>."""
        begin = FIRST_COORDINATE + axis * COORDINATE_BINS
        return np.arange(begin + first, begin + stop)

    @staticmethod
    def coordinate(axis: int, value: int) -> int:
        """The id of v<axis>=<value>. Raises ValueError for an axis past 3 or a value past 999."""
        if not (0 <= axis < COORDINATE_AXES and 0 <= value < COORDINATE_BINS):
            raise ValueError(f"there is no coordinate token v{axis}={value}: axes go to 3, values to 999")
        return FIRST_COORDINATE + axis * COORDINATE_BINS + int(value)

    @staticmethod
    def coordinate_of(index: int) -> Coordinate | None:
        """What the coordinate token with that id says; None when the id is another token's."""
        if not FIRST_COORDINATE <= index < FIRST_WORD:
            return None
        return Coordinate(*divmod(int(index) - FIRST_COORDINATE, COORDINATE_BINS))

    @cached_property
    def _lookahead(self) -> int:
        """How many of the last tokens may change when text is added after a word.

        A name of several words ("traffic light") is one token, so all but the last of its words may yet turn into it.
        """
        added = self._tokenizer.get_added_tokens_decoder().values()
        return _LONGEST_WORD * max(token.content.count(" ") for token in added)

    def _ids(self, text: str) -> np.ndarray:
        return np.array(self._tokenizer.encode(_plain(text), add_special_tokens=False).ids, dtype=np.int64)


def _special_tokens() -> Iterator[str]:
    yield from ("[PAD]", "[UNK]", "[SOS]", "[EOS]")
    yield from (f"[S_{index}]" for index in range(SENTINELS))
    yield from (f"v{axis}={value}" for axis in range(COORDINATE_AXES) for value in range(COORDINATE_BINS))


def _normalizer() -> normalizers.BertNormalizer:
    return normalizers.BertNormalizer(lowercase=True)


@lru_cache(maxsize=2)
def _read(data: bytes) -> Vocabulary:
    """The modalities of a dataset have one and the same, which takes 40 ms to read."""
    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"the vocabulary isn't a tokenizer.json of Hugging Face tokenizers: {error}") from None
    return Vocabulary(tokenizer)


def _count_words(texts: Iterable[str]) -> Counter[str]:
    normalizer, splitter = _normalizer(), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for piece in chain.from_iterable(_pieces(_without_surrogates(text)) for text in texts):
        words = splitter.pre_tokenize_str(normalizer.normalize_str(piece))
        counts.update(word for word, _ in words if len(word) <= _LONGEST_WORD)
    return counts


def _alphabet(counts: Counter[str], room: int) -> tuple[list[str], list[str]]:
    """Single characters as pieces, at a word's start and within, sorted: all of ASCII, and of the most frequent others
    as many as have `room`. And what is left of these, the most frequent first, for ids that words don't need.

    A character that is always a word of its own, as Chinese ones are, needs no piece for the inside of words.
    """
    others: Counter[str] = Counter()
    inside: set[str] = set()
    for word, count in counts.items():
        for character in set(word).difference(_ASCII):
            others[character] += count
        inside.update(word if len(word) > 1 else "")
    taken: list[str] = []
    left: list[str] = []
    for character in sorted(others, key=lambda character: (-others[character], character)):
        pieces = [character, f"##{character}"]
        needed = pieces[: 1 + (character in inside)]
        fits = not left and len(taken) + len(needed) <= room
        taken += needed if fits else []
        left += pieces[len(needed) if fits else 0 :]
    return sorted([*_ASCII, *(f"##{one}" for one in _ASCII), *taken], key=lambda one: (len(one), one)), left


def _learn_pieces(counts: Counter[str], alphabet: list[str], room: int) -> list[str]:
    """At most `room` pieces beyond the alphabet, in the order in which the trainer merges them.

    The library's trainer numbers "##x" pieces in the order of a hash map and breaks ties by these numbers, so that two
    runs differ. Given the whole alphabet as special tokens it finds every number already fixed.
    """
    known = set(alphabet)
    words = sorted(word for word in counts if known.issuperset(word))
    trainer = trainers.WordPieceTrainer(vocab_size=len(alphabet) + room, special_tokens=alphabet, show_progress=False)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    repeated = (
        f"{word} " * min(1000, counts[word] - start) for word in words for start in range(0, counts[word], 1000)
    )
    tokenizer.train_from_iterator(repeated, trainer)
    learnt = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [piece for piece, _ in learnt if piece not in known]


def _wordpiece(tokens: list[str]) -> Tokenizer:
    model = models.WordPiece(
        vocab={token: index for index, token in enumerate(tokens)},
        unk_token="[UNK]",
        continuing_subword_prefix="##",
        max_input_chars_per_word=_LONGEST_WORD,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    controls = list(_special_tokens())
    tokenizer.add_special_tokens(
        [AddedToken(token, single_word=False, normalized=False) for token in controls[:FIRST_SENTINEL]]
        + [AddedToken(token, single_word=True, normalized=False) for token in controls[FIRST_SENTINEL:]]
        + [AddedToken(name, single_word=True, normalized=True) for name in COCO_NAMES]
    )
    return tokenizer


def _plain(text: str) -> str:
    """The text, with control tokens that it spells taken apart."""
    text = _without_surrogates(text)
    for control in _CONTROLS:
        text = control.sub(r"\g<0> ", text)
    return text


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of about _PIECE characters, cut behind punctuation that ends a clause: that is a token of its
    own, and no token that the vocabulary adds holds it."""
    start = 0
    while len(text) - start > _PIECE:
        cut = _CLAUSE.search(text, start + _PIECE)
        if cut is None:
            break
        yield text[start : cut.end()]
        start = cut.end()
    yield text[start:]


def _batches(pieces: Sequence[tuple[int, str]]) -> Iterator[Sequence[tuple[int, str]]]:
    """The pieces in batches of about _BATCH characters."""
    start, size = 0, 0
    for index, (_, piece) in enumerate(pieces):
        size += len(piece)
        if size >= _BATCH:
            yield pieces[start : index + 1]
            start, size = index + 1, 0
    if start < len(pieces):
        yield pieces[start:]


def _without_surrogates(text: str) -> str:
    """Half surrogate pairs can't be written as UTF-8, which the library does with every text."""
    return text.encode("utf-8", "replace").decode()
