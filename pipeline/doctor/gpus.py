"""GPUs: those that the recipe wants, those that Ray counts, and those that torch can use."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..cluster.device import chosen_device
from ..cluster.session import DEVICE
from .finding import Finding, failed, ok, warning

CHECK = "GPUs"
SECONDS = 90.0
"""Within which a process has to import torch and look."""


def none_at_all(wanting: Sequence[str], explicit: bool) -> Finding:
    """Where Ray counts none."""
    named = ", ".join(wanting)
    if explicit:
        return failed(CHECK, f"none, and resources.stages asks for some ({named})", "Take a cluster with GPUs")
    way_out = f"Take machines with GPUs, or set {DEVICE}=cpu where that is meant"
    return warning(CHECK, f"none, and {named} would compute on CPUs, which may take a hundred times as long", way_out)


def to_come(wanting: Sequence[str], explicit: bool) -> Finding:
    """Where Ray counts none, and an autoscaler may bring some."""
    named = ", ".join(wanting)
    if explicit:
        way_out = "See that a node type of the cluster has GPUs; once one is there, doctor looks at them"
        return warning(CHECK, f"none yet; {named} will ask the autoscaler for some", way_out)
    way_out = f"Write num_gpus in resources.stages, for which the autoscaler is asked, or set {DEVICE}=cpu"
    return warning(CHECK, f"none yet, and {named} asks for none: a plan without GPUs computes on CPUs", way_out)


def unused(modalities: Sequence[str]) -> Finding:
    """Where the user names another device, and the recipe asks for GPUs."""
    said = f"resources.stages asks for some ({', '.join(modalities)}), and {DEVICE}={chosen_device()} leaves them idle"
    return warning(CHECK, said, f"Unset {DEVICE}, or leave num_gpus out of the recipe")


def usable(seen: str, claimed: float, memory: float) -> Finding:
    """seen: what `Machine.gpus` says. claimed: how many Ray counts on the machine. memory: bytes that the largest
    labeler needs."""
    found = json.loads(seen)
    names, free = found["names"], found["free"]
    if len(names) < claimed:
        sees = f"{len(names)} of the {claimed:g}" if names else f"none of the {claimed:g}"
        way_out = f"Install a torch that fits the driver, or set {DEVICE}=cpu to compute without"
        return failed(CHECK, f"torch {found['torch']} sees {sees} that Ray counts", way_out)
    kinds = ", ".join(dict.fromkeys(names))
    said = f"{len(names)} x {kinds}, {min(free) / 2**30:.1f} GiB free on the fullest"
    if min(free) < memory:
        said += f", and the largest labeler needs {memory / 2**30:.1f}"
        return warning(CHECK, said, "See what else runs there", min(free))
    return ok(CHECK, said, min(free))


def unusable(why: str) -> Finding:
    return failed(CHECK, f"torch can't be asked: {why}", "Install a torch that fits the machine's driver")
