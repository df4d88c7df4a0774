"""Whether a machine has the weights, or can fetch them. Fetches none."""

from __future__ import annotations

from pathlib import Path

from ...labelers.contract.licences import TINY
from ...labelers.networks.hub import CheckpointError, package_path
from ..plan.weights import HUB_FILES, PACKAGE, WeightsSource, cached, told
from ..storage.store import Store
from .finding import Finding, failed, failed_by, ok

CHECK = "weights"


def look_at_weights(modality: str, weights: WeightsSource) -> Finding:
    check, source = f"{CHECK} ({modality})", weights.source
    name = told(source)
    if source == TINY:
        return ok(check, f"{name}: made where they are used")
    if source.startswith(PACKAGE):
        try:
            package_path(source)
        except (CheckpointError, ValueError, OSError) as error:
            return failed(check, str(error))
        return ok(check, f"{name}: there")
    if "://" in source:
        return _of_url(check, name, weights)
    if Path(source).expanduser().exists():
        return ok(check, f"{name}: there")
    if Path(source).is_absolute() or source.count("/") != 1:
        return failed(check, f"{name}: no such file or folder", "Give a path that all machines see, a URL or a hub id")
    return _of_hub(check, source)


def _of_url(check: str, name: str, weights: WeightsSource) -> Finding:
    if cached(weights.source).exists():
        return ok(check, f"{name}: in the cache")
    folder, _, file = weights.source.rstrip("/").rpartition("/")
    try:
        if Store(folder, weights.options).exists(file) or Store(weights.source, weights.options).children():
            return ok(check, f"{name}: there, to be fetched")
    except OSError as error:
        return failed_by(check, error)
    return failed(check, f"{name}: nothing there", "Correct `weights:` in the recipe")


def _of_hub(check: str, repository: str) -> Finding:
    try:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        return failed(check, f"{repository}: a hub id needs `pip install 'tokenloom[hub]'`")
    try:
        snapshot_download(repository, allow_patterns=list(HUB_FILES), local_files_only=True)
        return ok(check, f"{repository}: in the hub's cache")
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass
    try:
        HfApi().model_info(repository, timeout=10)
    except Exception as error:  # of the hub's client, of requests, of a setting that keeps it offline
        why = f"not in the hub's cache, and the hub doesn't give it ({type(error).__name__})"
        way_out = "Log in to the hub where it asks for that, or give a folder or a URL with `weights:` in the recipe"
        return failed(check, f"{repository}: {why}", way_out)
    return ok(check, f"{repository}: on the hub, to be fetched")
