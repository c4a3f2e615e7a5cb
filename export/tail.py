"""The tail as a graph whose weights keep their names, so that an engine can be given others when it opens it."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgessl.export.graph import write_graph
from edgessl.export.rewrites.narrow import narrowed
from edgessl.export.split import Split


def write_tail(split: Split, path: Path) -> None:
    """Write `tail.onnx`: `latents` -> `vectors`, with one initializer `weight.NAME` per weight.

    The weights are traced as inputs and made initializers afterwards. Traced as parameters, the exporter would
    transpose or merge some of them, and the names would no longer say what they hold.
    """
    weights = split.tail_weights()
    names = [f"weight.{name}" for name in weights]
    latents = torch.zeros(2, *split.latent)
    write_graph(
        _Tail(split, list(weights)),
        (latents, *weights.values()),
        path,
        inputs=["latents", *names],
        outputs=["vectors"],
        dynamic=["latents"],
        constants=dict(zip(names, weights.values(), strict=True)),
    )
    onnx.save(narrowed(onnx.load(path)), path)


class _Tail(nn.Module):
    def __init__(self, split: Split, names: list[str]) -> None:
        super().__init__()
        self.tail, self.names = split.tail, names

    def forward(self, latents: Tensor, *weights: Tensor) -> Tensor:
        vectors: Tensor = functional_call(self.tail, dict(zip(self.names, weights, strict=True)), (latents,))
        return vectors
