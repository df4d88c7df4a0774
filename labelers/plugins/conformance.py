"""The conformance kit: does a labeler keep the contract that the pipeline relies on?

report = check_labeler(MyLabeler)
assert report.passed, report
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import BaseModel

from ..contract import crops
from ..contract.kinds import Kind
from ..contract.labeler import Batch, Labeler, MalformedAnswerError, Modality, labels_of
from ..contract.names import name_problem
from ..contract.views import View, ViewSettings, cut_view
from .difference import difference
from .registry import find_labeler


@dataclass(frozen=True)
class Check:
    """One property of the contract. message: what is wrong, or what was seen."""

    name: str
    passed: bool
    message: str

    def __str__(self) -> str:
        return f"{'ok    ' if self.passed else 'FAILED'} {self.name}: {self.message}"


@dataclass(frozen=True)
class Report:
    """All checks of one labeler. A failed one may have kept later ones from running."""

    labeler: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        return "\n".join([self.labeler, *map(str, self.checks)])


@dataclass(frozen=True, eq=False)
class Sample:
    """A test sample. labels: those of the modalities that the labeler under test requires, in its frame."""

    key: str
    image: np.ndarray
    view: View
    fields: Mapping[str, Any]
    labels: Mapping[str, Any] = field(default_factory=dict)


LAST_BITS = ", less the last bits of "
"""What is said of labels that a batch rounds otherwise than a sample alone is rounded."""


class ContractViolation(Exception):  # noqa: N818 - it is no fault of this program
    """What a labeler does against the contract."""


def check_labeler(
    labeler_class: type[Labeler],
    params: BaseModel | None = None,
    weights: str | None = None,
    requirements: Mapping[str, Labeler] | None = None,
    device: str = "cpu",
    begins: Callable[[str], None] = lambda name: None,
    ended: Callable[[Check], None] = lambda check: None,
) -> Report:
    """Run the contract on images made in code: some ordinary, some odd.

    requirements: labelers, not yet loaded, for modalities that the labeler requires or wants. What it requires beyond
    them is made by the registered labelers with their default weights; what it wants beyond them is None.
    begins, ended: told the name of each check before it runs, and the check when it has.
    """
    checks: list[Check] = []
    bench = _Bench(device, dict(requirements or {}))

    def run(name: str, check: Callable[[], str]) -> bool:
        begins(name)
        try:
            checks.append(Check(name, True, check()))
        except ContractViolation as violation:
            checks.append(Check(name, False, str(violation)))
        except Exception as error:  # a plugin may raise anything
            checks.append(Check(name, False, f"{type(error).__name__}: {error}"))
        ended(checks[-1])
        return checks[-1].passed

    def make() -> str:
        bench.labeler = labeler_class(params, weights)
        return _check_declaration(bench.labeler)

    def prepare() -> str:
        bench.labeler.load(device)
        bench.ordinary, bench.odd = (bench.prepared(samples) for samples in (ordinary_samples(), odd_samples()))
        if not bench.ordinary:
            required = ", ".join(bench.labeler.requires)
            raise ContractViolation(f"none of the test samples has all of {required}{bench.refusal}")
        return f"on {device}, {len(bench.ordinary)} ordinary and {len(bench.odd)} odd samples"

    if run("declares what it makes", make) and run("loads", prepare) and run("labels", bench.check_labels):
        run("leaves its input alone", bench.check_input_untouched)
        run("is deterministic", bench.check_deterministic)
        run("doesn't depend on the batch", bench.check_batch_size)
        run("can be stored", bench.check_storage)
        run("follows a view", bench.check_views)
        run("can be looked at", bench.check_preview)
        run("survives odd images", bench.check_odd_images)
    return Report(labeler_class.__name__, tuple(checks))


def ordinary_samples() -> list[Sample]:
    """Four pictures of different sizes, with captions or a text; one has none."""
    rows, columns = np.mgrid[0:240, 0:320]
    shapes = np.stack([rows, columns // 2, 200 - rows // 2], axis=-1).astype(np.uint8)
    shapes[(rows - 100) ** 2 + (columns - 90) ** 2 < 50**2] = (220, 40, 40)
    shapes[60:200, 200:280] = (250, 220, 60)
    gradient = np.repeat(np.linspace(0, 255, 200, dtype=np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    stripes = np.where((rows[:180, :120, None] // 12) % 2, (20, 90, 160), (240, 240, 230)).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (128, 160, 3), dtype=np.uint8)
    return [
        _sample("shapes", shapes, {"caption": "A red disc and a yellow bar.", "url": "https://example.org/1"}),
        _sample("gradient", gradient, {"caption": "From black to white"}),
        _sample("stripes", stripes, {"text": "Streifen, blau und weiß; 縞模様 🙂"}),
        _sample("noise", noise, {}),
    ]


def odd_samples() -> list[Sample]:
    """Pictures as real corpora hold them now and then: of one pixel, of one row, of one colour."""
    pictures = {
        "1 x 1": np.full((1, 1, 3), 99, np.uint8),
        "one row of 2000": np.linspace(0, 255, 6000).astype(np.uint8).reshape(1, 2000, 3),
        "one column of 2000": np.linspace(0, 255, 6000).astype(np.uint8).reshape(2000, 1, 3),
        "black": np.zeros((64, 96, 3), np.uint8),
        "white": np.full((96, 64, 3), 255, np.uint8),
        "grey": np.full((80, 80, 3), 128, np.uint8),
    }
    captions = ["", " ", "a" * 5000, "\u202eright to left", "line\nbreaks\tand\0more", "."]
    return [
        _sample(name, image, {"caption": text, "text": text})
        for (name, image), text in zip(pictures.items(), captions, strict=True)
    ]


class _Bench:
    """The labeler under test, and the labelers that make what it requires."""

    labeler: Labeler
    ordinary: list[Sample]
    odd: list[Sample]

    def __init__(self, device: str, makers: dict[str, Labeler]) -> None:
        self._device = device
        self._makers = makers
        self._loaded: set[int] = set()
        self.refusal = ""

    def check_labels(self) -> str:
        self._answers = self._checked(self.ordinary)
        counts = {name: sum(label is not None for label in labels) for name, labels in self._answers.items()}
        empty = [name for name, count in counts.items() if count == 0]
        if empty:
            raise ContractViolation(f"{', '.join(empty)}: every label is None, on ordinary images too")
        return ", ".join(f"{count} of {len(self.ordinary)} {name}" for name, count in counts.items())

    def check_input_untouched(self) -> str:
        before = _batch(self.labeler, self.ordinary)
        used = _batch(self.labeler, self.ordinary)
        self.labeler.label(used)
        pairs = zip(_images(before), _images(used), strict=True)
        if not all(np.array_equal(*pair) for pair in pairs):
            raise ContractViolation("label() writes into batch.images, which other labelers see too; copy them first")
        return "the images are as they were"

    def check_deterministic(self) -> str:
        again = self._checked(self.ordinary)
        for modality, sample, label in self._labels():
            other = again[modality.name][self.ordinary.index(sample)]
            if other is None or modality.kind.encode(other) != modality.kind.encode(label):
                raise ContractViolation(f"{modality.name} of {sample.key!r} is another label the second time")
        return "the same bytes twice"

    def check_batch_size(self) -> str:
        alone = [self._checked([sample]) for sample in self.ordinary]
        rounded = []
        for modality in self.labeler.makes:
            pairs = [(label, alone[at][modality.name][0]) for at, label in enumerate(self._answers[modality.name])]
            for sample, (label, other) in zip(self.ordinary, pairs, strict=True):
                found = difference(label, other)
                if found:
                    raise ContractViolation(f"{modality.name} of {sample.key!r} alone and in a batch: {found}")
            encode = modality.kind.encode
            if any(label is not None and encode(label) != encode(other) for label, other in pairs):
                rounded.append(modality.name)
        return f"1 or {len(self.ordinary)} at a time" + (f"{LAST_BITS}{', '.join(rounded)}" if rounded else "")

    def check_storage(self) -> str:
        sizes: dict[str, int] = {}
        for modality, sample, label in self._labels():
            data = modality.kind.encode(label)
            if modality.kind.encode(modality.kind.check(modality.kind.decode(data))) != data:
                raise ContractViolation(
                    f"{modality.name} of {sample.key!r} isn't the same after storing and reading it"
                )
            sizes[modality.name] = max(sizes.get(modality.name, 0), len(data))
        return ", ".join(f"{name} at most {size:,} bytes" for name, size in sizes.items())

    def check_views(self) -> str:
        """A mirrored crop of the ordinary samples: made anew by labelers on views, cut by the kind for the others."""
        mirrored = [replace(sample, view=_mirrored(sample.view), labels={}) for sample in self.ordinary]
        if self.labeler.on == "view":
            self._checked(self.prepared(mirrored))
            return "labels a mirrored crop"
        for modality, sample, label in self._labels():
            cropped = modality.kind.check(modality.kind.crop(label, _mirrored(sample.view)))
            side = sample.view.size
            if isinstance(cropped, np.ndarray) and modality.kind.spatial and cropped.shape[:2] != (side, side):
                raise ContractViolation(f"{modality.name} cropped by a view is {cropped.shape}, not {side} x {side}")
        spatial = any(modality.kind.spatial for modality in self.labeler.makes)
        return "can be cropped" if spatial else "has no place in the image"

    def check_preview(self) -> str:
        forms = []
        for modality, sample, label in self._labels():
            seen = modality.kind.seen_by(sample.view, label, self.labeler.on)
            shown = modality.kind.show(seen, _pixels(sample))
            forms.append(_form(shown, modality.name))
        return ", ".join(dict.fromkeys(forms))

    def check_odd_images(self) -> str:
        """Each gives a valid label, None, or an exception, by which the pipeline sets the sample aside."""
        raised = []
        for sample in self.odd:
            try:
                self._checked([sample])
            except ContractViolation:
                raise
            except Exception as error:
                raised.append(f"{sample.key} ({type(error).__name__}: {error})")
        labelled = f"{len(self.odd) - len(raised)} of {len(self.odd)} labelled"
        return labelled if not raised else f"{labelled}; set aside: {'; '.join(raised)}"

    def prepared(self, samples: Sequence[Sample]) -> list[Sample]:
        """The samples with all that the labeler under test requires; those that lack some of it are left out."""
        return self._prepared(self.labeler, samples)

    def _prepared(self, labeler: Labeler, samples: Sequence[Sample]) -> list[Sample]:
        for name in (*labeler.requires, *labeler.wants):
            if name in labeler.requires or name in self._makers:
                samples = [done for sample in samples for done in self._with_label(labeler, name, sample)]
        return list(samples)

    def _with_label(self, labeler: Labeler, name: str, sample: Sample) -> list[Sample]:
        """[the sample with its label `name`]; [] where it has none and the labeler requires one."""
        if name not in self._makers:
            self._makers[name] = find_labeler(name)()
        maker = self._makers[name]
        kind = next(modality.kind for modality in maker.makes if modality.name == name)
        if maker.on == "view" and labeler.on == "image":
            raise ContractViolation(f"it looks at whole images, but {name}, which it requires, is made on views")
        self._load(maker)
        label = None
        for ready in self._prepared(maker, [replace(sample, labels={})]):
            try:
                label = maker.label(_batch(maker, [ready]))[name][0]
            except Exception as error:  # where it refuses an odd image, the sample has no such label
                self.refusal = f"; {name} raised {type(error).__name__}: {error}"
        if label is None and name in labeler.requires:
            return []
        if label is not None and labeler.on == "view":
            label = kind.seen_by(sample.view, label, maker.on)
        return [replace(sample, labels={**sample.labels, name: label})]

    def _load(self, maker: Labeler) -> None:
        if id(maker) not in self._loaded:
            maker.load(self._device)
            self._loaded.add(id(maker))

    def _checked(self, samples: Sequence[Sample]) -> dict[str, list[Any]]:
        """The labels of `samples` by modality, each checked by its kind."""
        answer = self.labeler.label(_batch(self.labeler, samples))
        return {
            modality.name: _checked_labels(self.labeler, modality, answer, samples) for modality in self.labeler.makes
        }

    def _labels(self) -> list[tuple[Modality, Sample, Any]]:
        """Every label of an ordinary sample that isn't None."""
        return [
            (modality, sample, label)
            for modality in self.labeler.makes
            for sample, label in zip(self.ordinary, self._answers[modality.name], strict=True)
            if label is not None
        ]


