import pytest
from tokenloom.labelers.contract.labeler import Weights
from tokenloom.labelers.contract.licences import NONE, UNKNOWN, is_noncommercial

DEPTH = Weights("org/Depth-Small-hf", "Apache-2.0", "https://example.org", {"org/Depth-Large-hf": "CC-BY-NC-4.0"})


@pytest.mark.parametrize(
    ("source", "licence"),
    [
        ("org/Depth-Small-hf", "Apache-2.0"),
        ("/models/Depth-Small-hf/", "Apache-2.0"),
        ("s3://bucket/Depth-Large-hf", "CC-BY-NC-4.0"),
        ("org/Depth-Huge-hf", UNKNOWN),
        ("tiny", NONE),
    ],
)
def test_licence_of_a_checkpoint(source, licence):
    assert DEPTH.licence_of(source) == licence


def test_a_labeler_of_one_licence_has_it_for_every_path():
    assert Weights(None, "CC-BY-NC-SA-4.0", "https://example.org").licence_of("./a.pth") == "CC-BY-NC-SA-4.0"


@pytest.mark.parametrize("licence", ["CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "LicenseRef-SMPL-noncommercial", "apple-amlr"])
def test_noncommercial(licence):
    assert is_noncommercial(licence)


@pytest.mark.parametrize(
    "licence", ["Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0", "NCSA", "LicenseRef-SAM", UNKNOWN]
)
def test_commercial(licence):
    assert not is_noncommercial(licence)
