"""The scaffold: a new labeler's file and its test, working from the first moment."""

from __future__ import annotations

import importlib.util
import keyword

from ..contract.names import name_problem
from .registry import LABELER_GROUP, RegistryError, names

LABELER = '''"""{title}: the average colour of the view. Replace it by your own."""

import numpy as np

from tokenloom import Batch, Labeler, Modality, Vector


class {class_name}(Labeler):
    """The view's mean red, green and blue, from 0 to 1."""

    makes = (Modality("{name}", Vector(dim=3)),)
    on = "view"  # or "image": the whole image; "nothing": no pixels
    version = 1  # raise it when the same input gives another label

    def label(self, batch: Batch):
        images = np.asarray(batch.images)  # uint8 (batch, size, size, 3)
        means = images.reshape(len(batch), -1, 3).mean(axis=1) / 255
        return {{"{name}": list(means.astype(np.float32))}}
'''

TEST = """import numpy as np
from {name} import {class_name}

from tokenloom import Batch, check_labeler


def test_keeps_the_labeler_contract():
    report = check_labeler({class_name})
    assert report.passed, report


def test_a_red_view_is_red():
    images = np.zeros((1, 224, 224, 3), np.uint8)
    images[..., 0] = 255
    labels = {class_name}().label(Batch(["red"], images, [], [{{}}]))
    assert labels["{name}"][0].tolist() == [1, 0, 0]
"""


def skeleton(name: str) -> dict[str, str]:
    """The text of `name`.py and test_`name`.py, by file name. Raises RegistryError for a name that can't be used.

    name: of the modality and of the module; lower-case letters, digits and underscores.
    """
    if not name.isascii() or not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise RegistryError(f"{name!r} can't name a labeler: use lower-case letters, digits and _, a letter first")
    if problem := name_problem(name):
        raise RegistryError(problem)
    if name in names(LABELER_GROUP):
        raise RegistryError(f"there is a labeler {name!r} already; choose another name")
    if importlib.util.find_spec(name) is not None:
        raise RegistryError(f"there is a module {name!r} already, which would hide the labeler; choose another name")
    words = [word for word in name.split("_") if word]
    values = {
        "name": name,
        "class_name": "".join(word.capitalize() for word in words) or "Labeler_",
        "title": " ".join(words).capitalize(),
    }
    return {f"{name}.py": LABELER.format(**values), f"test_{name}.py": TEST.format(**values)}
