"""Tokenizers with a network: trained on a sample of labels, or read from published weights."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ...labelers.contract.kinds import Image, Kind
from ...labelers.contract.labeler import Weights
from ..contract.files import CONFIG, MODEL, VOCABULARY_FILE, config_of, read, read_config
from ..contract.token_spec import TokenSpec
from ..contract.tokenizer import Tokenizer
from ..contract.vocabulary import Vocabulary
from ..fitting.figures import Figures
from ..fitting.settings import FitSettings
from ..networks.vq_config import VQConfig
from ..text.base import StructuredTokenizer
from .input_contract import OBJECTIVE_OF, InputContract
from .published import PUBLISHED, check_modality

if TYPE_CHECKING:
    from torch import Tensor

    from ..fitting.perceptual import PerceptualLoss
    from ..networks.vq_network import VQ


ENCODED_AT_ONCE, DECODED_AT_ONCE = 128, 32
"""How many examples go through the network together."""

STARTED_ON = 1024
"""Of how many examples a network's linear start is computed."""

LOGITS = (8.0, -4.0)
"""Gain and offset that make logits of the shares in [0, 1] that a linear start restores: 0 and 1 become 2 and 98 %."""


class NetworkParams(BaseModel):
    """encoder, decoder: the network's parts by size: vit_xt_enc, vit_t_enc, vit_s_enc, vit_b_enc, vit_l_enc (_dec),
    or BottleneckMLP/B_<blocks>-Wi_<width>, which takes vectors; None takes small ones that suit the labels. codes: how
    many each token can be."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    encoder: str | None = None
    decoder: str | None = None
    codes: int = Field(default=1024, ge=2)


def codebook_fields(cosine: bool) -> dict[str, Any]:
    """How codebooks that are fitted here follow the latents, as fields of VQConfig.

    4M's decay of 0.99 and dead-code ratio of 32 are for millions of images: in the short fits of a small sample codes
    would lag behind, and rare ones stay unused. 0.25 is the commitment of VQ-VAE (arXiv 1711.00937); cosine codes,
    which don't see how long latents are, learn better with 1, as 4M has it.
    """
    followed = {"kmeans_init": True, "ema_decay": 0.9, "coef_ema_dead_code": 16.0}
    return followed if cosine else {**followed, "commitment_weight": 0.25}


class TrainedTokenizer(Tokenizer):
    """A tokenizer whose network learns from `examples`, the parts of labels that it sees, by gradient steps.

    A trainer calls `design`, trains what it gives with `objective` on `to_batch`, and hands it back by `finish`; `fit`
    does all that in this process. The state is config.json and model.safetensors of the format that 4M's tokenizers are
    published in, with `contract`, `fit` (facts about the training) and the tokenizer's own fields beside the network's.

    settings: of the training. contract: what the network takes; known once it is designed or read.
    """

    version = 2
    weights: ClassVar[Weights] = PUBLISHED
    open_params: ClassVar[frozenset[str]] = frozenset()
    """Parameters that have nothing to do with the network, so that they may be given beside weights."""

    def __init__(self, kind: Kind, params: BaseModel | None = None) -> None:
        super().__init__(kind, params)
        self.settings = FitSettings()
        self.facts: dict[str, Any] = {}
        self._contract: InputContract | None = None
        self._network: VQ | None = None
        self._device = "cpu"

    @property
    def needs_fit(self) -> bool:
        return self._network is None

    @property
    def contract(self) -> InputContract:
        """What the network takes. Raises RuntimeError before it is known."""
        if self._contract is None:
            raise RuntimeError(f"{type(self).__name__} isn't fitted yet: call fit, or load it with from_files")
        return self._contract

    @property
    def network(self) -> VQ:
        """The trained network. Raises RuntimeError before there is one."""
        if self._network is None:
            raise RuntimeError(f"{type(self).__name__} isn't fitted yet: call fit, or load it with from_files")
        return self._network

    @property
    def objective(self) -> str:
        """The name of the loss (see `losses`) that training makes small."""
        return OBJECTIVE_OF[self.contract.form]

    def check_settings(self) -> None:
        """Raises ValueError where `settings` ask for what can't be had with these labels and parameters."""
        if self.settings.perceptual is not None:
            raise ValueError(
                f"perceptual: it is for images of colour in 3 channels, not for labels of the kind {self.kind.name}"
                f"{_content(self.kind)}: leave it out"
            )

    def check_params(self) -> None:
        """Raises ValueError where no network has such parameters and takes labels of the kind, of whatever size."""
        contract = self._contract_of_kind()
        check_network(self._config_for(contract), contract)

    @abstractmethod
    def _contract_of_kind(self) -> InputContract:
        """The contract as far as it is known without examples; an image's size suits the patches."""

    @abstractmethod
    def examples(self, label: Any) -> np.ndarray:
        """What the network sees of a label, checked, in a compact dtype: (n, *shape), n = 0 where it sees nothing."""

    @abstractmethod
    def _contract_for(self, examples: np.ndarray) -> InputContract:
        """The contract of a network that is to be trained on these."""

    @abstractmethod
    def _config_for(self, contract: InputContract) -> VQConfig:
        """The network that the parameters ask for."""

    @abstractmethod
    def _published_contract(self, config: VQConfig) -> InputContract:
        """The contract of a published network. Raises ValueError where it isn't for these labels."""

    def design(self, examples: np.ndarray, seed: int) -> VQ:
        """Settles the contract by the examples (n, *shape), and gives the network, with random weights from `seed`; one
        of maps starts linear (see `linear_start`).

        Raises ValueError for an empty sample, and as `check_settings` does.
        """
        import torch

        from ..fitting.linear_start import start_codes, start_linear, takes_linear_start
        from ..networks.vq_network import build

        self.check_settings()
        if not len(examples):
            raise ValueError(f"{type(self).__name__} can't be fitted: the sample holds nothing that it tokenises")
        self._contract = self._contract_for(examples)
        config = self._config_for(self._contract)
        check_network(config, self._contract)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build(config)
        if takes_linear_start(network):
            seed %= 2**64  # numpy takes no negative ones
            some = np.sort(np.random.default_rng(seed).permutation(len(examples))[:STARTED_ON])
            parts = np.array_split(some, -(-len(some) // DECODED_AT_ONCE))
            logits = LOGITS if self.objective == "binary_cross_entropy" else (1.0, 0.0)
            start_linear(network, (self.to_batch(examples[part]) for part in parts), *logits)
            cells = math.prod(config.grid(self._contract.height, self._contract.width))
            batches = (self.to_batch(examples[part]) for part in parts)
            start_codes(network, batches, self.settings.batch_size * cells, seed)
        return network

    def perceptual_loss(self, weights: str | None = None) -> PerceptualLoss | None:
        """What `settings` add to the objective of a designed network, where `use_device` said; None: nothing.

        weights: the folder here of those that the settings name, or their hub id; None takes the name as it is.
        """
        if self.settings.perceptual is None:
            return None
        from ..fitting.perceptual import PerceptualLoss

        wanted = self.settings.perceptual
        return PerceptualLoss.load(wanted, weights or wanted.weights, self.contract.restored, self._device)

    def to_batch(self, examples: np.ndarray) -> Tensor:
        """The network's input (B, ...) of some examples (B, *shape), on the device that `use_device` chose."""
        import torch

        mine = np.require(examples, requirements="W")  # torch won't share what is read-only, as a memory map is
        return self.contract.to_network(torch.from_numpy(mine).to(self._device))

    def finish(self, network: VQ, facts: Mapping[str, Any]) -> None:
        """Takes the trained network. facts: about its training, for config.json."""
        self._network = network.eval().requires_grad_(False).to(self._device)
        self.facts = dict(facts)

    def fit(self, labels: Iterable[Any], seed: int) -> None:

        parts = [part for label in labels if len(part := self.examples(label))]
        sizes = sorted({part.shape[1:] for part in parts})
        if len(sizes) > 1:
            raise ValueError(f"labels of one size make a sample; there are {', '.join(map(str, sizes))}")
        train(self, np.concatenate(parts) if parts else np.zeros(0, np.float32), seed)

    def use_device(self, device: str) -> None:
        """Where `to_batch`, `encode` and `decode` compute, as torch names it."""
        self._device = device
        if self._network is not None:
            self._network.to(device)

    @property
    def _grid(self) -> tuple[int, int]:
        return self.network.config.grid(self.contract.height, self.contract.width)

    @property
    def _tokens(self) -> int:
        """Tokens per example."""
        rows, columns = self._grid
        return self.network.config.tokens_per_cell * rows * columns

    def _tokenize(self, examples: np.ndarray) -> np.ndarray:
        """int64 (n, tokens): row by row, and codebook by codebook where a cell has several tokens."""
        parts = [
            self.network.tokenize(self.to_batch(examples[start : start + ENCODED_AT_ONCE])).flatten(1).cpu().numpy()
            for start in range(0, len(examples), ENCODED_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self._tokens), np.int64)

    def _restore(self, tokens: np.ndarray) -> list[np.ndarray]:
        """The examples that tokens, int64 (n, tokens), stand for, as the contract gives them back.

        A diffusion decoder begins with the same noise for each of them, so that one doesn't depend on the others.
        """
        import torch

        cells = (self.network.config.tokens_per_cell, *self._grid)
        shape = cells if cells[0] > 1 else cells[1:]
        at_once = 1 if self.network.config.is_diffusion else DECODED_AT_ONCE
        restored: list[np.ndarray] = []
        for start in range(0, len(tokens), at_once):
            block = torch.from_numpy(tokens[start : start + at_once]).to(self._device).reshape(-1, *shape)
            noise = torch.Generator(self._device).manual_seed(0)
            restored += self.contract.from_network(self.network.decode_tokens(block, generator=noise))
        return restored

    def to_files(self) -> dict[str, bytes]:
        from ..networks.vq_checkpoint import write_published

        facts = {"contract": self.contract.model_dump(mode="json"), "fit": self.facts}
        return write_published(self.network, config_of(self, **facts))

    @classmethod
    def from_files(cls, kind: Kind, files: Mapping[str, bytes]) -> TrainedTokenizer:
        from ..networks.vq_checkpoint import read_files

        known = read_config(cls, kind, files)
        read(files, MODEL)
        _, _, network = read_files(files)
        return cls._with_network(kind, known, network)

    @classmethod
    def from_weights(cls, kind: Kind, params: BaseModel | None, folder: Path, source: str) -> TrainedTokenizer:
        """The tokenizer in a folder: one that 4M published, or one that `to_files` wrote.

        source: where the folder is from, a hub id or path, as an error names it. Raises ValueError where the network is
        for labels of another modality, and for parameters that the network settles by itself.
        """
        from ..networks.vq_checkpoint import read_published

        check_modality(source, kind)
        config, rest, network = read_published(folder)
        given = params if params is not None else cls.Params()
        try:
            if "tokenizer" in rest:
                tokenizer = cls._with_network(
                    kind, read_config(cls, kind, {CONFIG: (folder / CONFIG).read_bytes()}), network
                )
                tokenizer._take(given)
                return tokenizer
            tokenizer = cls(kind, given)
            tokenizer._check_given(given, {*cls.open_params, "image_size"})
            tokenizer._contract = tokenizer._published_contract(config)
            check_network(config, tokenizer._contract)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        tokenizer.finish(network, {"weights": source})
        return tokenizer

    @classmethod
    def _with_network(cls, kind: Kind, known: Mapping[str, Any], network: VQ) -> TrainedTokenizer:
        """known: config.json as `read_config` gives it."""
        tokenizer = cls(kind, cls.Params.model_validate(known["params"]))
        tokenizer._contract = InputContract.model_validate(known["contract"])
        check_network(network.config, tokenizer._contract)
        tokenizer.finish(network, known["fit"])
        return tokenizer

    def _take(self, given: BaseModel) -> None:
        """Parameters given beside our own weights, whose config.json has all of them already."""
        self._check_given(given, self.open_params)
        self.params = self.params.model_copy(update=given.model_dump(include=given.model_fields_set))

    @staticmethod
    def _check_given(given: BaseModel, free: Collection[str]) -> None:
        """Raises ValueError where parameters were given that the weights have settled."""
        settled = sorted(given.model_fields_set.difference(free))
        if settled:
            raise ValueError(f"the weights settle {', '.join(settled)} by themselves: leave out these parameters")


class TrainedTextTokenizer(TrainedTokenizer, StructuredTokenizer):
    """Labels written as text, in which some of the tokens are a network's codes."""

    @property
    def spec(self) -> TokenSpec:
        assert self.network is not None  # else it says that it isn't fitted
        return super().spec

    def to_files(self) -> dict[str, bytes]:
        return {**super().to_files(), VOCABULARY_FILE: self.vocabulary.to_bytes()}

    @classmethod
    def from_files(cls, kind: Kind, files: Mapping[str, bytes]) -> TrainedTextTokenizer:
        tokenizer = cast(TrainedTextTokenizer, super().from_files(kind, files))
        tokenizer.use_vocabulary(Vocabulary.from_bytes(read(files, VOCABULARY_FILE)))
        return tokenizer


def _content(kind: Kind) -> str:
    """What an image shows, as it is said behind its kind."""
    return f" with {kind.content} in {kind.channels} channels" if isinstance(kind, Image) else ""


def check_network(config: VQConfig, contract: InputContract) -> None:
    """Raises ValueError where a network isn't for such labels, or for as many channels or classes as they have."""
    if config.is_diffusion and contract.form not in ("colour", "intensity", "depth", "normals"):
        raise ValueError(f"dec_type {config.dec_type} denoises images, not {contract.form} labels: take a ViT")
    if contract.form == "classes":
        assert contract.classes is not None
        if config.n_labels != contract.classes + 1:
            raise ValueError(
                f"the network is for n_labels = {config.n_labels}, not for {contract.classes} classes and one for void"
            )
    elif config.n_labels is not None:
        raise ValueError(f"the network is for maps of {config.n_labels - 1} classes, not for {contract.form}")
    elif config.n_channels != contract.channels:
        raise ValueError(
            f"the network is for n_channels = {config.n_channels}; a {contract.form} label has {contract.channels}"
        )


def train(
    tokenizer: TrainedTokenizer, examples: np.ndarray, seed: int, watch: Callable[[Figures], None] | None = None
) -> None:
    """Trains the tokenizer's network in this process, on the CPU, and gives it to the tokenizer. `watch` is called
    after every step. Raises DivergedError, and ValueError for examples that don't do."""
    from ..fitting.training import Training

    network = tokenizer.design(examples, seed)
    training = Training(
        network,
        tokenizer.objective,
        examples,
        tokenizer.to_batch,
        tokenizer.settings,
        seed,
        perceptual=tokenizer.perceptual_loss(),
    )
    while training.step < tokenizer.settings.steps:
        figures = training.advance()
        if watch:
            watch(figures)
    tokenizer.finish(training.finished(), training.facts())
