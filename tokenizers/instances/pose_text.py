"""Poses of people as text: box, pose codes, orientation, camera and shape of each, as 4M writes its human_poses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ...labelers.contract.instances import InstanceSet
from ...labelers.contract.kinds import Instances, Kind
from ...labelers.contract.poses import nearest_rotations
from ...labelers.people.crops import full_camera, squares
from ..contract.grammar import END, Choice, Grammar, sequence
from ..contract.special_tokens import COORDINATE_BINS
from ..contract.vocabulary import Coordinate
from ..text.base import Group, StructuredTokenizer
from ..vq.input_contract import JOINTS
from .instance_text import box_coordinates, box_grammar, code_tokens
from .mask_codes import code_coordinate, code_of

POSE_TOKENS, POSE_CODES = 8, 1024
PERSON_TOKENS = 39
_LAST = COORDINATE_BINS - 1


@dataclass(frozen=True)
class Scale:
    """Numbers between `low` and `high` in 1,000 steps; those outside are the nearest end."""

    low: float
    high: float

    def steps(self, numbers: np.ndarray) -> np.ndarray:
        """int64, 0..999."""
        shares = (numbers.astype(np.float64) - self.low) / (self.high - self.low)
        return np.rint(shares.clip(0, 1) * _LAST).astype(np.int64)

    def numbers(self, steps: np.ndarray) -> np.ndarray:
        """float32: what the steps stand for; off by half a step at most."""
        return (self.low + np.asarray(steps) / _LAST * (self.high - self.low)).astype(np.float32)


SCALES: dict[str, tuple[str, Scale, tuple[int, ...]]] = {
    "global": ("global_orient", Scale(-1, 1), (3, 3)),
    "camera": ("pred_cam", Scale(-1, 19), (3,)),
    "shape": ("betas", Scale(-3, 3), (10,)),
}
"""By the word before its numbers: a part's attribute, range and shape (ml-4m, HumanPoseTransform)."""


