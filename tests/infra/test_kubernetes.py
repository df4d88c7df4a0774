"""infra/kubernetes: the manifests keep to KubeRay's schema and to what its operator asks, and fit this package."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kuberay_rules import refusals
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.scripts.scripts import start
from tokenloom.pipeline.plan.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra/kubernetes"
JOB, CLUSTER = FOLDER / "job/rayjob.yaml", FOLDER / "cluster/raycluster.yaml"
CHECK = ROOT / "../shared/schemas/check.py"


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def cluster_spec() -> dict[str, Any]:
    return read(CLUSTER)["spec"]


def groups() -> list[dict[str, Any]]:
    return [cluster_spec()["headGroupSpec"], *cluster_spec()["workerGroupSpecs"]]


def ray_container(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]["containers"][0]


def variables(group: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in ray_container(group)["env"]}


def test_they_keep_to_kuberays_schema(tmp_path: Path):
    if not CHECK.exists():
        pytest.skip("no ../shared/schemas, where KubeRay's schemas would be")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(JOB.read_text().replace("maxReplicas: 8", "maxReplica: 8"))
    checked = subprocess.run([sys.executable, CHECK, JOB, CLUSTER, wrong], capture_output=True, text=True)
    assert {line.split(": ")[0] for line in checked.stdout.splitlines()} == {str(wrong)}, checked.stdout


def test_the_operator_takes_them():
    assert [*refusals(read(JOB)), *refusals(read(CLUSTER))] == []
    assert read(JOB)["spec"]["rayClusterSpec"] == cluster_spec()


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("metadata.name", "Tokenloom", "DNS label"),
        ("metadata.name", "t" * 48, "47 characters"),
        ("spec.submissionMode", "K8sJob", "submissionMode"),
        ("spec.shutdownAfterJobFinishes", False, "need shutdownAfterJobFinishes"),
        ("spec.deletionStrategy", {"deletionRules": [{}]}, "deletionRules"),
        ("spec.submissionMode", "InteractiveMode", "backoffLimit"),
        ("spec.submissionMode", "SidecarMode", "no submitter"),
        ("spec.activeDeadlineSeconds", 0, "above 0"),
        ("spec.rayClusterSpec.rayVersion", "2.51.0", "tokens need"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.groupName", "labelers", "one name"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.minReplicas", 9, "above maxReplicas"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.rayStartParams.labels", "a=b", "the group's"),
        ("spec.rayClusterSpec.headGroupSpec.resources", {"CPU": "1"}, "exclude"),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.restartPolicy", "Always", "restartPolicy"),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.env.0.name", "REDIS_PASSWORD", "set by"),
    ],
)
def test_what_the_operator_refuses_is_seen(path: str, value: object, why: str):
    manifest = copy.deepcopy(read(JOB))
    at: Any = manifest
    *way, last = path.split(".")
    for word in way:
        at = at[int(word)] if isinstance(at, list) else at[word]
    at[last] = value
    assert any(why in said for said in refusals(manifest)), list(refusals(manifest))


def test_versions_are_the_packages():
    pins = dict(re.findall(r"^(\S+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert cluster_spec()["rayVersion"] == pins["ray"]
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    for overlay in ("job", "cluster"):
        images = read(FOLDER / overlay / "kustomization.yaml")["images"]
        assert [(image["name"], image["newTag"]) for image in images] == [("tokenloom", f"{version[1]}-cuda")]
    assert {ray_container(group)["image"] for group in groups()} == {"tokenloom"}


def test_every_file_is_named_by_a_kustomization_and_every_name_is_there():
    for overlay in ("common", "job", "cluster"):
        named = read(FOLDER / overlay / "kustomization.yaml")["resources"]
        files = {path.name for path in (FOLDER / overlay).glob("*.yaml")} - {"kustomization.yaml"}
        assert {name for name in named if name != "../common"} == files
        assert ("../common" in named) == (overlay != "common")


def test_pods_have_what_they_name():
    """The recipe, the account, and volumes; nothing outside emptyDirs is written, and their sizes fit what is asked."""
    common = {read(path)["kind"]: read(path)["metadata"]["name"] for path in (FOLDER / "common").glob("[rs]*.yaml")}
    for group in groups():
        pod, ray = group["template"]["spec"], ray_container(group)
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert pod["serviceAccountName"] == common["ServiceAccount"]
        assert {mount["name"] for mount in ray["volumeMounts"]} == set(volumes)
        assert all("emptyDir" in one or one["configMap"]["name"] == common["ConfigMap"] for one in volumes.values())
        sizes = [int(one["emptyDir"]["sizeLimit"].removesuffix("Gi")) for one in volumes.values() if "emptyDir" in one]
        assert sum(sizes) < int(ray["resources"]["requests"]["ephemeral-storage"].removesuffix("Gi"))
        assert ray["securityContext"]["readOnlyRootFilesystem"]
        assert pod["securityContext"]["runAsNonRoot"]


def test_a_worker_has_the_time_to_drain():
    head, *workers = groups()
    assert variables(head)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] == "0"
    for group in workers:
        drain = int(variables(group)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert drain < group["template"]["spec"]["terminationGracePeriodSeconds"]
        assert "lifecycle" not in ray_container(group)  # `ray stop` before SIGTERM would cut it short


def test_the_recipe_is_one_and_asks_for_no_more_than_a_node(tmp_path: Path):
    file = tmp_path / "recipe.yaml"
    file.write_text(read(FOLDER / "common/recipe.yaml")["data"]["recipe.yaml"])
    recipe = load_recipe(str(file))
    assert read(JOB)["spec"]["entrypoint"] == "tokenloom run /etc/tokenloom/recipe.yaml"
    wishes = recipe.resources.stages
    labelers = groups()[-1]
    gpus = int(ray_container(labelers)["resources"]["limits"]["nvidia.com/gpu"])
    assert wishes
    assert all(0 < wish.num_gpus <= gpus for wish in wishes)
    assert sum((wish.max_workers or 0) * wish.num_gpus for wish in wishes) <= gpus * labelers["maxReplicas"]


def test_rays_autoscaler_reads_the_groups_as_they_are_meant():
    manifest = read(CLUSTER)
    manifest["metadata"]["namespace"] = "tokenloom"
    config = _derive_autoscaling_config_from_ray_cr(manifest)
    offers = {
        name: (kind["resources"].get("CPU"), kind["resources"].get("GPU"), kind["min_workers"], kind["max_workers"])
        for name, kind in config["available_node_types"].items()
    }
    assert offers == {"headgroup": (0, None, 0, 0), "readers": (8, None, 1, 8), "labelers": (7, 1, 0, 8)}
    assert config["max_workers"] == 16


def test_ray_start_has_the_parameters():
    options = {option.removeprefix("--") for one in start.params for option in one.opts}
    assert {name for group in groups() for name in group["rayStartParams"]} <= options
