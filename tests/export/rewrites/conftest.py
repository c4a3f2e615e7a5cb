"""A transformer with a prime number of tokens, and what its graphs give by ONNX's own reference."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from edgessl.encoders import EncoderModule, build_encoder
from edgessl.export.calibrate import observe
from edgessl.export.graph import write_graph
from edgessl.export.graphs import Graphs, traced
from edgessl.export.placement import PLACEMENTS
from edgessl.export.quantize import quantized
from edgessl.export.split import Split, split_encoder
from edgessl.export.surgery import weights_of
from edgessl.signals import image_spec
from tests.export.conftest import smooth_frames
from tests.export.hand_graphs import inner

SIDE, TOKENS = 40, 101  # patches of 4 pixels and a class token: a prime


def vit(pool: str = "cls", tail: int = 1) -> EncoderModule:
    torch.manual_seed(5)
    encoder = build_encoder(
        "vit_micro", image_spec(SIDE, SIDE), dim=12, depth=3, heads=3, patch=4, pool=pool, tail=tail
    )
    with torch.no_grad():  # as drawn, its blocks change next to nothing
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return encoder.eval()


@pytest.fixture(scope="module", params=["cls", "mean", "cls+mean"])
def encoder(request: pytest.FixtureRequest) -> EncoderModule:
    return vit(request.param)


@pytest.fixture(scope="module")
def split(encoder: EncoderModule) -> Split:
    return split_encoder(encoder)


@pytest.fixture(scope="module")
def graphs(split: Split) -> Graphs:
    return traced(split)


@pytest.fixture(scope="module")
def plain(encoder: EncoderModule, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """The encoder as the exporter leaves it."""
    path = tmp_path_factory.mktemp("plain") / "encoder.onnx"
    prepared = split_encoder(encoder).encoder
    write_graph(prepared, (prepared.blank(2),), path, inputs=["frames"], outputs=["vectors"], dynamic=["frames"])
    return onnx.load(path)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    names = [entry.name for entry in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(None, feeds), strict=True))


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def multiplications(model: onnx.ModelProto, frames: np.ndarray) -> int:
    """Of all MatMuls, counted on what they give."""
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    names = {name for node in products for name in (node.input[0], node.output[0])} - set(weights_of(model))
    values = inner(model, sorted(names), frames=frames)
    return sum(values[node.output[0]].size * values[node.input[0]].shape[-1] for node in products)


FRAMES = smooth_frames(3, SIDE, SIDE, seed=4)


@pytest.fixture(scope="module")
def rounded(graphs: Graphs) -> onnx.ModelProto:
    """The encoder in int8, as OpenVINO gets it."""
    ranges = observe(graphs.encoder, smooth_frames(20, SIDE, SIDE))
    return quantized(graphs.encoder, ranges, PLACEMENTS["openvino"])
