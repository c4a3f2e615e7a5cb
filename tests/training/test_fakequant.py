"""What is rounded in training is what the int8 graph rounds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnx.reference
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgessl.blocks.fakequant import FakeQuantized
from edgessl.blocks.folding import fold_batch_norms
from edgessl.blocks.rounding import rounded_activation, rounded_bias, rounded_weight
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import UnknownNameError
from edgessl.export.graph import write_graph
from edgessl.signals import image_spec

SIDE = 32


def _images(count: int = 12, seed: int = 0) -> Tensor:
    """With structure: noise alone spreads too little behind a pool."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, SIDE // 8, SIDE // 8, generator=generator)
    fine = torch.rand(count, 3, SIDE, SIDE, generator=generator)
    return (nn.functional.interpolate(coarse, SIDE, mode="bilinear") + 0.2 * fine).clamp(0, 1)


def _encoder(name: str, **options: Any) -> EncoderModule:
    torch.manual_seed(0)
    encoder = build_encoder(name, image_spec(SIDE, SIDE), **options)
    with torch.no_grad():
        for _ in range(5):  # statistics of its norms, as after a training
            encoder.train().features(_images(seed=1))
    return encoder.eval()


@pytest.mark.parametrize(("low", "high", "symmetric"), [(-0.7, 1.9, False), (0.0, 3.0, False), (-2.3, 2.3, True)])
def test_activations_are_rounded_as_the_onnx_operators_do(low: float, high: float, symmetric: bool) -> None:
    x = np.linspace(-4, 4, 1001, dtype=np.float32)
    scale = np.float32(high / 127 if symmetric else (high - low) / 255)
    zero = np.int8(0) if symmetric else np.uint8(np.round(-low / scale))
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> f (float[n] x, float s, %s z) => (float[n] y) {'
        " q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }" % ("int8" if symmetric else "uint8")
    )
    (wanted,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x, "s": scale, "z": np.asarray(zero)})
    got = rounded_activation(torch.from_numpy(x), torch.tensor(low), torch.tensor(high), symmetric=symmetric)
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-6)


def test_halves_are_rounded_to_even() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5])
    got = rounded_activation(x, torch.tensor(-127.0), torch.tensor(127.0), symmetric=True)
    assert got.tolist() == [0, 2, 2, 0, -2]


def test_weights_have_a_scale_per_output_channel() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype(np.float32) * np.array([1, 9, 0, 3, 2])[
        :, None, None, None
    ].astype(np.float32)
    scale = np.abs(weight).max((1, 2, 3), keepdims=True) / 127
    wanted = np.where(scale > 0, np.round(weight / np.where(scale > 0, scale, 1)) * scale, 0)
    given = torch.from_numpy(weight).requires_grad_()
    got = rounded_weight(given)
    np.testing.assert_allclose(got.detach().numpy(), wanted, atol=1e-6)
    got.sum().backward()
    assert given.grad is not None
    assert torch.equal(given.grad, torch.ones_like(given))


def test_biases_are_rounded_to_the_steps_of_the_sum() -> None:
    weight, bias = torch.tensor([[1.27, -0.2], [0.0, 0.0]]), torch.tensor([0.123456, 0.7])
    got = rounded_bias(bias, weight, torch.tensor(-1.0), torch.tensor(1.55))
    step = 0.01 * 0.01
    assert got.tolist() == pytest.approx([round(0.123456 / step) * step, 0.7], abs=1e-7)


@pytest.mark.parametrize("symmetric", [True, False])
def test_gradients_are_those_of_learned_steps(symmetric: bool) -> None:
    high = torch.tensor(1.27 if symmetric else 2.55, requires_grad=True)
    low = torch.tensor(0.0 if not symmetric else -1.27)
    x = torch.tensor([0.304, 0.108, 9.0], requires_grad=True)
    rounded_activation(x, low, high, symmetric=symmetric).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([1, 1, 0], abs=1e-6)
    # LSQ, equation 3: round(x/s) - x/s inside, the largest step outside; times ds/dhigh
    top = 127 if symmetric else 255
    wanted = ((30 - 30.4) + (11 - 10.8) + top) / top
    assert high.grad is not None
    assert high.grad.item() == pytest.approx(wanted, abs=1e-4)


