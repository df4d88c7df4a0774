"""Checkpoints: local folders and hub ids in Hugging Face's layout, and weights inside installed packages."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .extras import naming_extras, what_to_install


class CheckpointError(RuntimeError):
    """A checkpoint that can't be read, or that doesn't fill the model; the message names it and the way out."""


def read_config(weights: str) -> dict[str, Any]:
    """The checkpoint's config.json, without its weights."""
    if Path(weights).is_dir():
        path = Path(weights) / "config.json"
    else:
        with naming_extras():
            from huggingface_hub import hf_hub_download
        try:
            path = Path(hf_hub_download(weights, "config.json"))
        except Exception as error:
            raise _unreachable(weights, error) from error
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{weights}: there is no config.json in this folder; it must hold one checkpoint"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path} isn't JSON: {error}") from None


def package_path(source: str) -> Path:
    """The folder or file of weights that ship inside a Python package, which isn't imported.

    source: `package:MODULE/PATH`, for example package:rapidocr/models. Raises CheckpointError where it isn't there.
    """
    module, _, inside = source.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        missing = ModuleNotFoundError(f"{source}: the package {module!r} isn't installed", name=module)
        raise CheckpointError(what_to_install(missing))
    path = Path(spec.origin).parent / inside
    if not path.exists():
        raise CheckpointError(f"{source}: the installed package has no {inside!r}; another release may have")
    return path


def load_model(auto_class: Any, weights: str, device: str, unused: tuple[str, ...] = ()) -> Any:
    """The model of the checkpoint `weights`, in evaluation mode on `device`; safetensors only, so nothing is unpickled.
    Its parameters are float32 whatever the checkpoint stores: how a model is computed is for autocast to say.

    auto_class: transformers' AutoModel or a model class. unused: prefixes of parameters that the caller never uses.
    Raises CheckpointError where a parameter isn't in the checkpoint: transformers would fill it with random numbers.
    """
    from safetensors import SafetensorError

    try:
        with quiet_transformers():
            model, report = auto_class.from_pretrained(
                weights,
                use_safetensors=True,
                dtype="float32",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
            )
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise _own_code(weights) from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{weights}: model.safetensors isn't whole ({error}); it may have been cut short, so fetch it again"
        ) from error
    except OSError as error:
        if Path(weights).is_dir():
            raise CheckpointError(f"{weights}: {error}") from error
        raise _unreachable(weights, error) from error
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(unused))
    wrong = [*missing, *(str(entry[0]) for entry in report["mismatched_keys"])]
    if wrong:
        raise CheckpointError(
            f"{weights}: {len(wrong)} parameters of {type(model).__name__} are missing or have another shape, "
            f"for example {wrong[0]}; is it a checkpoint of another model?"
        )
    return model.eval().requires_grad_(False).to(device)


def load_processor(auto_class: Any, weights: str, **settings: Any) -> Any:
    """The checkpoint's own processor (AutoImageProcessor, AutoTokenizer, ...).

    settings: those that replace the checkpoint's. Raises CheckpointError where the checkpoint has none.
    """
    try:
        return auto_class.from_pretrained(weights, trust_remote_code=False, **settings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if "trust_remote_code" in str(error):
            raise _own_code(weights) from error
        if Path(weights).is_dir():
            reason = str(error).strip().partition("\n")[0]
            raise CheckpointError(
                f"{weights}: its processor can't be read ({reason}); the folder must hold the checkpoint's "
                f"preprocessor_config.json, and tokenizer files where it has any"
            ) from error
        raise _unreachable(weights, error) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, and no tables of the tensors that don't fit: `load_model` judges those itself."""
    if importlib.util.find_spec("transformers") is None:
        yield
        return
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _own_code(weights: str) -> CheckpointError:
    return CheckpointError(
        f"{weights}: the checkpoint asks for code of its own to be run, which is never done here; take one that "
        f"transformers reads by itself"
    )


def _unreachable(weights: str, error: Exception) -> CheckpointError:
    reason = str(error).strip().partition("\n")[0]
    return CheckpointError(
        f"{weights} is neither a local folder nor could it be fetched from the hub ({reason}); "
        f"give `weights` the path of a folder with config.json and model.safetensors"
    )
