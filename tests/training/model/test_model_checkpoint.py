"""Models in folders: the published form read and written back, other modalities, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import load_torch_model
from safetensors.torch import load_file, save_file
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.training.model.checkpoint import MODEL, read_model, start_from, write_model
from tokenloom.training.model.config import ModalityConfig, ModelConfig
from tokenloom.training.model.fourm import FourM
from tokenloom.training.model.start import initialise

DEPTH = ModalityConfig("depth", "grid", 4, 8, grid=(2, 2), tokenizer="one")
GLOBAL = ModalityConfig("dinov2_global", "grid", 3, 5)
CAPTION = ModalityConfig("caption", "text", 12, 20)
PIXELS = ModalityConfig("pixels", "pixels", 4, grid=(2, 2), is_target=False)
VECTORS = ModalityConfig("t5_caption", "embeddings", 6, width=10, is_target=False)
SAID = ModalityConfig("edges", "grid", 4, 6, grid=(2, 2), is_input=False)


def small(*modalities: ModalityConfig, **more) -> ModelConfig:
    return ModelConfig(modalities, dim=16, encoder_depth=1, decoder_depth=1, num_heads=2, **more)


EVERYTHING = small(DEPTH, GLOBAL, CAPTION, PIXELS, VECTORS, SAID, num_register_tokens=2, qk_norm=True)


def drawn(config: ModelConfig, seed: int = 0) -> FourM:
    torch.manual_seed(seed)
    return initialise(FourM.empty(config))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(EVERYTHING, drawn(EVERYTHING).state_dict(), tmp_path / "model")
    return tmp_path / "model"


# --- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fourm", "fourm_tied"])
def test_a_published_one_is_read_and_written_back(shared, tmp_path, name):
    golden = shared / "golden" / name
    told = json.loads((golden / "config.json").read_text())
    given = tmp_path / "given"
    given.mkdir()
    shutil.copy(golden / MODEL, given / MODEL)
    (given / "config.json").write_text(json.dumps(told["hf_config"]))
    model = read_model(given)
    assert model.config.share_embedding == told["share_embedding"]
    forms = {"seq": {"text"}, "img": {"grid", "pixels"}}
    for one in model.config.modalities:
        facts = told["modalities"][one.name]
        assert one.form in forms[facts["type"]]
        assert (one.vocabulary or None) == facts["vocab_size"]
        assert one.length == (facts["max_length"] or facts["max_tokens"])
        assert (one.positions == "learned") == facts["learned_pos_emb"]
        assert (one.is_input, one.is_target) == (facts["input"], facts["target"])
    write_model(model.config, model.state_dict(), tmp_path / "back")
    assert json.loads((tmp_path / "back/config.json").read_text()) == told["hf_config"]
    back, stored = load_file(tmp_path / "back" / MODEL), load_file(golden / MODEL)
    assert back.keys() == stored.keys()
    assert all(torch.equal(back[key], stored[key]) for key in stored)


def test_what_is_written_is_read(folder):
    model = read_model(folder)
    assert model.config == EVERYTHING
    expected = drawn(EVERYTHING).state_dict()
    assert all(torch.equal(one, expected[name]) for name, one in model.state_dict().items())
    assert all(one.requires_grad for one in model.parameters())
    target = model.target_embedding("depth")
    assert target.to_logits.weight is target.token_emb.weight
    assert target.mod_emb is model.input_embedding("depth").mod_emb
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "modalities.json", MODEL]


def test_a_large_one_lies_in_several_files(folder, monkeypatch):
    """As transformers writes and reads them."""
    monkeypatch.setattr("tokenloom.training.model.files._LARGEST", 8000)
    several = folder.with_name("several")
    write_model(EVERYTHING, drawn(EVERYTHING).state_dict(), several)
    files = sorted(several.glob("model-*.safetensors"))
    names = [f"model-{at:05d}-of-{len(files):05d}.safetensors" for at in range(1, len(files) + 1)]
    assert [file.name for file in files] == names
    assert len(files) > 2
    for file in files:
        sizes = [one.nbytes for one in load_file(file).values()]
        assert sum(sizes) <= 8000 or len(sizes) == 1
    assert not (several / MODEL).exists()
    expected = read_model(folder).state_dict()
    model = read_model(several)
    assert all(torch.equal(one, expected[name]) for name, one in model.state_dict().items())
    theirs = drawn(EVERYTHING, 1)
    load_torch_model(theirs, several)
    assert all(torch.equal(one, expected[name]) for name, one in theirs.state_dict().items())
    index = several / f"{MODEL}.index.json"
    told = json.loads(index.read_text())
    where = told["weight_map"]
    for change, said in (
        ({**where, "stranger": names[0]}, f"{names[0]}: lacks stranger, and {MODEL}.index.json tells"),
        ({**where, "mask_token": names[-1]}, "mask_token, and"),
        ({**where, "mask_token": "../a.safetensors"}, r"index.json: field weight_map.mask_token: String should"),
        ({}, "index.json: field weight_map: Dictionary should have at least 1 item"),
    ):
        index.write_text(json.dumps({"weight_map": change}))
        with pytest.raises(CheckpointError, match=said):
            read_model(several)
    index.write_text(json.dumps(told))
    files[1].unlink()
    with pytest.raises(CheckpointError, match=f"{files[1].name}: no such file"):
        read_model(several)


def test_nothing_is_left_of_what_can_not_be_written(folder, monkeypatch):
    with pytest.raises(CheckpointError, match="is there already"):
        write_model(EVERYTHING, {}, folder)
    monkeypatch.setattr("tokenloom.training.model.checkpoint._sync", full_disk)
    with pytest.raises(CheckpointError, match=r"other: can't be written \(.*No space left.*\); nothing was left there"):
        write_model(EVERYTHING, drawn(EVERYTHING).state_dict(), folder.with_name("other"))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def full_disk(path: Path) -> None:
    raise OSError(28, "No space left on device")


# --- other modalities -------------------------------------------------------------------------------------------------


def test_other_modalities_begin_anew_and_are_named(folder):
    new = ModalityConfig("normal", "grid", 4, 8, grid=(2, 2))
    larger = replace(PIXELS, length=16, grid=(4, 4))
    said = replace(SAID, is_input=True)
    config = small(new, CAPTION, larger, said, num_register_tokens=2, qk_norm=True)
    model, fresh, given = drawn(config, 1), drawn(config, 1).state_dict(), read_model(folder).state_dict()
    start = start_from(model, folder)
    assert start.taken == {"caption": "caption", "pixels": "pixels", "edges": "edges"}
    assert start.new == ("encoder_embeddings.normal", "encoder_embeddings.edges", "decoder_embeddings.normal")
    assert start.left_out == ("depth", "dinov2_global", "t5_caption")
    given["encoder_embeddings.edges.mod_emb"] = given["decoder_embeddings.edges.mod_emb"]  # which are one tensor
    del given["encoder_embeddings.pixels.pos_emb"]
    for name, one in model.state_dict().items():
        assert torch.equal(one, given[name] if name in given else fresh[name]), name


def test_names_of_4m_and_names_that_are_given(folder):
    renamed = [replace(DEPTH, name="tok_depth@32"), replace(PIXELS, name="rgb@32"), replace(CAPTION, name="det")]
    given = small(*renamed)
    write_model(given, drawn(given).state_dict(), folder.with_name("4m"))
    model = drawn(small(DEPTH, CAPTION, PIXELS), 1)
    start = start_from(model, folder.with_name("4m"), {"caption": "det"})
    assert start.taken == {"depth": "tok_depth@32", "caption": "det", "pixels": "rgb@32"}
    assert (start.new, start.left_out) == ((), ())
    expected = drawn(given).target_embedding("det").token_emb.weight
    assert torch.equal(model.target_embedding("caption").token_emb.weight, expected)
    assert "encoder_embeddings.depth" in start_from(model, folder.with_name("4m"), {"depth": None}).new


@pytest.mark.parametrize(
    ("config", "called", "said"),
    [
        (small(replace(DEPTH, vocabulary=9)), {}, "vocabulary of depth is 8, and of the model's depth 9"),
        (small(replace(DEPTH, tokenizer="two")), {}, "tokenizer of depth is one, and of the model's depth two"),
        (small(replace(CAPTION, name="depth")), {}, "form of depth is grid, and of the model's depth text"),
        (small(DEPTH), {"depth": "caption2"}, "has no modality 'caption2'; it has depth, dinov2_global"),
        (small(DEPTH), {"normal": "depth"}, "'normal' is no modality of the model, which has depth"),
        (small(DEPTH), {}, r"has decoder\.0\.cross_attn\.k_norm\.bias, which the model lacks \(12 more so\)"),
        (
            ModelConfig((DEPTH,), 16, 2, 1, 2, num_register_tokens=2, qk_norm=True),
            {},
            r"lacks encoder\.1\.attn\.k_norm\.bias \(12 more so\)",
        ),
        (
            small(DEPTH, num_register_tokens=3, qk_norm=True),
            {},
            r"register_tokens is of shape \(1, 2, 16\), not \(1, 3, 16\)",
        ),
    ],
)
def test_what_a_model_can_not_start_from(folder, config, called, said):
    model, before = drawn(config, 1), drawn(config, 1).state_dict()
    with pytest.raises(CheckpointError, match=said):
        start_from(model, folder, called)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


# --- what is refused --------------------------------------------------------------------------------------------------


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / MODEL)
    change(tensors)
    save_file(tensors, folder / MODEL)


def retold(folder: Path, **fields) -> None:
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, **fields}))


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: changed(folder, lambda tensors: tensors.pop(name))


def put(name: str, tensor: torch.Tensor) -> Callable[[Path], None]:
    return lambda folder: changed(folder, lambda tensors: tensors.update({name: tensor}))


def cut(folder: Path) -> None:
    content = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(content[: len(content) // 2])


def pickled(folder: Path) -> None:
    torch.save({"encoder_norm.weight": torch.ones(16)}, folder / "checkpoint-499.pth")
    (folder / MODEL).unlink()


def disguised(folder: Path) -> None:
    torch.save({"encoder_norm.weight": torch.ones(16)}, folder / MODEL)


def retell_modalities(folder: Path, **fields) -> None:
    told = json.loads((folder / "modalities.json").read_text())
    told[0].update(fields)
    (folder / "modalities.json").write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lose("mask_token"), r"model\.safetensors: lacks mask_token; the model is another"),
        (put("stranger", torch.ones(2)), r"model\.safetensors: has stranger, which the model lacks"),
        (put("mask_token", torch.ones(1, 1, 8)), r"mask_token is of shape \(1, 1, 8\), not \(1, 1, 16\)"),
        (
            put("encoder_embeddings.depth.mod_emb", torch.ones(1, 1, 16)),
            r"decoder_embeddings\.depth\.mod_emb is another than encoder_embeddings\.depth\.mod_emb",
        ),
        (
            put("encoder_embeddings.normal.mod_emb", torch.ones(1, 1, 16)),
            r"model\.safetensors: encoder_embeddings has normal, which domains_in of config\.json lacks",
        ),
        (cut, r"model\.safetensors: isn't a whole checkpoint"),
        (disguised, r"model\.safetensors: isn't a whole checkpoint"),
        (pickled, r"has no model\.safetensors; checkpoint-499\.pth might run code, and isn't read"),
        (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: Invalid JSON"),
        (lambda folder: retold(folder, qkv_bias=True), r"config\.json: field qkv_bias: Input should be False"),
        (lambda folder: retold(folder, dim="wide"), r"config\.json: field dim: Input should be a valid integer"),
        (
            lambda folder: retold(folder, encoder_depth=10**9),
            r"config\.json: encoder_depth: 1000000000, and model\.safetensors has 1 blocks",
        ),
        (lambda folder: retold(folder, num_heads=3), r"config\.json: num_heads: 3 don't divide dim 16"),
        (
            lambda folder: retold(folder, domains_out=["depth", "semseg"]),
            r"config\.json: domains_out has semseg, which model\.safetensors lacks",
        ),
        (
            lambda folder: retell_modalities(folder, is_target=False),
            r"modalities\.json: is_target is true of caption, dinov2_global, edges, and in config\.json of .*, depth",
        ),
        (
            lambda folder: retell_modalities(folder, length=5),
            r"modalities\.json: field 0: depth: grid: \(2, 2\) aren't",
        ),
        (lambda folder: retell_modalities(folder, form="sound"), r"modalities\.json: field 0\.form: Input should be"),
        (
            lambda folder: retell_modalities(folder, vocabulary=10**15),
            r"depth\.to_logits\.weight is of shape \(8, 16\), not \(1000000000000000, 16\)",
        ),
        (
            lambda folder: [
                (folder / "modalities.json").unlink(),
                lose("encoder_embeddings.pixels.proj.weight")(folder),
            ],
            r"pixels has none of token_emb\.weight, proj\.weight, emb_proj\.weight",
        ),
        (lambda folder: shutil.rmtree(folder), "model: no such folder"),
    ],
)
def test_what_can_not_be_read_is_named(folder, damage, said):
    damage(folder)
    with pytest.raises(CheckpointError, match=said):
        read_model(folder)
