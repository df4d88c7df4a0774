"""Publishing a tokenizer: to a folder, a URL, or the hub."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ...tokenizers.contract.files import CONFIG, MODEL, VOCABULARY_FILE
from ..fitting.open_tokenizer import TokenizerError, of_dataset
from ..storage.store import Store
from .console import plain_console
from .model_card import model_card


def push(source: str, target: str) -> None:
    """Copies a tokenizer's files, once they are read and found whole, with a model card."""
    files = published_files(source, target)
    if is_hub_id(target):
        where = _upload(files, target)
    else:
        store = Store(target)
        for name in sorted(files, reverse=True):
            store.replace(name, files[name])
        where = store.url
    size = sum(map(len, files.values())) / 2**20
    plain_console().print(f"{', '.join(files)}, {size:,.1f} MiB -> {where}", soft_wrap=True)


def published_files(source: str, target: str) -> dict[str, bytes]:
    """The files of the tokenizer at a path or URL, with README.md. Raises TokenizerError for one without a network, and
    CheckpointError for one that isn't whole."""
    from ...tokenizers.networks.vq_checkpoint import read_files

    folder, made = of_dataset(source)
    store = Store(folder)
    files = {name: store.read(name) for name in (CONFIG, MODEL, VOCABULARY_FILE) if store.exists(name)}
    if CONFIG not in files:
        raise TokenizerError(f"{store.url}: there is no tokenizer (no {CONFIG}): give DATASET/MODALITY")
    try:
        config = json.loads(files[CONFIG])
        has_network = "enc_type" in config
    except (ValueError, TypeError) as error:
        raise TokenizerError(f"{store.url}/{CONFIG}: it isn't a tokenizer's: {error}") from None
    if not has_network:
        what = config.get("tokenizer", "it") if isinstance(config, dict) else "it"
        raise TokenizerError(f"{store.url}: {what} has no network, for which alone 4M has a format; train one")
    read_files(files, store.url)
    name = target if is_hub_id(target) else target.rstrip("/").rsplit("/", 1)[-1]
    return {**files, "README.md": model_card(name, config, made)}


def is_hub_id(target: str) -> bool:
    """Whether a target is ORG/NAME on the hub: two names, of which the first is no folder here."""
    organisation, slash, name = target.partition("/")
    is_path = "://" in target or target.startswith((".", "~", "/")) or "/" in name or Path(organisation).exists()
    return bool(slash and organisation and name) and not is_path


def _upload(files: Mapping[str, bytes], repository: str) -> str:
    """Puts the files into a repository on the hub, which is made where there is none, not public; its address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    with tempfile.TemporaryDirectory(prefix="tokenloom-push-") as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        try:
            api.create_repo(repository, private=True, exist_ok=True)
            done = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="A tokenizer")
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            first = str(error).strip().splitlines()[0]
            raise TokenizerError(
                f"{repository}: the hub didn't take it ({type(error).__name__}: {first}); `hf auth login` lets you "
                f"write there, and a folder is written ./{repository}"
            ) from None
    return str(done.commit_url)
