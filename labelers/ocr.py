"""OCR: the lines of text in an image, by PP-OCR through rapidocr and ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.instances import InstanceSet
from .contract.kinds import Instances
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .networks.extras import naming_extras
from .networks.hub import CheckpointError, package_path

SHIPPED_WEIGHTS = "package:rapidocr/models"


class OcrParams(BaseModel):
    """min_score: lines recognised with less are dropped. max_side: the detector looks at the image scaled down until
    its longer side has at most this many pixels; what it finds is read at full resolution."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    min_score: float = Field(default=0.8, ge=0, le=1)
    max_side: int = Field(default=960, ge=32)


class Ocr(Labeler):
    """Lines of text, with their boxes and scores.

    `ocr`: Instances labelled "text", top to bottom, left to right; `texts` hold what they say, `scores` how sure the
    recogniser is. A slanted line's box is the upright one around it. The weights ship in rapidocr's wheel; another
    folder must hold one ONNX file *det*.onnx for detection, and one *rec*.onnx for recognition with its characters.
    """

    makes = (Modality("ocr", Instances(scores=True, texts=True)),)
    on = "image"
    weights = Weights(SHIPPED_WEIGHTS, "Apache-2.0", "https://github.com/RapidAI/RapidOCR")
    resources = Resources(cpus=1.0, memory=1 * 2**30)
    batch_size = 8
    Params: ClassVar[type[BaseModel]] = OcrParams

    def load(self, device: str) -> None:
        with naming_extras():
            import onnxruntime  # noqa: F401 - rapidocr says only later, and less clearly, that it is missing
            from rapidocr import RapidOCR
        source = self.weights_path or SHIPPED_WEIGHTS
        folder = package_path(source) if source.startswith("package:") else Path(source)
        self._read = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.use_cls": False,  # upright images: its turns by 180 degrees do more harm than good
                "Global.use_preprocess_img": False,
                "Global.use_vertical_padding": False,
                "Global.text_score": self.params.min_score,
                "Det.limit_type": "max",
                "Det.limit_side_len": self.params.max_side,
                "Det.model_path": _onnx_file(folder, "det"),
                "Rec.model_path": _onnx_file(folder, "rec"),
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        return {"ocr": [self._lines(image) for image in batch.images or ()]}

    def _lines(self, image: np.ndarray) -> InstanceSet:
        height, width = image.shape[:2]
        result: Any = self._read(np.ascontiguousarray(image[:, :, ::-1]))
        if result.boxes is None:
            return InstanceSet(np.zeros((0, 4), np.float32), [], scores=np.zeros(0, np.float32), texts=[])
        corners = np.asarray(result.boxes, np.float32) / np.array([width, height], np.float32)  # (lines, 4, xy)
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).clip(0, 1)
        scores = np.array(result.scores, np.float32)
        return InstanceSet(boxes, ["text"] * len(boxes), scores=scores, texts=list(result.txts))


def _onnx_file(folder: Path, part: str) -> str:
    found = sorted(folder.glob(f"*{part}*.onnx"))
    if len(found) != 1:
        raise CheckpointError(f"{folder}: there must be one file *{part}*.onnx, not {len(found)}; name another folder")
    return str(found[0])
