"""Captions by a model, for images to which the corpus has none: Florence-2 and BLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .caption import clean, own_caption
from .contract.kinds import Text
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .networks.extras import naming_extras
from .networks.hub import CheckpointError, load_model, load_processor, read_config
from .networks.state_dicts import seeded

DEFAULT_WEIGHTS = "florence-community/Florence-2-base"
FLORENCE, BLIP = "Florence2ForConditionalGeneration", "BlipForConditionalGeneration"
FLORENCE_TASKS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")


class CaptionerParams(BaseModel):
    """field: the corpus field whose caption is taken where there is one; null captions every image anew. prompt: for
    Florence-2 its task, <CAPTION> unless given, <DETAILED_CAPTION> or <MORE_DETAILED_CAPTION>; for BLIP how the caption
    is to begin. max_new_tokens: captions end there at the latest. num_beams: 1 takes the likeliest token each time."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    field: str | None = "caption"
    prompt: str | None = None
    max_new_tokens: int = Field(default=64, ge=1, le=512)
    num_beams: int = Field(default=1, ge=1, le=16)


class Captioner(Labeler):
    """The corpus' own caption where it has one, else one by Florence-2 or BLIP.

    `caption`: a text, cleaned as the corpus' own captions are; None where the model says nothing. Florence-2 (Xiao et
    al. 2023, arXiv 2311.06242) and BLIP (Li et al. 2022, arXiv 2201.12086) run in transformers, with the checkpoint's
    own processor, whose resize is torchvision's bicubic one, and its own generation settings but for those above.
    Nothing is sampled.
    """

    makes = (Modality("caption", Text()),)
    on = "image"
    weights = Weights(
        DEFAULT_WEIGHTS,
        "MIT",
        "https://huggingface.co/florence-community/Florence-2-base",
        others={"florence-community/Florence-2-*": "MIT", "Salesforce/blip-image-captioning-*": "BSD-3-Clause"},
    )
    resources = Resources(cpus=1.0, gpus=0.25, memory=3 * 2**30)  # estimated: 0.23 B parameters of 4 bytes, 768 px
    batch_size = 16
    autocast = "float16"
    Params: ClassVar[type[BaseModel]] = CaptionerParams

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        self._source = self.weights_path or DEFAULT_WEIGHTS
        config = {"architectures": [FLORENCE]} if self._source == DEFAULT_WEIGHTS else read_config(self._source)
        architecture = (config.get("architectures") or ["no architecture"])[0]
        if architecture not in (FLORENCE, BLIP):  # BLIP's other heads have the same tensors, and would say nonsense
            raise CheckpointError(f"{self._source}: a checkpoint of {architecture}, not of {FLORENCE} or {BLIP}")
        self._prompt = self.params.prompt
        if architecture == FLORENCE:
            self._prompt = self._prompt or FLORENCE_TASKS[0]
            if self._prompt not in FLORENCE_TASKS:
                raise ValueError(f"captioner: prompt {self._prompt!r} isn't one of Florence-2's {FLORENCE_TASKS}")

    def load(self, device: str) -> None:
        with naming_extras():
            import torchvision  # noqa: F401 - without it, transformers resizes by other means
            from transformers import AutoModelForImageTextToText, AutoProcessor
        self._device = device
        self._model = load_model(AutoModelForImageTextToText, self._source, device)
        self._processor = load_processor(AutoProcessor, self._source)

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        name = self.params.field
        captions = [None if name is None else own_caption(fields, name) for fields in batch.fields]
        bare = [index for index, caption in enumerate(captions) if caption is None]
        if bare:
            assert batch.images is not None
            for index, text in zip(bare, self._describe([batch.images[index] for index in bare]), strict=True):
                captions[index] = clean(text) or None
        return {"caption": captions}

    def _describe(self, images: Sequence[np.ndarray]) -> list[str]:
        """What the model says of each image. All have one size and one prompt by then, so that no input is padded."""
        import torch

        inputs = self._processor(
            images=[np.require(image, requirements="W") for image in images],  # torch warns of those it can't write to
            text=None if self._prompt is None else [self._prompt] * len(images),
            return_tensors="pt",
            input_data_format="channels_last",  # a guess would be wrong for images of 1 or 3 rows
            device=self._device,
        ).to(self._device)
        with torch.inference_mode():
            tokens = self._model.generate(
                **inputs,
                do_sample=False,
                num_beams=self.params.num_beams,
                max_new_tokens=self.params.max_new_tokens,
            )
        return self._processor.batch_decode(tokens, skip_special_tokens=True)

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        """A Florence-2 of 64 pixels, whose words are few; the prompt is spelled out byte by byte."""
        with naming_extras():
            import torch
            from tokenizers.pre_tokenizers import ByteLevel
            from transformers import (
                BartTokenizer,
                CLIPImageProcessor,
                Florence2Config,
                Florence2ForConditionalGeneration,
                Florence2Processor,
            )
        words = [
            f"\u0120{word}" for word in ("a", "cat", "dog", "is", "near", "of", "old", "person", "red", "the", "two")
        ]
        pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet()), *words]
        tokenizer: Any = BartTokenizer(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=[],
            extra_special_tokens={"image_token": "<image>"},
        )
        side = {"height": 64, "width": 64}
        images: Any = CLIPImageProcessor(size=side, crop_size=side, do_center_crop=False)
        images.image_seq_length = 1 + 2 * 2  # the mean and the last stage's grid
        Florence2Processor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
        ends = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
        heads = {f"{part}_{what}": count for part in ("encoder", "decoder") for what, count in _TINY_TEXT.items()}
        config = Florence2Config(
            text_config={"model_type": "bart", "vocab_size": len(tokenizer), "d_model": 32, **heads, **ends},
            vision_config={
                "depths": [1, 1, 1, 1],
                "embed_dim": [8, 16, 16, 32],
                "num_heads": [1, 2, 2, 4],
                "num_groups": [1, 2, 2, 4],
                "projection_dim": 32,
                "window_size": 4,
            },
            image_token_id=tokenizer.image_token_id,
        )
        with seeded():
            model = Florence2ForConditionalGeneration(config)
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:  # larger than usual, so that what is said depends on what is seen
                    torch.nn.init.normal_(parameter, std=0.16 * (8 if "encoder_attn" in name else 1))
        model.generation_config.no_repeat_ngram_size = 3
        unsaid = {*range(len(tokenizer))} - {*range(len(pieces) - len(words), len(pieces)), tokenizer.eos_token_id}
        model.generation_config.suppress_tokens = sorted(unsaid)
        model.save_pretrained(folder)
        return folder


_TINY_TEXT = {"layers": 1, "ffn_dim": 32, "attention_heads": 2}