class HumanPosesParams(BaseModel):
    """max_length: the most tokens of one sample, 39 a person; people past it are left out whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_length: int = Field(default=7 * PERSON_TOKENS, ge=PERSON_TOKENS)


class PosesText(StructuredTokenizer):
    """Per person "human v0=<x0> v1=<y0> v2=<x1> v3=<y1> pose <8 codes> global <9 numbers> camera <3> shape <10>".

    The order of people is the label's, the likeliest first; none is "none". Boxes are shares of the frame times 999,
    numbers v0=0..999 between the ends of their range (`SCALES`), codes v0=<code>, or v1=<code - 512> from 512 on. ml-4m
    shuffles the parts whenever it loads a sample; that is the trainer's to do, and `parse` takes any order.

    `camera` is `pred_cam`, the weak-perspective camera of the square around the person, as in 4M. From it and the box,
    `decode` works out the attribute `camera` as the labeler does, for a square frame; it is off where the frame cuts
    the box. Orientation and pose come back as rotations, the nearest to what the numbers and codes say.

    Loss: scores, and attributes that aren't the pose's; boxes to 1/999; half a step of 1/999 of its range in each
    number, and what lies outside the range (betas past 3, `pred_cam` outside of -1..19); what codes can't hold of the
    pose; people past `max_length`.
    """

    kinds = (Instances,)
    Params: ClassVar[type[BaseModel]] = HumanPosesParams
    kind: Instances

    def __init__(self, kind: Kind, params: BaseModel | None = None) -> None:
        super().__init__(kind, params)
        if self.kind.pose != "smpl":
            raise ValueError(f"{type(self).__name__} is for SMPL poses; the labels have pose = {self.kind.pose}")

    @abstractmethod
    def _pose_codes(self, poses: np.ndarray) -> np.ndarray:
        """int64 (n, 8) of body poses, float32 (n, 23, 3, 3)."""

    @abstractmethod
    def _poses(self, codes: np.ndarray) -> np.ndarray:
        """The inverse: rotations, float32 (n, 23, 3, 3)."""

    @property
    @abstractmethod
    def _known_codes(self) -> Sequence[int]:
        """How many codes each of the 8 tokens has. Raises RuntimeError before the tokenizer is fitted."""

    def encode(self, labels: Sequence[InstanceSet]) -> list[np.ndarray]:
        poses = [self._body_poses(label) for label in labels]
        codes = self._pose_codes(np.concatenate([*poses, np.zeros((0, JOINTS, 3, 3), np.float32)]))
        ends = np.cumsum([len(part) for part in poses])
        parts = np.split(codes, ends[:-1]) if len(labels) else []
        return [self._write(self._people(label, part)) for label, part in zip(labels, parts, strict=True)]

    def codes(self, label: InstanceSet) -> np.ndarray:
        """int64 (n, 8): the codes of each person's pose, in the label's order, also of people past `max_length`."""
        return self._pose_codes(self._body_poses(label))

    def groups(self, label: InstanceSet) -> list[Group]:
        return self._people(label, self.codes(label))

    def grammar(self) -> Grammar:
        """`none`, or people with a box and each of their parts, in any order."""
        vocabulary = self.vocabulary
        numbers = vocabulary.coordinates(0, 0, COORDINATE_BINS)
        parts = {vocabulary.word(word): [numbers] * int(np.prod(shape)) for word, (_, _, shape) in SCALES.items()}
        parts[vocabulary.word("pose")] = [code_tokens(vocabulary, known) for known in self._known_codes]
        person = Choice.of([vocabulary.word("human")], PERSON_TOKENS - 1)
        token = yield [Choice.of([vocabulary.word("none")]), person]
        if token not in person.ids:
            yield [END]
            return
        while token in person.ids:
            left, needed = dict(parts), PERSON_TOKENS - 5
            yield from box_grammar(vocabulary, needed)
            while left:
                own = left.pop((yield [Choice.of(left, needed - 1)]))
                needed -= 1 + len(own)
                yield from sequence(*own, after=needed)
            token = yield [person, END]

    def parse(self, ids: np.ndarray) -> tuple[InstanceSet, list[str]]:
        known, faults = self._known_codes, list[str]()
        pieces = self._read(ids)
        human = self.vocabulary.word("human")
        starts = [at for at, piece in enumerate(pieces) if piece == human]
        if pieces[: starts[0] if starts else None] != ([] if starts else [self.vocabulary.word("none")]):
            faults.append("the tokens begin neither with a person nor are they `none`")
        stops = [*starts[1:], len(pieces)][: len(starts)]
        words = {self.vocabulary.word(word): word for word in ("pose", *SCALES)}
        found = [
            self._person(pieces[start + 1 : stop], words, known, f"person {number}", faults)
            for number, (start, stop) in enumerate(zip(starts, stops, strict=True), start=1)
        ]
        return self._label([person for person in found if person is not None]), faults

    def _body_poses(self, label: InstanceSet) -> np.ndarray:
        """float32 (n, 23, 3, 3). Raises ValueError for a label that isn't its kind's; scores may be missing."""
        problem = label.problem(self.kind.masks, label.scores is not None, self.kind.texts, self.kind.attributes)
        if problem:
            raise ValueError(f"poses: {problem}")
        return label.attributes["body_pose"]

    def _people(self, label: InstanceSet, codes: np.ndarray) -> list[Group]:
        if len(label) == 0:
            return [["none"]]
        steps = {word: scale.steps(label.attributes[name]) for word, (name, scale, _) in SCALES.items()}
        return [
            ["human", *box_coordinates(label.boxes[person]), "pose", *map(code_coordinate, codes[person].tolist())]
            + [piece for word, of in steps.items() for piece in (word, *map(_number, of[person].ravel().tolist()))]
            for person in range(len(label))
        ]

    def _person(
        self,
        pieces: list[int | Coordinate],
        words: Mapping[int, str],
        known: Sequence[int],
        name: str,
        faults: list[str],
    ) -> dict[str, list[int]] | None:
        """The numbers by the word before them, and "box"; None where some are missing."""
        box = [piece.value for piece in pieces[:4] if isinstance(piece, Coordinate)]
        if [piece.axis for piece in pieces[:4] if isinstance(piece, Coordinate)] != [0, 1, 2, 3]:
            faults.append(f"{name} has no box")
            return None
        if box[0] > box[2] or box[1] > box[3]:
            faults.append(f"the box {box} of {name} ends before it begins")
            return None
        found, at, strays = {"box": box}, 4, 0
        while at < len(pieces):
            piece = pieces[at]
            word = words.get(piece) if isinstance(piece, int) else None
            values = None if word is None or word in found else _values(word, pieces[at + 1 :], known)
            if word is None or values is None:
                strays += 1
                at += 1
            else:
                found[word] = values
                at += 1 + len(values)
        if strays:
            faults.append(f"{strays} tokens of {name} aren't part of anything")
        missing = [word for word in words.values() if word not in found]
        if missing:
            faults.append(f"{name} is left out: there is no whole {', '.join(missing)}")
            return None
        return found

    def _label(self, people: list[dict[str, list[int]]]) -> InstanceSet:
        count = len(people)
        boxes = np.array([person["box"] for person in people], np.float32).reshape(-1, 4) / np.float32(_LAST)
        attributes = {
            name: scale.numbers(np.array([person[word] for person in people]).reshape(count, *shape))
            for word, (name, scale, shape) in SCALES.items()
        }
        attributes["global_orient"] = nearest_rotations(attributes["global_orient"])
        codes = np.array([person["pose"] for person in people], np.int64).reshape(count, POSE_TOKENS)
        attributes["body_pose"] = self._poses(codes)
        centres, sides = squares(boxes.astype(np.float64))
        attributes["camera"] = full_camera(attributes["pred_cam"], centres, sides, 1, 1).astype(np.float32)
        return InstanceSet(boxes, ["human"] * count, attributes=attributes)


def _number(step: int) -> Coordinate:
    return Coordinate(0, step)


def _values(word: str, pieces: Sequence[int | Coordinate], known: Sequence[int]) -> list[int] | None:
    """What the word's tokens say; None where they aren't there. known: how many codes each token of a pose has."""
    if word == "pose":
        codes = [code_of(piece) for piece in pieces[:POSE_TOKENS]]
        whole = len(codes) == POSE_TOKENS and all(0 <= code < most for code, most in zip(codes, known, strict=True))
        return codes if whole else None
    count = int(np.prod(SCALES[word][2]))
    steps = [piece.value for piece in pieces[:count] if isinstance(piece, Coordinate) and piece.axis == 0]
    return steps if len(steps) == count else None