def _check_declaration(labeler: Labeler) -> str:
    who = type(labeler).__name__
    names = [modality.name for modality in labeler.makes]
    if not names:
        raise ContractViolation(f"{who}.makes is empty; list the modalities, here or in __init__")
    for modality in labeler.makes:
        if problem := name_problem(modality.name):
            raise ContractViolation(problem)
        if not isinstance(modality.kind, Kind):
            raise ContractViolation(f"{modality.name}: its kind is {modality.kind!r}, not an instance of a Kind")
        if modality.kind.view_only and labeler.on != "view":
            raise ContractViolation(
                f"{modality.name}: a {modality.kind.name} can only be made by a labeler with on = 'view'"
            )
    if len(set(names)) < len(names):
        raise ContractViolation(f"{who}.makes names a modality twice: {', '.join(names)}")
    if set(names) & {*labeler.requires, *labeler.wants}:
        raise ContractViolation(f"{who} requires or wants what it makes itself")
    if not (type(labeler).__doc__ or "").strip():
        raise ContractViolation(f"{who} has no docstring; its first line is what `tokenloom labelers` shows")
    return ", ".join(f"{modality.name} ({modality.kind.name})" for modality in labeler.makes)


def _checked_labels(labeler: Labeler, modality: Modality, answer: Any, samples: Sequence[Sample]) -> list[Any]:
    try:
        labels = labels_of(labeler, answer, modality.name, len(samples))
    except MalformedAnswerError as error:
        raise ContractViolation(str(error)) from None
    checked = []
    for sample, label in zip(samples, labels, strict=True):
        try:
            checked.append(None if label is None else modality.kind.check(label))
        except Exception as error:
            raise ContractViolation(f"{modality.name} of {sample.key!r}: {error}") from error
    return checked


