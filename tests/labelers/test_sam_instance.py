import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tokenloom.labelers.contract.views import ViewSettings, cut_view
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.sam.checkpoint import build_sam
from tokenloom.labelers.sam.models import load_mask_model
from tokenloom.labelers.sam_instance import SamInstance, SamInstanceParams

amg = pytest.importorskip("segment_anything.utils.amg")

CPU = "cpu"
KIND = SamInstance.makes[0].kind


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(SamInstance.write_tiny(tmp_path_factory.mktemp("sam")))


@pytest.fixture(scope="module")
def sam2_weights(tmp_path_factory):
    """A folder with a tiny random SAM 2.1, as transformers writes it."""
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model, Sam2Processor
    from transformers.models.sam2.configuration_sam2 import (
        Sam2HieraDetConfig,
        Sam2MaskDecoderConfig,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    folder = tmp_path_factory.mktemp("sam2")
    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[256, 256],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 24, 32],
        num_attention_heads_per_stage=[1, 1, 1, 1],
        window_size_per_stage=[8, 4, 4, 4],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )
    config = Sam2Config(
        vision_config=Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[32, 24, 16, 8],
            backbone_feature_sizes=[[64, 64], [32, 32], [16, 16]],
            fpn_hidden_size=32,
        ),
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=32, image_size=256, mask_input_channels=4),
        mask_decoder_config=Sam2MaskDecoderConfig(
            hidden_size=32, mlp_dim=32, num_attention_heads=4, iou_head_hidden_dim=32
        ),
    )
    torch.manual_seed(0)
    model: Any = Sam2Model(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    for head in model.mask_decoder.output_hypernetworks_mlps:
        torch.nn.init.normal_(head.proj_out.weight, std=4)
    model.save_pretrained(folder)
    Sam2Processor(Sam2ImageProcessor(size={"height": 256, "width": 256})).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pictures():
    """Whole photographs of several shapes, small."""
    data = pytest.importorskip("skimage.data")
    whole = {name: getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
    return {
        "astronaut": np.ascontiguousarray(whole["astronaut"][::2, ::2]),
        "chelsea": np.ascontiguousarray(whole["chelsea"][::2, ::2]),
        "coffee": np.ascontiguousarray(whole["coffee"][:, 150:350]),
        "rocket": np.ascontiguousarray(whole["rocket"][::3, ::3]),
    }


def loaded(weights, **params):
    labeler = SamInstance(SamInstanceParams(**params), weights)
    labeler.load(CPU)
    return labeler


@pytest.fixture(scope="module")
def labeler(weights):
    return loaded(weights)


@pytest.fixture(scope="module")
def labels(labeler, pictures, batch_of):
    return dict(zip(pictures, labeler.label(batch_of(list(pictures.values())))["sam_instance"], strict=True))


def assert_same(found, expected):
    """Mask by mask in the same order: boxes within a pixel or so, masks but for single pixels at their border."""
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    np.testing.assert_allclose(found.attributes["point"], expected.attributes["point"], atol=1e-6)
    np.testing.assert_allclose(found.attributes["stability"], expected.attributes["stability"], atol=0.01)
    for one, other in zip(found.masks, expected.masks, strict=True):
        one, other = one.to_array(), other.to_array()
        assert (one & other).sum() >= 0.99 * (one | other).sum()


# --- equality with segment-anything -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("photo", ["astronaut", "coffee"])
def test_golden_masks(shared, batch_of, photo):
    """Tolerances as the reference data's README states them."""
    folder = shared / "golden" / "sam_amg"
    with np.load(folder / "io.npz") as arrays:
        golden = {name.removeprefix(f"{photo}."): arrays[name] for name in arrays.files if name.startswith(photo)}
    labeler = loaded(str(folder / "model.safetensors"), pred_iou_thresh=0.6892, stability_score_thresh=0.3928)
    image = golden["image"]
    height, width = image.shape[:2]
    (found,) = labeler.label(batch_of([image]))["sam_instance"]
    assert len(found) == len(golden["areas"]) == 16
    np.testing.assert_allclose(found.scores, golden["predicted_iou"], atol=1e-3)
    np.testing.assert_allclose(found.attributes["stability"], golden["stability_score"], atol=5e-3)
    np.testing.assert_allclose(found.attributes["point"] * [width, height], golden["point_coords"], atol=1e-3)
    boxes = found.boxes * [width, height, width, height]
    boxes[:, 2:] -= boxes[:, :2] + 1
    np.testing.assert_allclose(boxes, golden["boxes_xywh"], atol=2)
    masks = np.stack([mask.to_array() for mask in found.masks])
    expected = np.unpackbits(golden["masks_packed"], axis=-1, count=width).astype(bool)
    np.testing.assert_allclose(masks.sum((1, 2)), golden["areas"], rtol=0.01)
    assert ((masks & expected).sum((1, 2)) / (masks | expected).sum((1, 2))).min() >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"points_per_side": 16},
        {"points_per_side": 4, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2, "crop_nms_thresh": 0.5},
        {"stability_score_thresh": 0.8, "stability_score_offset": 3.0, "box_nms_thresh": 0.9, "pred_iou_thresh": 0.9},
        {"min_mask_region_area": 150, "stability_score_thresh": 0.8},
        {"pred_iou_thresh": 0.99},
    ],
    ids=["defaults", "16 points", "crops", "thresholds", "small regions", "none pass"],
)
def test_equals_segment_anythings_own_generator(weights, pictures, batch_of, params):
    images = [image for name, image in pictures.items() if params != {"points_per_side": 16} or name == "rocket"]
    ours, reference = (
        loaded(weights, backend=backend, **params).label(batch_of(images))["sam_instance"]
        for backend in ("tokenloom", "reference")
    )
    assert (sum(map(len, reference)) > 10) == (params.get("pred_iou_thresh") != 0.99)
    for found, expected in zip(ours, reference, strict=True):
        assert_same(found, expected)


