"""Environments of workers: what Ray's and pip's errors come to, and what a process finds where it should have pins."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from tokenloom.pipeline.cluster import machine
from tokenloom.pipeline.cluster.environments import check_installed, differing
from tokenloom.pipeline.cluster.runtime_env import why_unmade
from tokenloom.pipeline.cluster.session import EngineError

# As Ray 2.60 and pip 26.3 have it.
RAYS = """[Node 10.77.0.2] Traceback (most recent call last):
  File "/opt/ray/_private/runtime_env/utils.py", line 105, in check_output_cmd
    raise SubprocessCalledProcessError(
ray._private.runtime_env.utils.SubprocessCalledProcessError: Run cmd[17] failed with the following details.
Command '['/tmp/ray/python', '-m', 'pip', 'install']' returned non-zero exit status 1.
Last 50 lines of stdout:
    Looking in indexes: http://me:****@127.0.0.1:1/simple
"""
OFFLINE = """\
    WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken by \
'NewConnectionError("HTTPConnection(host='127.0.0.1', port=1): Failed to establish a new connection: [Errno 111] \
Connection refused")': /simple/timm/
"""
NO_VERSION = """\
    ERROR: Could not find a version that satisfies the requirement timm==9.9 (from versions: none)
    ERROR: No matching distribution found for timm==9.9
"""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RAYS + NO_VERSION,
            "Could not find a version that satisfies the requirement timm==9.9 (from versions: none). ",
        ),
        (RAYS + OFFLINE + NO_VERSION, "pip reaches no index from there (NewConnectionError(\"HTTPConnection(host='127"),
        (RAYS + "    error: subprocess-exited-with-error\n", "error: subprocess-exited-with-error. pip there looks"),
        ("RuntimeError: Please install virtualenv `python`", "Ray lacks virtualenv, by which it makes environments"),
        ("Traceback\nOSError: [Errno 28] No space left on device\n", "OSError: [Errno 28] No space left on device"),
    ],
)
def test_why_ray_makes_no_environment_is_pips_words_where_there_are_any(error, told):
    said = why_unmade(error)
    assert told in said
    assert '  File "' not in said
    assert ("PIP_FIND_LINKS" in said) == (error.startswith(RAYS))


def test_a_process_finds_what_is_pinned_and_what_that_needs():
    here = f"pytest=={version('pytest')}"
    found, lacking, unfit = machine.pinned([here, "no-such-thing==1"], ["ray"])
    assert (found["pytest"], found["no-such-thing"], found["ray"]) == (version("pytest"), "", version("ray"))
    assert (lacking, unfit) == ([], [])  # extras of pytest's, and what is for other systems, nobody asks for
    check_installed([here])
    with pytest.raises(EngineError, match=rf"pytest==1.2.3 \({version('pytest')} is there\), no-such-thing==1 \(none"):
        check_installed(["pytest==1.2.3", "no-such-thing==1"])
    assert differing(["torch==2.6.0"], {"torch": "2.6.0+cpu"}) == ["torch==2.6.0 (2.6.0+cpu is there)"]
    assert differing(["torch==2.6"], {"torch": "2.6.0"}) == []
