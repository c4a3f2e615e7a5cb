"""A bundle small enough to read, made by hand from ONNX operators: two convolutions with ports, and a linear tail.

python tests/runtimes/tiny_bundle.py OUTPUT.edgessl
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from edgessl.bundle import Kind, write_manifest
from edgessl.runtimes.spectrum import frame_spectra
from edgessl.signals import image_spec

HEIGHT, WIDTH, CHANNELS, DIM = 12, 10, (5, 7), 6
LATENT = (CHANNELS[1], 3, 3)
BATCH, ANCHORS = 6, 5
FLAT = int(np.prod(LATENT))


def scenes(count: int, seed: int, gain: float = 1.0) -> np.ndarray:
    """Frames `(count, 12, 10, 3)` that differ in colour and in the direction of their light."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(-1, 1, HEIGHT), np.linspace(-1, 1, WIDTH), indexing="ij")
    tilt = rng.normal(0, 0.15, (2, count, 1, 1, 3))
    light = 0.5 + rng.normal(0, 0.12, (count, 1, 1, 3)) + tilt[0] * x[..., None] + tilt[1] * y[..., None]
    light += rng.normal(0, 0.03, (count, HEIGHT, WIDTH, 3))
    return (light * gain * 255).clip(0, 255).astype(np.uint8)