def test_the_split_decoder_is_the_packages(weights, pictures):
    model: Any = load_mask_model(weights, CPU)
    image = pictures["chelsea"]
    points = np.random.default_rng(0).random((5, 2)) * image.shape[1::-1]
    wanted = torch.tensor([[1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1]], dtype=torch.bool)
    with torch.inference_mode():
        (seen,) = model.encode([image])
        prompts = model.prompts(points, *image.shape[:2])
        look = model.decoder.look(seen, prompts)
        drawn = model.decoder.draw(seen, look, wanted, 50, 64)
        network = model.network
        masks, quality = network.mask_decoder(
            (seen.x.T.view(1, 64, 16, 16) - network.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)),
            network.prompt_encoder.get_dense_pe(),
            prompts,
            network.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1).expand(5, -1, 16, 16),
            multimask_output=True,
        )
    torch.testing.assert_close(look.quality, quality, atol=1e-5, rtol=0)
    torch.testing.assert_close(drawn, masks[wanted][:, :50], atol=1e-5 * float(masks.abs().max()), rtol=1e-4)


# --- SAM 2 ------------------------------------------------------------------------------------------------------------


def sam2_masks_one_by_one(weights, image, params):
    """Sam2Model and Sam2Processor, one prompt at a time, and the reference's filters."""
    from torchvision.ops import batched_nms
    from transformers import Sam2Model, Sam2Processor

    model, processor = Sam2Model.from_pretrained(weights).eval(), Sam2Processor.from_pretrained(weights)
    kept = []
    for point in amg.build_point_grid(params.points_per_side) * image.shape[1::-1]:
        inputs = processor(images=image, input_points=[[[point.tolist()]]], input_labels=[[[1]]], return_tensors="pt")
        with torch.inference_mode():
            output = model(**inputs, multimask_output=True)
        (logits,) = processor.post_process_masks(output.pred_masks, inputs["original_sizes"], binarize=False)
        stability = amg.calculate_stability_score(logits[0], 0.0, params.stability_score_offset)
        for mask, quality, stable in zip(logits[0] > 0, output.iou_scores[0, 0], stability, strict=True):
            if quality > params.pred_iou_thresh and stable >= params.stability_score_thresh:
                kept.append((mask, quality, stable, point))
    masks, quality = torch.stack([one[0] for one in kept]), torch.stack([one[1] for one in kept])
    boxes = amg.batched_mask_to_box(masks)
    order = batched_nms(boxes.float(), quality, torch.zeros(len(boxes)), params.box_nms_thresh)
    return [kept[place] for place in order]