def _int8_vectors(
    encoder: EncoderModule, ranges: dict[str, tuple[float, float]], frames: NDArray[Any], folder: Path, placement: str
) -> NDArray[Any]:
    """Vectors of the graph that onnxruntime's quantizer makes with these ranges; other values are observed here."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationMethod, QuantType, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    from edgessl.export.placement import PLACEMENTS, options_of

    folded = copy.deepcopy(encoder).eval().requires_grad_(False)
    example = torch.from_numpy(frames[:2])
    fold_batch_norms(folded, lambda: folded(example))
    write_graph(folded, (example,), folder / "f.onnx", inputs=["frames"], outputs=["vectors"], dynamic=["frames"])
    model = onnx.load(folder / "f.onnx")
    seen = _observed(model, frames)
    weights = {entry.name for entry in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    used = set()
    products = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul") and n.input[1] in weights]
    inputs = [key for key in ranges if key.startswith("input.")]  # in the order in which the encoder calls them
    for node, key in zip(products, inputs, strict=True):
        assert node.op_type == "MatMul" or f"{key[6:]}.weight" in node.input[1]
        used.add(key)
        seen[node.input[0]] = ranges[key]
        out = f"output.{key[6:]}"
        if out in ranges:
            used.add(out)
            after = readers[node.output[0]]
            fused = len(after) == 1 and after[0].op_type == "Relu"
            seen[after[0].output[0] if fused else node.output[0]] = ranges[out]
    assert used == set(ranges)  # every range has a place in the graph
    chosen = options_of(PLACEMENTS[placement], model)
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        tensors_range=TensorsData(
            CalibrationMethod.MinMax,
            {n: TensorData(lowest=np.float32(low), highest=np.float32(high)) for n, (low, high) in seen.items()},
        ),
        nodes_to_quantize=[],
        nodes_to_exclude=[
            n.name for n in model.graph.node if n.op_type in ("Gemm", "MatMul") and n.input[1] not in weights
        ],
        **chosen,
    )
    quantizer.quantize_model()
    quantizer.model.model.ir_version = 10
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(quantizer.model.model.SerializeToString(), options)
    return np.asarray(session.run(None, {"frames": frames})[0])


def _observed(model: onnx.ModelProto, frames: NDArray[Any]) -> dict[str, tuple[float, float]]:
    import onnxruntime

    full = copy.deepcopy(model)
    typed = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    floats = [name for name, value in typed.items() if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    full.graph.output.extend([typed[name] for name in floats])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(full.SerializeToString(), options)
    values = session.run(floats, {"frames": frames})
    return {name: (min(0.0, float(v.min())), max(0.0, float(v.max()))) for name, v in zip(floats, values, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "placement", "options"),
    [
        ("conv_small", "onnxruntime", {"widths": (8, 12, 20), "dim": 9}),
        ("res_small", "onnxruntime", {"widths": (8, 12), "dim": 9}),
        ("res_small", "symmetric", {"widths": (8, 12), "dim": 9}),
        ("vit_micro", "symmetric", {"dim": 24, "depth": 2, "heads": 2}),
    ],
)
def test_the_int8_graph_gives_what_training_saw(
    tmp_path: Path, name: str, placement: str, options: dict[str, Any]
) -> None:
    encoder = _encoder(name, **options)
    frames = (_images() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    images = encoder.prepare(frames)
    rounded = FakeQuantized(encoder, placement, [images])
    with torch.no_grad():
        # Other ranges than calibration would find: narrower ones, as learning makes them.
        rounded.high_growth -= 0.03
        rounded.low_growth -= 0.02
        trained = nn.functional.normalize(rounded(images), dim=1).numpy()
        exact = encoder(frames).numpy()
    exported = _int8_vectors(encoder, rounded.ranges(), frames.numpy(), tmp_path, placement)
    apart = 1 - (trained * exported).sum(1)
    assert (1 - (exact * exported).sum(1)).mean() > 20 * abs(apart).mean()
    assert apart.max() < 1e-3


@pytest.mark.parametrize(
    ("name", "placement"), [("conv_small", "onnxruntime"), ("res_small", "symmetric"), ("vit_micro", "symmetric")]
)
def test_the_encoder_itself_is_not_touched(name: str, placement: str) -> None:
    encoder, images = _encoder(name), _images()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with torch.no_grad():
        wanted = encoder.features(images)
        rounded = FakeQuantized(encoder, "auto", [images])
        near = rounded(images)
        assert torch.equal(encoder.features(images), wanted)
    assert rounded.placement == ("onnxruntime" if name != "vit_micro" else "symmetric")
    assert 0 < (near - wanted).abs().max() < 0.2 * wanted.abs().max()
    assert list(encoder.state_dict()) == list(before)
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())
    assert not {id(p) for p in encoder.parameters()} & {id(p) for p in rounded.parameters()}


def test_gradients_reach_every_parameter_and_bound() -> None:
    encoder, images = _encoder("conv_small", widths=(8, 12, 20), dim=9), _images()
    rounded = FakeQuantized(encoder, "onnxruntime", [images])
    rounded(images).square().sum().backward()
    for name, parameter in [*encoder.named_parameters(), *rounded.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_ranges_are_those_of_the_folded_values() -> None:
    encoder, images = _encoder("conv_small", widths=(8, 12), dim=9), _images()
    ranges = FakeQuantized(encoder, "onnxruntime", [images[:5], images[5:]]).ranges()
    with torch.no_grad():
        first = encoder.normalize(images)
        second = torch.relu(encoder.stages[0](first))
        third = torch.relu(encoder.stages[1](second))
        pooled = third.mean((2, 3))
    wanted = {
        "input.stages.0.0": first,
        "output.stages.0.0": second,  # behind its ReLU
        "input.stages.1.1": second,
        "output.stages.1.1": third,
        "input.pool.project": pooled,
    }
    assert set(ranges) == set(wanted)
    for name, value in wanted.items():
        assert ranges[name] == pytest.approx((min(0, value.min().item()), value.max().item()), abs=1e-5), name


class _Net(EncoderModule):
    """One stage with a rule of its own."""

    def __init__(self, rule: Callable[[nn.Module, Tensor], Tensor]) -> None:
        stage = nn.Conv2d(3, 4, 3, bias=False)
        super().__init__(
            image_spec(SIDE, SIDE), [stage], nn.Flatten(), dim=4, channels=[4], channel_axis=1, cut=1, ports=[]
        )
        self.rule = rule

    def features(self, images: Tensor) -> Tensor:
        return self.rule(self.stages[0], self.normalize(images)).mean((2, 3))


def test_an_output_with_two_readers_is_rounded_before_its_relu() -> None:
    def rule(conv: nn.Module, x: Tensor) -> Tensor:
        y = conv(x)
        return torch.relu(y) + y

    assert FakeQuantized(_Net(rule).eval(), "onnxruntime", [_images()]).ranges()["output.stages.0"][0] < 0


def test_activations_in_place_are_rounded_again() -> None:
    def rule(conv: nn.Module, x: Tensor) -> Tensor:
        y = nn.functional.hardswish(conv(x), inplace=True)
        return conv(y[:, :3])

    net = _Net(rule).eval()
    rounded = FakeQuantized(net, "onnxruntime", [_images()])
    low, high = rounded.ranges()["input.stages.0"]
    assert low < -0.3
    assert high > 1
    assert torch.isfinite(rounded(_images())).all()


def test_a_placement_that_does_not_exist() -> None:
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        FakeQuantized(_encoder("conv_small"), "tensorflow", [_images()])
