"""JSON as records are written in: values of word pieces, whose strings stand between v2=0 and v3=0."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from ..contract.grammar import Choice, Choices, Part, sequence
from ..contract.vocabulary import Coordinate, Vocabulary

OPEN, CLOSE = Coordinate(2, 0), Coordinate(3, 0)

_DEEPEST = 64
"""Values within values, as far as no reader of JSON minds."""
_MOST_DIGITS = 300
"""Of a whole number, and behind a point: what floats hold, and what int() reads."""


class JsonGrammar:
    """words: of a string, and a token of what follows it; as `VocabularyTokenizer.said_words`.

    Numbers are spelled as json.dumps does; exponents have two digits.
    """

    def __init__(self, vocabulary: Vocabulary, words: Callable[[Choice], Part]) -> None:
        self._string_words = words
        self._open, self._close = vocabulary.coordinate(*OPEN), vocabulary.coordinate(*CLOSE)
        self._mark = {mark: vocabulary.word(mark) for mark in "-.,:[]{}+"}
        self._literals = {ids[0]: ids[1:] for word in ("true", "false", "null") for ids in [_ids(vocabulary, word)]}
        texts = {int(index): vocabulary.token(int(index)) for index in vocabulary.words}
        self._digits = {index: len(text) for index, text in texts.items() if re.fullmatch("[0-9]+", text)}
        self._more = {index: len(text) - 2 for index, text in texts.items() if re.fullmatch("##[0-9]+", text)}
        self._whole = [index for index in self._digits if texts[index][0] != "0" or texts[index] == "0"]
        self._zero, self._exponent = vocabulary.word("0"), vocabulary.word("##e")

    def value(self, follow: Choices, depth: int = 0) -> Part:
        """A value, and a token of what follows it."""
        token = yield self._begin(_least(follow), depth)
        return (yield from self._rest(token, follow, depth))

    def _begin(self, after: int, depth: int) -> list[Choice]:
        """With what a value begins. after: tokens that have to follow it."""
        brackets = [self._mark["["], self._mark["{"]] if depth < _DEEPEST else []
        return [
            Choice.of(self._whole, after),
            Choice.of([self._open, self._mark["-"], *brackets], 1 + after),
            *(Choice.of([first], len(rest) + after) for first, rest in self._literals.items()),
        ]

    def _rest(self, token: int, follow: Choices, depth: int) -> Part:
        """What is left of a value that begins with `token`, and a token of what follows it."""
        if token == self._open:
            yield from self._string_words(Choice.of([self._close], _least(follow)))
        elif token in self._literals:
            rest = [np.array([one]) for one in self._literals[token]]
            yield from sequence(*rest, after=_least(follow))
        elif token == self._mark["["]:
            yield from self._array(_least(follow), depth + 1)
        elif token == self._mark["{"]:
            yield from self._object(_least(follow), depth + 1)
        else:
            return (yield from self._number(token, follow))
        return (yield follow)

    def _array(self, after: int, depth: int) -> Part:
        """Behind its bracket, up to the other one. after: tokens that have to follow it."""
        end, comma = Choice.of([self._mark["]"]], after), Choice.of([self._mark[","]], 2 + after)
        token = yield [end, *self._begin(1 + after, depth)]
        while token not in end.ids:
            token = yield from self._rest(token, [end, comma], depth)
            if token in comma.ids:
                token = yield self._begin(1 + after, depth)
        return token

    def _object(self, after: int, depth: int) -> Part:
        end, comma = Choice.of([self._mark["}"]], after), Choice.of([self._mark[","]], 5 + after)
        token = yield [end, Choice.of([self._open], 4 + after)]
        while token not in end.ids:
            yield from self._string_words(Choice.of([self._close], 3 + after))
            yield [Choice.of([self._mark[":"]], 2 + after)]
            token = yield from self.value([end, comma], depth)
            if token in comma.ids:
                token = yield [Choice.of([self._open], 4 + after)]
        return token

    def _number(self, token: int, follow: Choices) -> Part:
        after = _least(follow)
        if token == self._mark["-"]:
            token = yield [Choice.of(self._whole, after)]
        count, point = self._digits[token], Choice.of([self._mark["."]], 1 + after)
        exponent = [Choice.of([self._exponent], 2 + after)] if count == 1 else []
        if token == self._zero:
            token = yield [point, *exponent, *follow]
        else:
            token = yield [self._fitting(count, after), point, *exponent, *follow]
            if token in self._more:
                exponent = []
                token = yield from self._more_digits(count + self._more[token], [point, *follow])
        if token in point.ids:
            token = yield [Choice.of(self._digits, after)]
            token = yield from self._more_digits(self._digits[token], [*exponent, *follow])
        if token == self._exponent:
            yield [Choice.of([self._mark["+"], self._mark["-"]], 1 + after)]
            yield [Choice.of([index for index, digits in self._digits.items() if digits <= 2], after)]
            token = yield follow
        return token

    def _more_digits(self, count: int, follow: Choices) -> Part:
        """Digits that go on with a word of so many, and a token of what follows them."""
        while (token := (yield [self._fitting(count, _least(follow)), *follow])) in self._more:
            count += self._more[token]
        return token

    def _fitting(self, count: int, after: int) -> Choice:
        """Digits that may go on with a word of so many."""
        return Choice.of([index for index, digits in self._more.items() if count + digits <= _MOST_DIGITS], after)


def _least(follow: Choices) -> int:
    """How many tokens have to come, beginning with one of these."""
    return min(choice.needs for choice in follow) + 1


def _ids(vocabulary: Vocabulary, word: str) -> Sequence[int]:
    return vocabulary.encode(word).tolist()
