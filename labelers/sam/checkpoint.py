"""segment-anything's networks from their tensors, of any size, and a tiny one to try things with."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..networks.extras import naming_extras
from ..networks.hub import CheckpointError
from ..networks.state_dicts import fill, seeded

_STOCK = {(1280, 32): "vit_h", (1024, 24): "vit_l", (768, 12): "vit_b"}
_DECODER_HEADS = 8
_PARTS = ("image_encoder.", "prompt_encoder.", "mask_decoder.")


def build_sam(tensors: Mapping[str, Any], weights: str) -> Any:
    """segment-anything's Sam of the sizes that `tensors` have, filled with them. weights: named in errors.

    The three published sizes come from the package's registry. Raises CheckpointError for another network's tensors.
    """
    with naming_extras():
        from segment_anything import sam_model_registry
    known = {name: tensor for name, tensor in tensors.items() if name.startswith(_PARTS)}
    if not known:
        example = f", for example {next(iter(tensors))}" if tensors else ""
        raise CheckpointError(
            f"{weights}: not a checkpoint of segment-anything: no image_encoder, but {len(tensors)} "
            f"other tensors{example}"
        )
    try:
        position = tensors["image_encoder.pos_embed"]
        stock = _STOCK.get((position.shape[-1], _count(tensors, "image_encoder.blocks")))
        with seeded():
            network = sam_model_registry[stock]() if stock else _sam_of_sizes(tensors)
    except (KeyError, IndexError, ZeroDivisionError, AssertionError, RuntimeError) as error:
        raise CheckpointError(
            f"{weights}: can't tell the network's sizes ({type(error).__name__}: {error}); is it whole, and of "
            f"segment-anything?"
        ) from error
    return fill(network, dict(tensors), weights)


def _sam_of_sizes(tensors: Mapping[str, Any]) -> Any:
    """A Sam as the registry builds it, of other sizes. No shape tells the decoder's heads: they are 8, as published."""
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
    from torch.nn import LayerNorm

    def shape(name: str) -> Sequence[int]:
        return tensors[name].shape

    _, grid, _, embed_dim = shape("image_encoder.pos_embed")
    patch = shape("image_encoder.patch_embed.proj.weight")[-1]
    depth = _count(tensors, "image_encoder.blocks")
    reach = [shape(f"image_encoder.blocks.{index}.attn.rel_pos_h")[0] for index in range(depth)]
    windows = [length for length in reach if length != 2 * grid - 1]
    width = shape("mask_decoder.iou_token.weight")[1]
    return Sam(
        ImageEncoderViT(
            img_size=grid * patch,
            patch_size=patch,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=embed_dim // shape("image_encoder.blocks.0.attn.rel_pos_h")[1],
            mlp_ratio=shape("image_encoder.blocks.0.mlp.lin1.weight")[0] / embed_dim,
            out_chans=shape("image_encoder.neck.0.weight")[0],
            norm_layer=functools.partial(LayerNorm, eps=1e-6),  # type: ignore[arg-type]
            use_rel_pos=True,
            window_size=(windows[0] + 1) // 2 if windows else 0,
            global_attn_indexes=tuple(index for index, length in enumerate(reach) if length == 2 * grid - 1),
        ),
        PromptEncoder(
            embed_dim=width,
            image_embedding_size=(grid, grid),
            input_image_size=(grid * patch, grid * patch),
            mask_in_chans=shape("prompt_encoder.mask_downscaling.3.weight")[0],
        ),
        MaskDecoder(
            transformer_dim=width,
            transformer=TwoWayTransformer(
                depth=_count(tensors, "mask_decoder.transformer.layers"),
                embedding_dim=width,
                num_heads=_DECODER_HEADS,
                mlp_dim=shape("mask_decoder.transformer.layers.0.mlp.lin1.weight")[0],
            ),
            num_multimask_outputs=shape("mask_decoder.mask_tokens.weight")[0] - 1,
            iou_head_depth=_count(tensors, "mask_decoder.iou_prediction_head.layers"),
            iou_head_hidden_dim=shape("mask_decoder.iou_prediction_head.layers.0.weight")[0],
        ),
    )


def _count(tensors: Mapping[str, Any], prefix: str) -> int:
    """How many numbered modules there are under `prefix`."""
    places = prefix.count(".") + 1
    return len({name.split(".")[places] for name in tensors if name.startswith(f"{prefix}.")})