def _batch(labeler: Labeler, samples: Sequence[Sample]) -> Batch:
    images: Any = None
    if labeler.on == "view":
        images = np.stack([_pixels(sample) for sample in samples])
    elif labeler.on == "image":
        images = [sample.image.copy() for sample in samples]
    labels = {name: [s.labels.get(name) for s in samples] for name in (*labeler.requires, *labeler.wants)}
    return Batch([s.key for s in samples], images, [s.view for s in samples], [s.fields for s in samples], labels)


def _images(batch: Batch) -> Sequence[np.ndarray]:
    return [] if batch.images is None else list(batch.images)


def _sample(key: str, image: np.ndarray, fields: Mapping[str, Any]) -> Sample:
    height, width = image.shape[:2]
    return Sample(key, image, cut_view(0, key, 0, height, width, ViewSettings()), fields)


def _mirrored(view: View) -> View:
    """Another crop of the same image: its lower right three quarters of the side, mirrored."""
    height, width = max(1, view.height * 3 // 4), max(1, view.width * 3 // 4)
    top, left = view.image_height - height, view.image_width - width
    return replace(view, index=1, top=top, left=left, height=height, width=width, hflip=True)


def _pixels(sample: Sample) -> np.ndarray:
    return np.ascontiguousarray(crops.crop_map(sample.image, sample.view, nearest=False))


def _form(shown: Any, name: str) -> str:
    """What kind of thing a label is shown as. Raises ContractViolation for anything that a page can't hold."""
    if isinstance(shown, str):
        return "a text"
    if isinstance(shown, Mapping):
        if all(isinstance(key, str) and isinstance(value, str) for key, value in shown.items()):
            return "a table"
        raise ContractViolation(f"{name} is shown as a table whose names or values aren't strings")
    if isinstance(shown, np.ndarray) and shown.dtype == np.uint8 and shown.ndim == 3 and shown.shape[2] == 3:
        return "a picture"
    raise ContractViolation(f"{name} is shown as {type(shown).__name__}, not as an RGB picture, a text or a table")
