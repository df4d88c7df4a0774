"""What is said of a cluster that can't be reached through Ray Client."""

from __future__ import annotations

import pytest
from tokenloom.pipeline.cluster.client import _refused

VERSIONS = (
    "Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.11.2\n"
    "This process on Ray Client was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
)
FAILURE = "Initialization failure from server:\nTraceback (most recent call last):\n  File ...\nOSError: no room\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError(VERSIONS), "mismatch: The cluster was started with: Ray: 2.59.0 Python: 3.11.2 This process"),
        (ConnectionAbortedError(FAILURE), "ray://head:10001: OSError: no room"),
        (ConnectionError("ray client connection timeout"), "isn't Ray Client's server, or has another token"),
        (ValueError(), "ray://head:10001: ValueError"),
    ],
)
def test_rays_own_words_are_a_line(error, said):
    line = _refused("ray://head:10001", error)
    assert said in line
    assert "\n" not in line
