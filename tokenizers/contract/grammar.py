"""Grammars: which token may come next in a text that a tokenizer's parser has nothing to say against.

A grammar is a generator. It yields the choices that there are, is sent the token that was taken, and returns behind
[EOS]. Written out it reads as the text does, from left to right.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from .special_tokens import EOS


@dataclass(frozen=True)
class Choice:
    """ids: int64 (k,), any of which may be taken. needs: how many tokens at least have to follow it, before [EOS]."""

    ids: np.ndarray
    needs: int = 0

    @classmethod
    def of(cls, ids: Iterable[int], needs: int = 0) -> Choice:
        return cls(np.fromiter(ids, np.int64), needs)


END = Choice.of([EOS], -1)
"""The end of the text, which takes no room."""

Choices: TypeAlias = "Sequence[Choice]"
Grammar: TypeAlias = "Generator[Choices, int, None]"
Part: TypeAlias = "Generator[Choices, int, int]"
"""A part of a text. It returns the token that it was sent last, which is the first of what follows it or its own."""


class UngrammaticalError(ValueError):
    """A token that can't stand where it does, or room that is too small for any text."""


class Sentence:
    """A text that is said token by token. most: tokens that it may have, without [EOS]. room: those that are left.

    Whatever is taken of what is allowed, the text comes to an end within its room. Raises UngrammaticalError where it
    has too little for any text.
    """

    def __init__(self, grammar: Grammar, most: int) -> None:
        self._grammar, self.room, self.done = grammar, most, False
        self._choices: Choices = next(grammar)
        if not len(self.allowed()):
            least = min(choice.needs for choice in self._choices) + 1
            raise UngrammaticalError(f"a text has {least} tokens at least, and there is room for {most}")

    @property
    def choices(self) -> Choices:
        """Those that there are, and for which there is room; none once the text is done."""
        return [] if self.done else [one for one in self._choices if one.needs < self.room and len(one.ids)]

    def allowed(self) -> np.ndarray:
        """int64 (k,): what may come next."""
        return np.concatenate([np.empty(0, np.int64), *(choice.ids for choice in self.choices)])

    def say(self, token: int) -> None:
        """Takes a token. Raises UngrammaticalError for one that isn't allowed."""
        if token not in self.allowed():
            raise UngrammaticalError(f"the token {token} can't stand here")
        self.room -= 1
        try:
            self._choices = self._grammar.send(int(token))
        except StopIteration:
            self.done = True


def fault(grammar: Grammar, ids: Iterable[int], most: int) -> int | None:
    """The place of the first token that can't stand where it does, len(ids) where the text isn't whole; None: it is."""
    sentence, place = Sentence(grammar, most), -1
    for place, token in enumerate(ids):
        try:
            sentence.say(token)
        except UngrammaticalError:
            return place
    return None if EOS in sentence.allowed() else place + 1


def sequence(*parts: np.ndarray, after: int = 0) -> Part:
    """One token of each of these, int64 (k,), and then `after` more at least."""
    token = -1
    for place, ids in enumerate(parts):
        token = yield [Choice(ids, len(parts) - place - 1 + after)]
    return token