def write_tiny_bundle(path: Path) -> Path:
    """Write the bundle, with statistics of 256 scenes."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(7)
    kernels = [
        rng.normal(0, 0.35, (CHANNELS[0], 3, 3, 3)).astype(np.float32),
        rng.normal(0, 0.2, (CHANNELS[1], CHANNELS[0], 3, 3)).astype(np.float32),
    ]
    weights = {
        "weight.project": rng.normal(0, 0.3, (FLAT, DIM)).astype(np.float32),
        "weight.bias": rng.normal(0, 0.1, DIM).astype(np.float32),
    }
    rounded = [np.rint(k / np.abs(k).max() * 127) * np.abs(k).max() / np.float32(127) for k in kernels]
    for precision, used in (("fp32", kernels), ("int8", rounded)):
        _save(_trunk(used), path / f"trunk.{precision}.onnx")
        _save(_encoder(used, weights), path / f"encoder{'.int8' if precision == 'int8' else ''}.onnx")
    _save(_tail(weights), path / "tail.onnx")
    _save(_step(weights), path / "step.onnx")
    save_file(weights, path / "tail.safetensors")
    day = scenes(256, seed=1)
    save_file(_source(path, day), path / "source.safetensors")
    golden = np.ascontiguousarray(day[::11])
    save_file(
        {"samples": golden, "vectors": _run(path / "encoder.onnx", frames=golden)["vectors"]},
        path / "golden.safetensors",
    )
    roles = {
        "encoder.onnx": Kind("encoder", "fp32"),
        "encoder.int8.onnx": Kind("encoder", "int8"),
        "trunk.fp32.onnx": Kind("trunk", "fp32"),
        "trunk.int8.onnx": Kind("trunk", "int8"),
        "tail.onnx": Kind("tail", "fp32"),
        "step.onnx": Kind("step", "fp32"),
        "tail.safetensors": Kind("weights"),
        "source.safetensors": Kind("source"),
        "golden.safetensors": Kind("golden"),
    }
    ports = [{"stage": stage, "channels": channels} for stage, channels in enumerate(CHANNELS)]
    graphs = [name for name, kind in roles.items() if kind.role in ("encoder", "trunk")]
    first = {"weight": "kernel0", "scale": "", "bias": "offset0", "steps": "", "units": [1.0, 1.0, 1.0]}
    stem = {"node": "", "kernel": [3, 3], "prepare": ["mean", "std"], "constants": dict.fromkeys(graphs, first)}
    knobs = {"lr": 0.01, "momentum": 0.9, "pull": 1e-3, "clip": 1.0}
    facts = {
        "name": "tiny",
        "space_id": "tiny-6",
        "dim": DIM,
        "input": image_spec(HEIGHT, WIDTH).to_json(),
        "split": {"latent": list(LATENT), "channel_axis": 1, "cut": 2, "ports": ports, "stem": stem},
        "step": {"batch": BATCH, "anchors": ANCHORS, "objective": "align", "terms": ["align"], **knobs},
        "parity": {},
    }
    write_manifest(path, roles, facts)
    return path


def _source(path: Path, day: np.ndarray) -> dict[str, np.ndarray]:
    ports = {}
    for index, channels in enumerate(CHANNELS):
        ports |= {
            f"port{index}.scale": np.ones(channels, np.float32),
            f"port{index}.shift": np.zeros(channels, np.float32),
        }
    out = _run(path / "trunk.int8.onnx", frames=day, **ports)
    vectors = _run(path / "tail.onnx", latents=out["latents"])["vectors"]
    source = {
        "embedding.mean": vectors.mean(0),
        "embedding.var": vectors.var(0),
        "embedding.covariance": np.cov(vectors, rowvar=False, bias=True),
    }
    for index in range(len(CHANNELS)):
        mean = out[f"port{index}.mean"].mean(0)
        source[f"port{index}.mean"] = mean
        source[f"port{index}.var"] = out[f"port{index}.square"].mean(0) - mean**2
    spread = np.sqrt(np.maximum(out["port0.square"] - out["port0.mean"] ** 2, 1e-8))
    statistic = np.concatenate([out["port0.mean"], np.log(spread)], axis=1)
    values, axes = np.linalg.eigh(np.cov(statistic, rowvar=False) + 1e-4 * np.eye(statistic.shape[1]))
    whiten = (axes / np.sqrt(values)).T
    bank = (statistic - statistic.mean(0)) @ whiten.T
    apart = np.abs(np.subtract.outer(np.arange(len(bank)), np.arange(len(bank)))) > 5
    distance = np.where(apart, ((bank[:, None] - bank[None]) ** 2).sum(2), np.inf)
    moved = bank - bank[distance.argmin(1)]
    windows = (moved.reshape(-1, 32, moved.shape[1]).mean(1) ** 2).mean(1)
    scale = np.abs(out["latents"]).max((0, 2, 3)) / 127
    source |= {
        "drift.mean": statistic.mean(0),
        "drift.whiten": whiten,
        "drift.bank": bank,
        "drift.threshold": np.asarray(2 * windows.max()),
        "latent.scale": scale,
        "anchor.vectors": vectors[::8],
    } | _spectrum(day)
    source = {name: np.array(value, np.float32, order="C") for name, value in source.items()}
    source["anchor.latents"] = np.rint(out["latents"][::8] / scale[:, None, None]).astype(np.int8)
    return source


def _spectrum(day: np.ndarray) -> dict[str, np.ndarray]:
    means, power = frame_spectra(day.transpose(0, 3, 1, 2).astype(np.float32) / 255, np.eye(3))
    return {
        "prepare.mean": np.zeros(3),
        "prepare.std": np.ones(3),
        "spectrum.axes": np.eye(3),
        "spectrum.mean": means.mean(0),
        "spectrum.var": means.var(0),
        "spectrum.power": power / len(day),
        "spectrum.size": np.array([HEIGHT, WIDTH]),
    }


def _trunk(kernels: list[np.ndarray]) -> onnx.ModelProto:
    nodes, constants = _front(kernels, ports=True)
    inputs = [_value("frames", TensorProto.UINT8, ["batch", HEIGHT, WIDTH, 3])]
    outputs = [_value("latents", TensorProto.FLOAT, ["batch", *LATENT])]
    for index, channels in enumerate(CHANNELS):
        inputs += [_value(f"port{index}.{part}", TensorProto.FLOAT, [channels]) for part in ("scale", "shift")]
        outputs += [
            _value(f"port{index}.{part}", TensorProto.FLOAT, ["batch", channels]) for part in ("mean", "square")
        ]
    return _model(nodes, inputs, outputs, constants)


def _encoder(kernels: list[np.ndarray], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    nodes, constants = _front(kernels, ports=False)
    return _model(
        nodes + _back(),
        [_value("frames", TensorProto.UINT8, ["batch", HEIGHT, WIDTH, 3])],
        [_value("vectors", TensorProto.FLOAT, ["batch", DIM])],
        constants | weights,
    )


def _tail(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    return _model(
        _back(),
        [_value("latents", TensorProto.FLOAT, ["batch", *LATENT])],
        [_value("vectors", TensorProto.FLOAT, ["batch", DIM])],
        weights,
    )


def _front(kernels: list[np.ndarray], *, ports: bool) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    node = helper.make_node
    constants = {"full": np.float32(255)}
    if ports:
        constants |= {"plane": np.array([2, 3]), "to_channels": np.array([1, -1, 1, 1])}
    nodes = [
        node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        node("Div", ["float", "full"], ["unit"]),
        node("Transpose", ["unit"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    for index, kernel in enumerate(kernels):
        constants[f"kernel{index}"] = kernel
        last = "latents" if index + 1 == len(kernels) else f"x{index + 1}"
        constants[f"offset{index}"] = np.zeros(len(kernel), np.float32)
        given = [f"x{index}", f"kernel{index}", f"offset{index}"]
        nodes.append(node("Conv", given, [f"c{index}"], strides=[2, 2], pads=[1, 1, 1, 1]))
        at = f"c{index}"
        if ports:
            nodes += [
                node("ReduceMean", [at, "plane"], [f"port{index}.mean"], keepdims=0),
                node("Mul", [at, at], [f"s{index}"]),
                node("ReduceMean", [f"s{index}", "plane"], [f"port{index}.square"], keepdims=0),
                node("Reshape", [f"port{index}.scale", "to_channels"], [f"g{index}"]),
                node("Reshape", [f"port{index}.shift", "to_channels"], [f"b{index}"]),
                node("Mul", [at, f"g{index}"], [f"m{index}"]),
                node("Add", [f"m{index}", f"b{index}"], [f"p{index}"]),
            ]
            at = f"p{index}"
        nodes.append(node("Relu", [at], [last]))
    return nodes, constants


def _back() -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node("Flatten", ["latents"], ["flat"]),
        node("MatMul", ["flat", "weight.project"], ["linear"]),
        node("Add", ["linear", "weight.bias"], ["embedding"]),
        node("LpNormalization", ["embedding"], ["vectors"], axis=1, p=2),
    ]


def _step(factory: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Squared distance of two views, and of anchors to their reference, both before the normalisation; SGD."""
    node = helper.make_node
    nodes = [
        node("Flatten", ["a"], ["flat_a"]),
        node("Flatten", ["b"], ["flat_b"]),
        node("Flatten", ["anchors"], ["flat_n"]),
        node("Sub", ["flat_a", "flat_b"], ["d"]),
        node("MatMul", ["d", "weight.project"], ["gap"]),
        node("MatMul", ["flat_n", "weight.project"], ["n0"]),
        node("Add", ["n0", "weight.bias"], ["n1"]),
        node("Sub", ["n1", "reference"], ["miss"]),
        node("Mul", ["gap", "gap"], ["gap2"]),
        node("Mul", ["miss", "miss"], ["miss2"]),
        node("ReduceSum", ["gap2"], ["gap_sum"], keepdims=0),
        node("ReduceSum", ["miss2"], ["miss_sum"], keepdims=0),
        node("Mul", ["gap_sum", "per_batch"], ["loss.align"]),
        node("Mul", ["miss_sum", "per_anchor"], ["loss.anchor"]),
        node("Add", ["loss.align", "loss.anchor"], ["loss"]),
        node("Transpose", ["d"], ["dt"], perm=[1, 0]),
        node("Transpose", ["flat_n"], ["nt"], perm=[1, 0]),
        node("MatMul", ["dt", "gap"], ["ga0"]),
        node("Mul", ["ga0", "two_per_batch"], ["ga"]),
        node("MatMul", ["nt", "miss"], ["gn0"]),
        node("Mul", ["gn0", "two_per_anchor"], ["gn"]),
        node("Add", ["ga", "gn"], ["raw.project"]),
        node("ReduceSum", ["miss", "first"], ["gb0"], keepdims=0),
        node("Mul", ["gb0", "two_per_anchor"], ["raw.bias"]),
        node("Mul", ["raw.project", "raw.project"], ["sq.project"]),
        node("Mul", ["raw.bias", "raw.bias"], ["sq.bias"]),
        node("ReduceSum", ["sq.project"], ["sum.project"], keepdims=0),
        node("ReduceSum", ["sq.bias"], ["sum.bias"], keepdims=0),
        node("Add", ["sum.project", "sum.bias"], ["norm2"]),
        node("Sqrt", ["norm2"], ["gradient_norm"]),
        node("Max", ["gradient_norm", "clip"], ["above"]),
        node("Div", ["clip", "above"], ["shrink"]),
    ]
    for name in ("project", "bias"):
        nodes += [
            node("Mul", [f"raw.{name}", "shrink"], [f"clipped.{name}"]),
            node("Sub", [f"weight.{name}", f"factory.{name}"], [f"away.{name}"]),
            node("Mul", [f"away.{name}", "pull"], [f"pulled.{name}"]),
            node("Add", [f"clipped.{name}", f"pulled.{name}"], [f"gradient.{name}"]),
            node("Mul", [f"velocity.{name}", "momentum"], [f"kept.{name}"]),
            node("Add", [f"kept.{name}", f"gradient.{name}"], [f"new.velocity.{name}"]),
            node("Mul", [f"new.velocity.{name}", "lr"], [f"move.{name}"]),
            node("Sub", [f"weight.{name}", f"move.{name}"], [f"new.weight.{name}"]),
        ]
    shapes = {name.removeprefix("weight."): value.shape for name, value in factory.items()}
    inputs = [
        _value(f"{kind}.{name}", TensorProto.FLOAT, shape)
        for kind in ("weight", "velocity")
        for name, shape in shapes.items()
    ]
    inputs += [_value(name, TensorProto.FLOAT, [BATCH, *LATENT]) for name in ("a", "b")]
    inputs += [
        _value("anchors", TensorProto.FLOAT, [ANCHORS, *LATENT]),
        _value("reference", TensorProto.FLOAT, [ANCHORS, DIM]),
    ]
    inputs += [_value(name, TensorProto.FLOAT, []) for name in ("lr", "momentum", "pull", "clip")]
    outputs = [_value(name, TensorProto.FLOAT, []) for name in ("loss", "loss.align", "loss.anchor", "gradient_norm")]
    outputs += [
        _value(f"new.{kind}.{name}", TensorProto.FLOAT, shape)
        for kind in ("weight", "velocity")
        for name, shape in shapes.items()
    ]
    constants = {f"factory.{name.removeprefix('weight.')}": value for name, value in factory.items()}
    constants |= {"per_batch": np.float32(1 / BATCH), "per_anchor": np.float32(1 / ANCHORS), "first": np.array([0])}
    constants |= {"two_per_batch": np.float32(2 / BATCH), "two_per_anchor": np.float32(2 / ANCHORS)}
    return _model(nodes, inputs, outputs, constants)


def _value(name: str, kind: int, shape: object) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(nodes: list, inputs: list, outputs: list, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def _save(model: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(model.SerializeToString())


def _run(path: Path, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True))


if __name__ == "__main__":
    write_tiny_bundle(Path(sys.argv[1]))