def write_tiny_sam(folder: Path) -> Path:
    """Writes sam_tiny.pth, a Sam of 256 x 256 pixels and 64 channels, and returns its path.

    Its weights are random but for those that make masks of photographs pass the usual filters, see `_fit_blobs`.
    """
    with naming_extras():
        import torch
        from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
    with seeded(), torch.no_grad():
        network = Sam(
            ImageEncoderViT(
                img_size=256,
                patch_size=16,
                embed_dim=32,
                depth=2,
                num_heads=2,
                mlp_ratio=2,
                out_chans=64,
                norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),  # type: ignore[arg-type]
                use_rel_pos=True,
                window_size=7,
                global_attn_indexes=(1,),
            ),
            PromptEncoder(64, (16, 16), (256, 256), mask_in_chans=4),
            MaskDecoder(
                transformer_dim=64,
                transformer=TwoWayTransformer(depth=2, embedding_dim=64, num_heads=_DECODER_HEADS, mlp_dim=64),
                iou_head_hidden_dim=32,
            ),
        ).eval()
        _fit_blobs(network)
    path = folder / "sam_tiny.pth"
    torch.save(network.state_dict(), path)
    return path


def _fit_blobs(network: Any) -> None:
    """Makes the masks of a random network blobs around the prompt's point, of three sizes, disturbed by the image.

    The last layer of a mask's brush is fitted by least squares to logits that fall with the distance from the point, on
    images of random colours; an image token tells its place and mean colour, and predicted IoUs lie around 0.9.
    """
    import torch

    encoder, prompt_encoder, decoder = network.image_encoder, network.prompt_encoder, network.mask_decoder
    position = prompt_encoder.get_dense_pe()
    encoder.pos_embed.copy_(position[:, ::2].permute(0, 2, 3, 1) * 0.3)
    for convolution in (encoder.patch_embed.proj, encoder.neck[2]):
        convolution.weight.copy_(convolution.weight.mean(dim=(2, 3), keepdim=True).expand_as(convolution.weight))
    for convolution in (decoder.output_upscaling[0], decoder.output_upscaling[3]):
        convolution.weight.copy_(convolution.weight[..., :1, :1].expand_as(convolution.weight))
    quality = decoder.iou_prediction_head.layers[-1]
    quality.weight.mul_(0.3)
    quality.bias.fill_(0.9)
    for token in (decoder.iou_token, decoder.mask_tokens, prompt_encoder.not_a_point_embed):
        token.weight.mul_(0.2)

    centres = (torch.arange(16) + 0.5) / 16
    places = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1).view(-1, 2)
    points = torch.rand(64, 2)
    prompts = prompt_encoder((points[:, None] * 256, torch.ones(64, 1)), None, None)[0]
    tokens = torch.cat([t.weight.expand(64, -1, -1) for t in (decoder.iou_token, decoder.mask_tokens)] + [prompts], 1)
    images = torch.nn.functional.interpolate(torch.randn(4, 3, 8, 8), (256, 256), mode="bilinear")
    seen = encoder(images).repeat(16, 1, 1, 1) + prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
    out, image = decoder.transformer(seen, position.expand(64, -1, -1, -1), tokens)
    features = decoder.output_upscaling(image.transpose(1, 2).unflatten(2, (16, 16)))[..., ::4, ::4].flatten(2)
    distance = torch.cdist(points, places)
    for head, token, radius in zip(
        decoder.output_hypernetworks_mlps, out[:, 1:5].unbind(1), (0.2, 0.3, 0.2, 0.12), strict=True
    ):
        hidden = torch.relu(head.layers[1](torch.relu(head.layers[0](token))))
        hidden = torch.cat([hidden, torch.ones(64, 1)], dim=1)
        design = torch.einsum("pfx,ph->pxfh", features, hidden).flatten(0, 1).flatten(1)
        target = 400 * (radius - distance).clamp(-0.3).div(0.3).flatten()[:, None]
        gram = design.T @ design
        fitted = torch.linalg.solve(gram + 1e-4 * gram.diagonal().mean() * torch.eye(len(gram)), design.T @ target)
        fitted = fitted.view(len(features[0]), -1)
        head.layers[-1].weight.copy_(fitted[:, :-1])
        head.layers[-1].bias.copy_(fitted[:, -1])
