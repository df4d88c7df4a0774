"""The labelers and tokenizers that an actor of a stage holds."""

from __future__ import annotations

import gc

from ...labelers.plugins.registry import find_labeler
from ...tokenizers.contract.tokenizer import Tokenizer
from ..cluster.device import device_for
from ..cluster.session import EngineError
from ..dataset.tokenizers import load_tokenizer
from ..plan.steps import Step
from ..storage.store import Store
from .config import StageConfig
from .runner import Runner


class LoadedModels:
    """The stage's labelers and tokenizers, each loaded when it is first needed."""

    def __init__(self, config: StageConfig, store: Store) -> None:
        self.config = config
        self.cards = config.graph.cards
        self._store = store
        self._device = device_for(config.stage.num_gpus)
        self.runners: dict[str, Runner] = {}
        self._tokenizers: dict[str, Tokenizer] = {}

    def runner(self, step: Step) -> Runner:
        """The step's labeler, loaded on first use."""
        if step.name not in self.runners:
            labeler_class = find_labeler(step.labeler)
            planned = self.cards[step.name].weights
            path = step.weights.fetch(planned and planned.sha256, labeler_class) if step.weights else None
            try:
                labeler = labeler_class(labeler_class.Params.model_validate(step.params), path)
                self.runners[step.name] = Runner(labeler, step.modalities, step.batch_size, self._device)
            except Exception as error:  # a plugin may raise anything
                own = type(error).__module__.startswith("tokenloom.")
                what = str(error) if own else f"{type(error).__name__}: {error}"
                raise EngineError(
                    f"{', '.join(step.modalities)}: the labeler {step.labeler} can't be loaded: {what}"
                ) from error
        return self.runners[step.name]

    def unload(self) -> None:
        """Gives up the memory of all of them, here and on the GPU; they are loaded again when they are needed."""
        self.runners.clear()
        self._tokenizers.clear()
        gc.collect()
        if self._device != "cpu":
            import torch

            torch.cuda.empty_cache()

    def tokenizer(self, modality: str) -> Tokenizer:
        if modality not in self._tokenizers:
            tokenizer = load_tokenizer(self._store, modality, self.cards[modality])
            tokenizer.use_device(self._device)
            self._tokenizers[modality] = tokenizer
        return self._tokenizers[modality]
