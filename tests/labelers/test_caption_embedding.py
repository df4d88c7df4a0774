import numpy as np
import pytest
import torch
from tokenloom.labelers.caption_embedding import CaptionEmbedding, CaptionEmbeddingParams
from tokenloom.labelers.contract.labeler import Batch
from tokenloom.pipeline.commands.demo_weights import minilm

CAPTIONS = [
    "A tabby cat looks into the camera.",
    "A kitten, close up.",
    "A rocket stands on its launch pad at dusk.",
    "",
    "naïve café 東京 🚀",
    "word " * 300,
]


def batch(captions):
    return Batch([str(i) for i in range(len(captions))], None, [], [{}] * len(captions), {"caption": captions})


@pytest.fixture(scope="module")
def labeler():
    labeler = CaptionEmbedding(weights=str(minilm()))
    labeler.load("cpu")
    return labeler


@pytest.fixture(scope="module")
def labels(labeler):
    return labeler.label(batch(CAPTIONS))


def test_equals_the_published_recipe_of_sentence_transformers(labels):
    """Padded batch, mean over the attention mask, length 1: as all-MiniLM-L6-v2's model card computes it."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(minilm()), AutoModel.from_pretrained(minilm()).eval()
    encoded = tokenizer(CAPTIONS, padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.inference_mode():
        states = model(**encoded).last_hidden_state
    mask = encoded["attention_mask"].unsqueeze(-1)
    expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()
    np.testing.assert_allclose(np.stack(labels["caption_embedding"]), expected, atol=1e-5)
    for sequence, state, length in zip(labels["caption_sequence"], states, mask.sum(1).flatten(), strict=True):
        assert len(sequence) == length
        np.testing.assert_allclose(sequence, state[:length].numpy(), atol=2e-3)


def test_alike_captions_lie_close(labels):
    cat, kitten, rocket = labels["caption_embedding"][:3]
    assert cat @ kitten > cat @ rocket + 0.2


def test_labels_are_of_their_kind_and_cut_to_the_length(labeler, labels):
    for modality in labeler.makes:
        for label in labels[modality.name]:
            modality.kind.check(label)
    assert [len(sequence) for sequence in labels["caption_sequence"]][3:] == [2, 7, 77]


def test_a_caption_is_embedded_alike_whatever_lies_beside_it(labeler, labels):
    for place, caption in enumerate(CAPTIONS):
        alone = labeler.label(batch([caption]))
        np.testing.assert_allclose(alone["caption_embedding"][0], labels["caption_embedding"][place], atol=1e-6)
        np.testing.assert_allclose(alone["caption_sequence"][0], labels["caption_sequence"][place], atol=2e-3)


def test_the_encoder_of_a_t5(tmp_path):
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    from tokenizers import Tokenizer

    config = T5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    torch.manual_seed(0)
    model = T5EncoderModel(config).eval()
    model.save_pretrained(tmp_path)
    words = Tokenizer(WordLevel({"<unk>": 0, "a": 1, "cat": 2}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(tmp_path)

    labeler = CaptionEmbedding(CaptionEmbeddingParams(max_length=2), str(tmp_path))
    assert labeler.makes[1].kind.describe() == {"kind": "embeddings", "dim": 16, "max_length": 2}
    labeler.load("cpu")
    labels = labeler.label(batch(["a cat", "", "cat a cat"]))
    with torch.inference_mode():
        expected = model(torch.tensor([[1, 2]])).last_hidden_state[0].numpy()
    np.testing.assert_allclose(labels["caption_sequence"][0], expected, atol=2e-3)
    assert labels["caption_sequence"][1] is None  # no token at all
    assert labels["caption_embedding"][1] is None
    assert len(labels["caption_sequence"][2]) == 2


def test_the_default_width_is_known_without_the_weights_and_random_ones_are_refused():
    assert CaptionEmbedding().makes[0].kind.describe() == {"kind": "vector", "dim": 384}
