import io
import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenloom.labelers.captioner import Captioner, CaptionerParams
from tokenloom.labelers.contract.labeler import Batch
from tokenloom.labelers.networks.hub import CheckpointError


def write_blip(folder):
    """A tiny BLIP in the layout of Salesforce/blip-image-captioning-base."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    words = "a cat dog of on picture red sits stands the tree under".split()  # noqa: SIM905
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *words]
    tokenizer = BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, bos_token="[DEC]")
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 5, "pad_token_id": 0, "eos_token_id": 3, "sep_token_id": 3}
    config = BlipConfig(
        text_config={"vocab_size": len(pieces), "encoder_hidden_size": 32, **sizes, **ends},
        vision_config={"image_size": 32, "patch_size": 16, **sizes},
        projection_dim=16,
    )
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.16 * (8 if "crossattention" in name else 1))
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) for name in ("florence", "blip")}
    Captioner.write_tiny(folders["florence"])
    write_blip(folders["blip"])
    return {name: str(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module", params=["florence", "blip"])
def checkpoint(request, checkpoints):
    return checkpoints[request.param]


@pytest.fixture(scope="module")
def images(photos):
    """Whole photographs of different sizes."""
    return [np.asarray(Image.open(io.BytesIO(photo))) for photo in photos.values()]


def captioner(weights, **params):
    labeler = Captioner(CaptionerParams(**{"max_new_tokens": 12, **params}), weights)
    labeler.load("cpu")
    return labeler


def captions(labeler, images, fields=None):
    keys = [str(index) for index in range(len(images))]
    return list(labeler.label(Batch(keys, images, [], fields or [{}] * len(images)))["caption"])


def by_the_package(weights, image, prompt, **settings):
    """One caption as transformers' documentation makes it."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(weights)
    model: Any = AutoModelForImageTextToText.from_pretrained(weights).eval()
    inputs = processor(images=Image.fromarray(image), text=prompt, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=12, **settings)
    return processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()


@pytest.mark.slow
def test_equals_the_packages_processor_and_model_one_image_at_a_time(checkpoint, images):
    ours = captions(captioner(checkpoint), images)
    prompt = "<CAPTION>" if "florence" in checkpoint else None
    assert ours == [by_the_package(checkpoint, image, prompt) for image in images]
    assert len(set(ours)) > 2  # else a caption of another image would pass


@pytest.mark.slow
def test_beams_equal_the_packages(checkpoint, images):
    prompt = "<CAPTION>" if "florence" in checkpoint else None
    ours = captions(captioner(checkpoint, num_beams=3), images[:3])
    assert ours == [by_the_package(checkpoint, image, prompt, num_beams=3) for image in images[:3]]


@pytest.mark.slow
def test_prompts(checkpoints, images):
    detailed = captions(captioner(checkpoints["florence"], prompt="<DETAILED_CAPTION>"), images[:2])
    assert detailed == [by_the_package(checkpoints["florence"], image, "<DETAILED_CAPTION>") for image in images[:2]]
    assert detailed != captions(captioner(checkpoints["florence"]), images[:2])
    begun = captions(captioner(checkpoints["blip"], prompt="a picture of"), images[:2])
    assert begun == [by_the_package(checkpoints["blip"], image, "a picture of") for image in images[:2]]
    assert all(caption.startswith("a picture of ") for caption in begun)
    with pytest.raises(ValueError, match="'<OCR>' isn't one of Florence-2's"):
        captioner(checkpoints["florence"], prompt="<OCR>")


@pytest.mark.slow
def test_a_caption_does_not_depend_on_what_else_is_in_the_batch(checkpoint, images):
    labeler = captioner(checkpoint)
    together = captions(labeler, images)
    assert [captions(labeler, [image])[0] for image in images] == together
    assert captions(labeler, images[::-1]) == together[::-1]


def test_the_corpus_own_caption_is_taken_where_there_is_one(checkpoints, images, monkeypatch):
    labeler = captioner(checkpoints["blip"])
    made = captions(labeler, images[:3])
    seen = []
    describe = labeler._describe
    monkeypatch.setattr(labeler, "_describe", lambda images: seen.append(len(images)) or describe(images))
    fields = [{"caption": "A cat\nasleep "}, {"caption": "  "}, {}]
    assert captions(labeler, images[:3], fields) == ["A cat asleep", *made[1:]]
    assert captions(labeler, images[:1], fields[:1]) == ["A cat asleep"]
    assert seen == [2]
    assert captions(captioner(checkpoints["blip"], field=None), images[:1], fields[:1]) == made[:1]
    assert captions(captioner(checkpoints["blip"], field="alt"), images[:1], [{"alt": ["Asleep", "x"]}]) == ["Asleep"]


def test_images_of_any_shape_have_a_caption_or_none(checkpoint):
    shapes = [(1, 1), (1, 5000), (5000, 1), (3, 7), (40, 3)]
    labeler = captioner(checkpoint)
    for caption in captions(labeler, [np.zeros((*shape, 3), np.uint8) for shape in shapes]):
        assert caption is None or labeler.makes[0].kind.check(caption)


def test_a_model_that_says_nothing_gives_no_caption(checkpoints, images, monkeypatch):
    labeler = captioner(checkpoints["blip"])
    monkeypatch.setattr(labeler, "_describe", lambda images: [" \n"] * len(images))
    assert captions(labeler, images[:2]) == [None, None]


def test_a_checkpoint_of_half_precision(checkpoints, images, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(checkpoints["florence"], folder)
    half = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    labeler = captioner(str(folder))
    assert next(labeler._model.parameters()).dtype == torch.float32
    assert all(captions(labeler, images[:2]))


def test_other_checkpoints_are_refused(checkpoints, tmp_path):
    answering = tmp_path / "answering"
    shutil.copytree(checkpoints["blip"], answering)
    config = json.loads((answering / "config.json").read_text())
    (answering / "config.json").write_text(json.dumps({**config, "architectures": ["BlipForQuestionAnswering"]}))
    with pytest.raises(CheckpointError, match="BlipForQuestionAnswering, not of Florence2"):
        Captioner(weights=str(answering))

    short = tmp_path / "short"
    shutil.copytree(checkpoints["florence"], short)
    tensors = load_file(short / "model.safetensors")
    name = next(name for name in tensors if "decoder.layers.0.fc1.weight" in name)
    del tensors[name]
    save_file(tensors, short / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"decoder\.layers\.0\.fc1\.weight"):
        captioner(str(short))

    (short / "processor_config.json").unlink()
    shutil.copy(f"{checkpoints['florence']}/model.safetensors", short)
    with pytest.raises(CheckpointError, match="processor can't be read"):
        captioner(str(short))


def test_the_default_needs_no_weights_to_be_planned():
    labeler = Captioner()
    assert labeler.makes[0].kind.describe() == {"kind": "text"}
    assert labeler._prompt == "<CAPTION>"
    weights = Captioner.weights
    assert weights is not None
    assert weights.licence_of("Salesforce/blip-image-captioning-large") == "BSD-3-Clause"
    assert weights.licence_of("someone/captions") == "unknown"
