"""A transformer's tail that computes of its last block what the class token takes: a sixth of the block and its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgessl.encoders.base import unit_rows
from edgessl.encoders.pooling import TokenPool
from edgessl.export.split import Tail
from edgessl.vision import vision_module


class ClassTokenTail(Tail):
    """The same modules, under the same names, and the same vectors as the tail that it is made of.

    Keys and values are those of all tokens; queries, the product behind attention, and the perceptron are the class token's.
    """

    def __init__(self, tail: Tail, last: int) -> None:
        nn.Module.__init__(self)
        self.stages, self.pool, self.last = tail.stages, tail.pool, last
        self.train(tail.training)

    def forward(self, latents: Tensor) -> Tensor:
        """`(batch, tokens, channels)` -> `(batch, dim)`."""
        for stage in self.stages[: self.last]:
            latents = stage(latents)
        block: Any = self.stages[self.last]
        first = _first(latents)
        first = first + block.ls1(_attended(block.attn, block.norm1(latents)))
        first = first + block.ls2(block.mlp(block.norm2(first)))
        for stage in self.stages[self.last + 1 :]:
            first = stage(first)
        return unit_rows(self.pool(first))


def for_class_token(tail: Tail) -> Tail:
    """`tail`, or the one that computes less, where its pool takes the class token and its last block is a plain one of timm's."""
    transformer = vision_module("timm.models.vision_transformer")
    pool, last = tail.pool, len(tail.stages) - 1
    while last >= 0 and isinstance(tail.stages[last], nn.LayerNorm):  # which look at each token alone
        last -= 1
    if last < 0 or not (isinstance(pool, TokenPool) and pool.kind == "cls"):
        return tail
    block: Any = tail.stages[last]
    plain = type(block) is transformer.Block and type(block.attn) is transformer.Attention
    return ClassTokenTail(tail, last) if plain and not tail.training else tail


def _first(tokens: Tensor) -> Tensor:
    """The first token, `(batch, 1, channels)`. Split, not sliced: the gradient is a concatenation, which every engine has."""
    return torch.split(tokens, [1, tokens.shape[1] - 1], 1)[0]


def _attended(attention: Any, tokens: Tensor) -> Tensor:
    """What timm's `Attention` gives for the first of the tokens, `(batch, 1, channels)`."""
    batch, count, _ = tokens.shape
    heads, width = attention.num_heads, attention.head_dim
    weights = attention.qkv.weight.split([heads * width, 2 * heads * width])
    biases = (
        (None, None) if attention.qkv.bias is None else attention.qkv.bias.split([heads * width, 2 * heads * width])
    )
    query = functional.linear(_first(tokens), weights[0], biases[0]).reshape(batch, 1, heads, width).transpose(1, 2)
    both = functional.linear(tokens, weights[1], biases[1]).reshape(batch, count, 2, heads, width)
    key, value = both.permute(2, 0, 3, 1, 4).unbind(0)  # (batch, heads, tokens, width) each
    query, key = attention.q_norm(query), attention.k_norm(key)
    shares = ((query * attention.scale) @ key.transpose(-2, -1)).softmax(-1)
    found = attention.norm((shares @ value).transpose(1, 2).reshape(batch, 1, heads * width))
    if attention.gate is not None:
        found = found * attention.gate(_first(tokens)).sigmoid()
    return torch.as_tensor(attention.proj(found))
