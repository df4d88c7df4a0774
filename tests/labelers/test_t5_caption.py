import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenloom.labelers.contract.labeler import Batch
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.t5_caption import T5Caption, T5CaptionParams

CAPTIONS = [
    "a tabby cat looks into the camera.",
    "a rocket, at dusk",
    "a cat",
    "the hat",
    "",
    "naïve 東京 🚀",
    "word " * 60,
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(T5Caption.write_tiny(tmp_path_factory.mktemp("t5")))


@pytest.fixture(scope="module")
def labeler(weights):
    labeler = T5Caption(weights=weights)
    labeler.load("cpu")
    return labeler


def sequences(labeler, captions):
    keys = [str(index) for index in range(len(captions))]
    return list(labeler.label(Batch(keys, None, [], [{}] * len(captions), {"caption": captions}))["t5_caption"])


def test_equals_the_packages_encoder_on_captions_padded_to_77_tokens(labeler, weights):
    from transformers import AutoTokenizer, T5EncoderModel

    tokenizer, model = AutoTokenizer.from_pretrained(weights), T5EncoderModel.from_pretrained(weights).eval()
    encoded = tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    with torch.inference_mode():
        states = model(**encoded).last_hidden_state.numpy()
    valid = encoded["attention_mask"].bool().numpy()
    assert set(valid.sum(axis=1)) >= {1, 77}
    for ours, theirs, mask in zip(sequences(labeler, CAPTIONS), states, valid, strict=True):
        assert labeler.makes[0].kind.check(ours) is ours
        np.testing.assert_allclose(ours, theirs[mask], atol=2e-3)  # float16 of numbers around 1


def test_the_end_token_stays_when_a_caption_is_cut(labeler, weights):
    short = T5Caption(T5CaptionParams(max_length=5), weights)
    short.load("cpu")
    assert short.makes[0].kind.describe() == {"kind": "embeddings", "dim": 32, "max_length": 5}
    assert [len(sequence) for sequence in sequences(short, CAPTIONS)] == [5, 5, 5, 5, 1, 5, 5]
    (cut,), (whole,) = sequences(short, ["a hats"]), sequences(labeler, ["a hat"])
    np.testing.assert_array_equal(cut, whole)  # a h a t </s>


def test_a_caption_is_embedded_alike_whatever_lies_beside_it(labeler):
    together = sequences(labeler, CAPTIONS)
    assert len(together[2]) == len(together[3]) - 2
    for caption, expected in zip(CAPTIONS, together, strict=True):
        np.testing.assert_allclose(sequences(labeler, [caption])[0], expected, atol=2e-3)
    again = sequences(labeler, CAPTIONS)
    assert all(np.array_equal(one, other) for one, other in zip(together, again, strict=True))


def test_a_checkpoint_in_several_files_of_half_precision(labeler, weights, tmp_path):
    from transformers import T5ForConditionalGeneration

    shutil.copytree(weights, tmp_path / "sharded")
    (tmp_path / "sharded/model.safetensors").unlink()
    model = T5ForConditionalGeneration.from_pretrained(weights, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 1
    sharded = T5Caption(weights=str(tmp_path / "sharded"))
    sharded.load("cpu")
    for ours, theirs in zip(sequences(sharded, CAPTIONS), sequences(labeler, CAPTIONS), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.1)  # the weights have lost 16 bits


def test_bfloat16_keeps_close(labeler):
    exact = sequences(labeler, CAPTIONS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = sequences(labeler, CAPTIONS)
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours.dtype == np.float16
        np.testing.assert_allclose(ours, theirs, atol=0.15)


def test_the_default_width_is_known_without_the_weights():
    assert T5Caption().makes[0].kind.describe() == {"kind": "embeddings", "dim": 4096, "max_length": 77}


def test_other_checkpoints_are_refused(weights, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 8}))
    with pytest.raises(CheckpointError, match="'bert', not of a T5"):
        T5Caption(weights=str(tmp_path))

    short = tmp_path / "short"
    shutil.copytree(weights, short)
    tensors = load_file(short / "model.safetensors")
    del tensors["encoder.block.1.layer.1.DenseReluDense.wo.weight"]
    save_file(tensors, short / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"encoder\.block\.1\.layer\.1\.DenseReluDense\.wo\.weight"):
        T5Caption(weights=str(short)).load("cpu")