@pytest.mark.slow
def test_sam2_equals_transformers_one_prompt_at_a_time(sam2_weights, pictures, batch_of):
    params = {"points_per_side": 4, "pred_iou_thresh": 0.3, "stability_score_thresh": 0.3, "box_nms_thresh": 1.0}
    labeler = loaded(sam2_weights, **params)
    for image in (pictures["rocket"], pictures["coffee"]):
        (found,) = labeler.label(batch_of([image]))["sam_instance"]
        expected = sam2_masks_one_by_one(sam2_weights, image, labeler.params)
        assert len(found) == len(expected) >= 5
        for place, (mask, quality, stability, point) in enumerate(expected):
            assert found.scores[place] == pytest.approx(float(quality), abs=1e-4)
            assert found.attributes["stability"][place] == pytest.approx(float(stability), abs=0.01)
            np.testing.assert_allclose(found.attributes["point"][place] * image.shape[1::-1], point, atol=1e-3)
            drawn = found.masks[place].to_array()
            assert (drawn & mask.numpy()).sum() >= 0.99 * (drawn | mask.numpy()).sum()


def test_the_reference_cannot_run_sam2(sam2_weights):
    with pytest.raises(ValueError, match="`backend: reference` asks for, can't run"):
        loaded(sam2_weights, backend="reference")


# --- labels -----------------------------------------------------------------------------------------------------------


def test_labels_are_of_their_kind_and_there_are_some(labels):
    for found in labels.values():
        assert KIND.decode(KIND.encode(KIND.check(found))) == found
        assert len(found) > 1
        assert list(found.scores) == sorted(found.scores, reverse=True)


def test_boxes_are_the_masks(labels):
    for found in labels.values():
        for box, mask in zip(found.boxes, found.masks, strict=True):
            rows, columns = (np.flatnonzero(mask.to_array().any(axis=axis)) for axis in (1, 0))
            sides = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(box, np.divide(sides, [mask.width, mask.height] * 2), atol=1e-6)


@pytest.mark.slow
def test_a_label_does_not_depend_on_its_batch(labeler, labels, pictures, batch_of):
    for name, image in pictures.items():
        assert labeler.label(batch_of([image]))["sam_instance"][0] == labels[name]
    backwards = labeler.label(batch_of(list(pictures.values())[::-1]))["sam_instance"]
    assert backwards == list(labels.values())[::-1]


def test_encoding_several_images_at_once_changes_no_mask(weights, labels, pictures, batch_of):
    """As a GPU does; the encoder's last digits may move."""
    together = loaded(weights)
    together._model.images_at_once = None
    for found, expected in zip(
        together.label(batch_of(list(pictures.values())))["sam_instance"], labels.values(), strict=True
    ):
        assert_same(found, expected)


@pytest.mark.slow
def test_autocast_reaches_the_image_encoder_alone(shared, pictures, batch_of):
    """What follows stays float32, so that a half precise encoder changes few masks."""
    folder = shared / "golden" / "sam_amg"
    labeler = loaded(
        str(folder / "model.safetensors"), points_per_side=4, pred_iou_thresh=0.6892, stability_score_thresh=0.3928
    )
    batch = batch_of([pictures["coffee"]])
    (expected,) = labeler.label(batch)["sam_instance"]
    with torch.autocast(CPU, dtype=torch.bfloat16):
        (found,) = labeler.label(batch)["sam_instance"]
    drawn = [mask.to_array() for mask in found.masks]
    best = [
        max((mask & other).sum() / (mask | other).sum() for other in drawn)
        for mask in (mask.to_array() for mask in expected.masks)
    ]
    assert 0.9 < np.median(best) < 1


