"""The weights that a model starts from."""

from __future__ import annotations

import torch
from torch import nn

from .blocks import Norm
from .embeddings import InputEmbedding, TargetEmbedding
from .fourm import FourM

_STD = 0.02
"""Of whatever is learned and is no matrix of a layer."""

_PARTS = {"qkv": 3, "kv": 2}
"""Matrices that lie one below the other in a layer of that name."""


@torch.no_grad()
def initialise(model: FourM, embedding_std: float = _STD) -> FourM:
    """Draws all weights from torch's generator, as 4M starts: Xavier's uniform for the layers, matrix by matrix, and
    normal numbers for embeddings. Fills the buffers too, so that a model may come from the meta device.

    embedding_std: deviation of the embeddings that no logits are tied to, of tokens as of modalities. Places are told
    by sines and cosines, whose deviation is 0.7: beside them 4M's 0.02 hides for thousands of steps what stands there.
    """
    drawn: list[torch.Tensor] = [model.mask_token]
    if model.config.num_register_tokens:
        drawn.append(model.register_tokens)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not name.endswith("to_logits"):
            for weight in module.weight.chunk(_PARTS.get(name.rpartition(".")[2], 1)):
                nn.init.xavier_uniform_(weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.Embedding):
            drawn.append(module.weight)
        elif isinstance(module, Norm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, InputEmbedding | TargetEmbedding):
            drawn.append(module.mod_emb)
            module.fill_sines()
            if isinstance(module.pos_emb, nn.Parameter):
                drawn.append(module.pos_emb)
    logits = {id(model.target_embedding(one.name).to_logits.weight) for one in model.config.targets}
    for one in drawn:
        nn.init.normal_(one, std=_STD if id(one) in logits else embedding_std)
    return model
