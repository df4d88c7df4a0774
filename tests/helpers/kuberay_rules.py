"""What KubeRay's operator refuses, and its schema can't say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Manifest = Mapping[str, Any]

_LONGEST = {"RayJob": 47, "RayCluster": 53}
_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBMISSIONS = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
_OF_RESOURCES = {"num-cpus", "num-gpus", "memory", "resources"}
_OWN_VARIABLES = {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD"}
_TOKENS_SINCE = (2, 52)


def refusals(manifest: Manifest) -> Iterator[str]:
    """Why the operator would refuse a RayJob or RayCluster."""
    kind, name, spec = manifest["kind"], manifest["metadata"]["name"], manifest["spec"]
    if len(name) > _LONGEST[kind] or not _DNS_LABEL.fullmatch(name):
        yield f"metadata.name {name}: a DNS label of at most {_LONGEST[kind]} characters"
    if kind == "RayJob":
        yield from _of_job(spec)
    yield from _of_cluster(spec["rayClusterSpec"] if kind == "RayJob" else spec)


def _of_job(spec: Manifest) -> Iterator[str]:
    mode = spec.get("submissionMode", "K8sJobMode")
    if mode not in _SUBMISSIONS:
        yield f"submissionMode {mode}: not one of {_SUBMISSIONS}"
    if not spec.get("shutdownAfterJobFinishes") and (spec.get("suspend") or spec.get("ttlSecondsAfterFinished")):
        yield "suspend and ttlSecondsAfterFinished need shutdownAfterJobFinishes"
    if spec.get("shutdownAfterJobFinishes") and spec.get("deletionStrategy", {}).get("deletionRules"):
        yield "deletionRules exclude shutdownAfterJobFinishes"
    if spec.get("backoffLimit") and (mode == "InteractiveMode" or "clusterSelector" in spec):
        yield "backoffLimit needs a cluster of the job's own, and a submission"
    if mode == "SidecarMode" and {"submitterPodTemplate", "submitterConfig"} & set(spec):
        yield "SidecarMode has no submitter"
    for deadline in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(deadline, 1) <= 0:
            yield f"{deadline} has to be above 0"


def _of_cluster(spec: Manifest) -> Iterator[str]:
    workers = spec.get("workerGroupSpecs", [])
    names = [group["groupName"] for group in workers]
    if len(set(names)) < len(names):
        yield f"two groups of one name: {names}"
    if spec.get("authOptions", {}).get("mode") == "token":
        version = tuple(map(int, spec.get("rayVersion", "0.0").split(".")[:2]))
        if version < _TOKENS_SINCE:
            yield f"tokens need Ray 2.52, and rayVersion is {spec.get('rayVersion')}"
    scales = spec.get("autoscalerOptions", {}).get("version") == "v2"
    for group in (spec["headGroupSpec"], *workers):
        yield from _of_group(group, group.get("groupName", "head"), scales)


def _of_group(group: Manifest, name: str, scales: bool) -> Iterator[str]:
    start, pod = group.get("rayStartParams", {}), group["template"]["spec"]
    variables = {variable["name"] for one in pod["containers"] for variable in one.get("env", [])}
    if group.get("resources") and (twice := _OF_RESOURCES & set(start)):
        yield f"{name}: resources exclude {sorted(twice)} in rayStartParams"
    if "labels" in start:
        yield f"{name}: labels are the group's, not rayStartParams'"
    if group.get("minReplicas", 0) > group.get("maxReplicas", 2**31 - 1):
        yield f"{name}: minReplicas above maxReplicas"
    if scales and (pod.get("restartPolicy", "Never") != "Never" or "RAY_enable_autoscaler_v2" in variables):
        yield f"{name}: autoscaler v2 takes restartPolicy Never, and sets its own variable"
    if own := _OWN_VARIABLES & variables:
        yield f"{name}: {sorted(own)} are set by gcsFaultToleranceOptions"