def test_few_instances_and_large_ones(weights, labels, pictures, batch_of):
    few = loaded(weights, max_instances=3).label(batch_of([pictures["chelsea"]]))["sam_instance"][0]
    assert few == labels["chelsea"].take(range(3))
    large = loaded(weights, min_box_area=0.05).label(batch_of([pictures["chelsea"]]))["sam_instance"][0]
    sides = labels["chelsea"].boxes[:, 2:] - labels["chelsea"].boxes[:, :2]
    kept = np.flatnonzero(sides.prod(axis=1) >= 0.05)
    assert 0 < len(kept) < len(sides)
    assert large == labels["chelsea"].take(kept)


def test_a_crop_shows_the_masks_where_they_are(labels, pictures):
    """Mirrored: a label's column is the one at the same distance from the other side."""
    found, image = labels["chelsea"], pictures["chelsea"]
    view = cut_view(0, "key", 0, image.shape[0], image.shape[1], ViewSettings(size=300))
    mirrored = replace(view, hflip=True)
    for one, other in zip(found.crop(view).masks, found.crop(mirrored).masks, strict=True):
        assert np.array_equal(one.to_array(), other.to_array()[:, ::-1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (2, 700)])
def test_odd_images(labeler, batch_of, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (found,) = labeler.label(batch_of([image]))["sam_instance"]
    KIND.check(found)
    assert all((mask.height, mask.width) == shape for mask in found.masks)


def test_no_images_at_all(labeler, batch_of):
    assert labeler.label(batch_of([])) == {"sam_instance": []}


# --- checkpoints ------------------------------------------------------------------------------------------------------


class Code:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_the_registrys_builder_makes_the_published_sizes(weights, monkeypatch):
    """A checkpoint of vit_b's width and depth goes through sam_model_registry, and must fit what that builds."""
    import segment_anything

    asked = []
    monkeypatch.setitem(
        segment_anything.sam_model_registry, "vit_b", lambda: asked.append("vit_b") or torch.nn.Linear(1, 1)
    )
    tensors = {f"image_encoder.blocks.{index}.norm1.bias": torch.zeros(1) for index in range(12)}
    tensors["image_encoder.pos_embed"] = torch.zeros(1, 64, 64, 768)
    with pytest.raises(CheckpointError, match=r"15 tensors don't fit Linear"):
        build_sam(tensors, "sam_vit_b.pth")
    assert asked == ["vit_b"]


def test_broken_checkpoints_are_refused(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = torch.load(weights, weights_only=True)

    def saved(name, content):
        torch.save(content, name)
        return name

    missing = {name: tensor for name, tensor in whole.items() if name != "mask_decoder.iou_token.weight"}
    with pytest.raises(CheckpointError, match=r"lacks\.pth: can't tell .*mask_decoder\.iou_token\.weight"):
        loaded(saved("lacks.pth", missing))
    missing = {name: tensor for name, tensor in whole.items() if "norm_final_attn.bias" not in name}
    with pytest.raises(CheckpointError, match=r"less\.pth: 1 tensors .*norm_final_attn\.bias"):
        loaded(saved("less.pth", missing))
    with pytest.raises(CheckpointError, match=r"more\.pth: 1 tensors .*unknown extra"):
        loaded(saved("more.pth", {**whole, "extra": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"other\.pth: not a checkpoint of segment-anything.*fc\.weight"):
        loaded(saved("other.pth", {"fc.weight": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=r"evil\.pth: holds more than tensors"):
        loaded(saved("evil.pth", {**whole, "x": Code()}))
    assert not (tmp_path / "ran").exists()
    with open(weights, "rb") as file:
        (tmp_path / "cut.pth").write_bytes(file.read()[:300_000])
    with pytest.raises(CheckpointError, match=r"cut\.pth: isn't a whole checkpoint"):
        loaded("cut.pth")
    with pytest.raises(CheckpointError, match=r"absent\.pth: no such file"):
        loaded("absent.pth")
    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    with pytest.raises(CheckpointError, match=r"'sam', not of SAM 2; .* segment-anything's \.pth"):
        loaded(str(tmp_path))


def test_weights_licences():
    weights = SamInstance.weights
    assert weights is not None
    assert weights.licence_of("/models/sam_vit_b_01ec64.pth") == "Apache-2.0"
    assert weights.licence_of("facebook/sam2.1-hiera-large") == "Apache-2.0"
    assert weights.licence_of("/models/my_own.pth") == "unknown"
