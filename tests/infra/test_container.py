"""infra/container: the image gets constraints.txt's versions, each with a hash, and runs as nobody in particular."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path
from runpy import run_path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra/container"
LOCK = FOLDER / "requirements.txt"
WRITER = run_path(str(FOLDER / "lock.py"))
IMAGE = {"python_version": "3.11", "python_full_version": "3.11.2", "platform_machine": "x86_64"}


def applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**IMAGE, "extra": extra})


def locked() -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+) --hash=sha256:[0-9a-f]{64}$", LOCK.read_text(), re.MULTILINE))


def test_the_lock_has_the_versions_of_the_constraints():
    lines = LOCK.read_text().splitlines()
    assert lines[0] + "\n" == WRITER["HEAD"]
    assert len(locked()) == len(lines) - 1
    assert list(locked()) == sorted(locked())
    wanted = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    pins = {str(canonicalize_name(one.name)): str(one.specifier).removeprefix("==") for one in wanted if applies(one)}
    differ = {name: version for name, version in locked().items() if pins.get(name) != version.partition("+")[0]}
    assert not differ, "infra/dev run python infra/container/lock.py writes the lock anew"


def test_the_lock_has_all_that_the_package_asks_for():
    asked = [Requirement(line) for line in requires("tokenloom") or []]
    extras = WRITER["EXTRAS"].split(",")
    missing = {
        one.name
        for one in asked
        if any(applies(one, extra) for extra in ("", *extras)) and canonicalize_name(one.name) not in locked()
    }
    assert missing == set()


def test_another_torch_takes_the_place_of_all_that_belongs_to_cuda():
    dockerfile = (FOLDER / "Dockerfile").read_text()
    found = re.search(r"sed -Ei '/(.+)/d' /build/requirements.txt", dockerfile)
    assert found
    gone = {name for name, version in locked().items() if re.match(found[1], f"{name}=={version}")}
    cuda = {name for name in locked() if name.startswith(("nvidia-", "cuda-"))}
    assert gone == {"torch", "torchvision", "triton", *cuda}


def test_it_runs_as_a_user_by_number():
    """Kubernetes' runAsNonRoot takes no name."""
    dockerfile = (FOLDER / "Dockerfile").read_text()
    assert re.findall(r"^USER (.+)", dockerfile, re.MULTILINE) == ["1000:1000"]


def test_what_the_page_names_is_there():
    page = (ROOT / "infra/README.md").read_text()
    named = set(re.findall(r"(?<![\w/.])(?:infra/)?(?:container|kubernetes|aws|job|cluster|common)/[\w./-]*", page))
    assert "infra/container/lock.py" in named
    missing = [
        name for name in named if not any((ROOT / at / name).exists() for at in ("", "infra", "infra/kubernetes"))
    ]
    assert missing == []
