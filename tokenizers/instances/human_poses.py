"""Poses of people: their text (see `pose_text`), with the body's pose as 8 codes by k-means or by a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

import numpy as np
from pydantic import BaseModel, Field

from ...labelers.contract.instances import InstanceSet
from ...labelers.contract.kinds import Kind
from ...labelers.contract.poses import nearest_rotations
from ..codebooks.codebook import supported_codes
from ..codebooks.kmeans import kmeans, nearest, sample_rows
from ..contract.files import config_file, model_file, read_config, read_model
from ..contract.token_spec import TokenSpec
from ..measures.measures import rotation_angles
from ..networks.vq_config import VQConfig
from ..vq.base import NetworkParams, TrainedTextTokenizer
from ..vq.input_contract import JOINTS, POSE_CONTRACT, InputContract
from .pose_text import POSE_CODES, POSE_TOKENS, HumanPosesParams, PosesText

_SAMPLE = 131_072
_ITERATIONS = 10


class HumanPosesTokenizer(PosesText):
    """Pose codes by product quantisation (Jegou et al. 2011): the 23 rotations in 8 parts, each with codes by k-means.

    The first code of a part is the rest pose, in which no joint is turned, so that a sample without people will do.
    Loss, in config.json: `joint_angle`, the mean angle in degrees between the sample's rotations and those decoded.
    """

    version = 2

    def __init__(self, kind: Kind, params: BaseModel | None = None) -> None:
        super().__init__(kind, params)
        self.facts: dict[str, Any] = {}
        self._tensors: dict[str, np.ndarray] = {}

    @property
    def needs_fit(self) -> bool:
        return not self._tensors

    @property
    def spec(self) -> TokenSpec:
        self._check_fitted()
        return super().spec

    def fit(self, labels: Iterable[InstanceSet], seed: int) -> None:
        poses = (self._body_poses(label).reshape(-1, JOINTS * 9) for label in labels)
        rows = sample_rows(poses, _SAMPLE, seed).reshape(-1, JOINTS, 3, 3)
        rest = np.tile(np.eye(3, dtype=np.float32), (1, JOINTS, 1, 1))
        codes = supported_codes(POSE_CODES - 1, len(rows))
        for part, (still, turned) in enumerate(zip(_split(rest), _split(rows), strict=True)):
            fitted = kmeans(turned, codes, seed, _ITERATIONS).centroids if len(rows) else turned
            self._tensors[f"part_{part}"] = np.concatenate([still, fitted])
        angles = rotation_angles(rows, self._poses(self._pose_codes(rows)))
        loss = {"joint_angle": float(angles.mean()) if angles.size else 0.0}
        self.facts = {"codes": max(self._known_codes), "sample": len(rows), "loss": loss}

    def to_files(self) -> dict[str, bytes]:
        self._check_fitted()
        return {**super().to_files(), **config_file(self, fit=self.facts), **model_file(self._tensors)}

    @classmethod
    def from_files(cls, kind: Kind, files: Mapping[str, bytes]) -> HumanPosesTokenizer:
        tokenizer = cast(HumanPosesTokenizer, super().from_files(kind, files))
        tokenizer.facts, tokenizer._tensors = read_config(cls, kind, files)["fit"], read_model(files)
        return tokenizer

    def _check_fitted(self) -> None:
        if self.needs_fit:
            raise RuntimeError("HumanPosesTokenizer isn't fitted yet: call fit, or load it with from_files")

    @property
    def _parts(self) -> list[np.ndarray]:
        self._check_fitted()
        return [self._tensors[f"part_{part}"] for part in range(POSE_TOKENS)]

    @property
    def _known_codes(self) -> list[int]:
        return [len(part) for part in self._parts]

    def _pose_codes(self, poses: np.ndarray) -> np.ndarray:
        parts = zip(_split(poses), self._parts, strict=True)
        return np.stack([nearest(turned, codes) for turned, codes in parts], axis=1)

    def _poses(self, codes: np.ndarray) -> np.ndarray:
        parts = [part[code] for part, code in zip(self._parts, codes.T, strict=True)]
        return nearest_rotations(np.concatenate(parts, axis=1).reshape(-1, JOINTS, 3, 3))


class HumanPosesVQParams(HumanPosesParams, NetworkParams):
    """codes: of each of the 8 tokens."""

    codes: int = Field(default=POSE_CODES, ge=2, le=POSE_CODES)


class HumanPosesVQTokenizer(TrainedTextTokenizer, PosesText):
    """Pose codes by a network as 4M's: a bottleneck MLP around memcodes, 8 of them for the 207 numbers of a pose.

    Published weights: EPFL-VILAB/4M_tokenizers_human-poses_1k_8.
    """

    Params: ClassVar[type[BaseModel]] = HumanPosesVQParams
    open_params = frozenset({"max_length"})

    def examples(self, label: InstanceSet) -> np.ndarray:
        return self._body_poses(label)

    def _contract_of_kind(self) -> InputContract:
        return POSE_CONTRACT

    def _contract_for(self, examples: np.ndarray) -> InputContract:
        return POSE_CONTRACT

    def _config_for(self, contract: InputContract) -> VQConfig:
        return VQConfig(
            n_channels=contract.channels,
            enc_type=self.params.encoder or "BottleneckMLP/B_4-Wi_256",
            dec_type=self.params.decoder or "BottleneckMLP/B_4-Wi_256",
            patch_proj=False,
            quant_type="memcodes",
            codebook_size=self.params.codes,
            num_codebooks=POSE_TOKENS,
            latent_dim=256,
        )

    def _published_contract(self, config: VQConfig) -> InputContract:
        if config.tokens_per_cell != POSE_TOKENS or config.vocabulary > POSE_CODES:
            raise ValueError(
                f"the network gives {config.tokens_per_cell} of {config.vocabulary} codes a pose; they are written as "
                f"{POSE_TOKENS} of at most {POSE_CODES}"
            )
        return POSE_CONTRACT

    @property
    def _known_codes(self) -> list[int]:
        return [self.network.config.vocabulary] * POSE_TOKENS

    def _pose_codes(self, poses: np.ndarray) -> np.ndarray:
        return self._tokenize(poses)

    def _poses(self, codes: np.ndarray) -> np.ndarray:
        return np.array(self._restore(codes), np.float32).reshape(-1, JOINTS, 3, 3)


def _split(poses: np.ndarray) -> list[np.ndarray]:
    """The 8 parts of poses (n, 23, 3, 3), (n, numbers) each: whole rotations."""
    parts = np.array_split(poses, POSE_TOKENS, axis=1)
    return [np.ascontiguousarray(part.reshape(len(part), 9 * part.shape[1])) for part in parts]
