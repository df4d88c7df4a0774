"""Open-vocabulary detection: boxes of things that are asked for by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from .contract.instances import InstanceSet
from .contract.kinds import Instances
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .det import to_instances
from .networks.extras import naming_extras
from .networks.hub import load_model, load_processor, read_config
from .networks.state_dicts import seeded
from .networks.whole_images import check_config, group_inputs

DEFAULT_WEIGHTS = "google/owlv2-base-patch16-ensemble"


class OpenDetParams(BaseModel):
    """labels: what to look for. prompt: what the model is asked, with {} for the label. threshold: instances that
    score less are dropped. max_instances: the best are kept, at most."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    labels: tuple[str, ...] = Field(
        default=("person", "animal", "vehicle", "building", "plant", "furniture", "food", "sign"), min_length=1
    )
    prompt: str = "a photo of a {}"
    threshold: float = Field(default=0.1, ge=0, le=1)
    max_instances: int = Field(default=100, ge=1, le=1000)

    @field_validator("labels")
    @classmethod
    def _distinct_words(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels) or not all(label.strip() for label in labels):
            raise ValueError("must be different words, none of them empty")
        return labels

    @field_validator("prompt")
    @classmethod
    def _has_place(cls, prompt: str) -> str:
        if prompt.count("{}") != 1:
            raise ValueError("must hold {} once, where the label goes")
        return prompt


class OpenDet(Labeler):
    """Boxes of whatever the recipe names, found by OWLv2 or OWL-ViT.

    `open_det`: Instances of the whole image, the best score first, labelled with the words of `labels`; each box has
    the one label that fits it best. Boxes are clipped to the image, and gone where they lie beside it, in the square
    that the model's processor pads it to. The labels are embedded once, at load. (Minderer et al. 2023,
    arXiv 2306.09683.)
    """

    makes = (Modality("open_det", Instances(scores=True)),)
    on = "image"
    weights = Weights(
        DEFAULT_WEIGHTS,
        "Apache-2.0",
        "https://huggingface.co/google/owlv2-base-patch16-ensemble",
        {"google/owlv2-*": "Apache-2.0", "google/owlvit-*": "Apache-2.0"},
    )
    resources = Resources(cpus=1.0, gpus=0.25, memory=1500 * 2**20)  # 155 M parameters, 3600 patches of 960 x 960
    batch_size = 8
    autocast = "float16"
    Params: ClassVar[type[BaseModel]] = OpenDetParams

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        self._source = self.weights_path or DEFAULT_WEIGHTS
        self._model_type = "owlv2"
        if self._source != DEFAULT_WEIGHTS:
            config, known = read_config(self._source), ("owlv2", "owlvit")
            self._model_type = check_config(self._source, config, known, "an open-vocabulary detector")

    def load(self, device: str) -> None:
        with naming_extras():
            from transformers import AutoImageProcessor, AutoModelForZeroShotObjectDetection, AutoTokenizer
        self._device = device
        self._processor = load_processor(AutoImageProcessor, self._source)
        if self._model_type == "owlv2":
            _quicken(self._processor)
        tokenizer = load_processor(AutoTokenizer, self._source)
        self._model = load_model(AutoModelForZeroShotObjectDetection, self._source, device)
        self._queries = self._embed(tokenizer)

    def _embed(self, tokenizer: Any) -> Any:
        """The labels as unit vectors (labels, dim), on the device."""
        import torch

        longest = self._model.config.text_config.max_position_embeddings
        prompts = [self.params.prompt.replace("{}", label) for label in self.params.labels]
        tokens = tokenizer(prompts, padding="max_length", max_length=longest, return_tensors=None)
        for prompt, ids in zip(prompts, tokens["input_ids"], strict=True):
            if len(ids) > longest:
                raise ValueError(f"open_det: {prompt!r} has {len(ids)} tokens; the model reads {longest} at most")
        inputs = {name: torch.tensor(tokens[name], device=self._device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            vectors = getattr(self._model, self._model_type).get_text_features(**inputs).pooler_output
            return vectors / torch.linalg.norm(vectors, dim=-1, keepdim=True)

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        import torch

        names = dict(enumerate(self.params.labels))
        images = [] if batch.images is None else list(batch.images)
        found: list[InstanceSet | None] = [None] * len(batch)
        for group in group_inputs(self._processor, images, self._device):
            with torch.inference_mode():
                outputs = self._detect(group.inputs["pixel_values"])
            results = self._processor.post_process_object_detection(
                outputs, threshold=self.params.threshold, target_sizes=group.sizes
            )
            for place, size, result in zip(group.places, group.sizes, results, strict=True):
                found[place] = to_instances(result, size, names, self.params.max_instances)
        return {"open_det": found}

    def _detect(self, pixels: Any) -> Any:
        """What the model's own forward pass gives, with the labels embedded already: logits and boxes."""
        features, _ = self._model.image_embedder(pixel_values=pixels)
        patches = features.flatten(1, 2)
        queries = self._queries.expand(len(pixels), -1, -1)
        logits, _ = self._model.class_predictor(patches, queries)
        boxes = self._model.box_predictor(patches, features)
        return SimpleNamespace(logits=logits.float(), pred_boxes=boxes.float())

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        """An OWLv2 of 16 channels with a tokenizer of single bytes, which finds a few things in a photograph."""
        import torch
        from tokenizers.pre_tokenizers import ByteLevel
        from transformers import CLIPTokenizer, Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor

        letters = sorted(ByteLevel.alphabet())  # "!" comes first, which pads
        tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
        layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        ids = {"pad_token_id": 0, "bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
        config = Owlv2Config(
            text_config={**layers, **ids, "vocab_size": len(tokens), "max_position_embeddings": 64},
            vision_config={**layers, "image_size": 384, "patch_size": 64},
            projection_dim=16,
        )
        with seeded():
            model: Any = Owlv2ForObjectDetection(config)
            torch.nn.init.normal_(model.class_head.dense0.weight, std=1)
            torch.nn.init.normal_(model.box_head.dense2.weight, std=0.3)
            torch.nn.init.normal_(model.class_head.logit_shift.weight, std=0.1)
            torch.nn.init.constant_(model.class_head.logit_shift.bias, -3)
        model.save_pretrained(folder)
        Owlv2ImageProcessor(size={"height": 384, "width": 384}).save_pretrained(folder)
        vocabulary = {token: index for index, token in enumerate(tokens)}
        CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="!", model_max_length=64).save_pretrained(folder)
        return folder


def _quicken(processor: Any) -> None:
    """Let OWLv2's processor blur an image along its rows and then its columns, rather than in two dimensions at once.

    Before it scales a large image down it blurs it with a Gaussian, whose cost grows with the square of the scale. The
    two ways differ by rounding alone.
    """
    plain = processor.resize

    def resize(image: Any, size: Any, **settings: Any) -> Any:
        return plain(_blurred(image, size), size, anti_aliasing=False, **settings)

    processor.resize = resize


def _blurred(images: Any, size: Any) -> Any:
    """Float images (batch, 3, height, width) under the Gaussian with which OWLv2's processor prepares for `size`."""
    from torchvision.transforms.v2.functional import gaussian_blur

    sigmas = [
        max(0.0, (old / new - 1) / 2) for old, new in zip(images.shape[2:], (size.height, size.width), strict=True)
    ]
    if 0 in sigmas:
        return images
    kernels = [2 * math.ceil(3 * sigma) + 1 for sigma in sigmas]
    along_rows = gaussian_blur(images, [kernels[0], 1], sigmas)
    return gaussian_blur(along_rows, [1, kernels[1]], sigmas)
