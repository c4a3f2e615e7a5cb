"""How fast could ViT-small in int8 be at all: its 48 products alone, in each engine, against PyTorch eager.

    python benchmarks/int8_ceiling.py

A graph of nothing but the products of its twelve blocks at 197 tokens (query-key-value, projection, both of the MLP),
quantized as an export quantizes them, timed in turns with the whole network in PyTorch eager. Attention, norms and
everything else are left out, so no int8 form of the network can be faster: eager over it is the most that this
processor and these engines can give at batch 1.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgessl.export.pays import machine
from edgessl.load import load_encoder
from edgessl.runtimes.engines import open_engine
from edgessl.runtimes.timing import interleaved

TOKENS, WIDTH, BLOCKS, THREADS, ROUNDS = 197, 384, 12, 2, 30
ENGINES = ("onnxruntime", "openvino")
RESULT = Path(__file__).parent / "results" / "int8_ceiling.json"


def skeleton(*, int8: bool) -> bytes:
    """`(TOKENS, WIDTH)` through all products of the network, of which the first of query, key and value goes on."""
    rng = np.random.default_rng(0)
    scalars = {"scale": np.float32(0.03), "zero": np.int8(0), "from": [0], "to": [WIDTH], "axis": [1]}
    constants = {name: np.asarray(value) for name, value in scalars.items()}
    nodes: list[NodeProto] = []
    value = "x"
    for block in range(BLOCKS):
        for place, outputs in (("qkv", 3 * WIDTH), ("out", WIDTH), ("up", 4 * WIDTH), ("down", WIDTH)):
            inputs, name = 4 * WIDTH if place == "down" else WIDTH, f"{place}{block}"
            weights = rng.integers(-127, 128, (inputs, outputs)).astype(np.int8)
            if int8:
                constants |= {f"{name}.w": weights, f"{name}.step": np.full(outputs, 1e-3, np.float32)}
                constants[f"{name}.zero"] = np.zeros(outputs, np.int8)
                nodes += [
                    helper.make_node("QuantizeLinear", [value, "scale", "zero"], [f"{name}.q"]),
                    helper.make_node("DequantizeLinear", [f"{name}.q", "scale", "zero"], [f"{name}.a"]),
                    helper.make_node(
                        "DequantizeLinear", [f"{name}.w", f"{name}.step", f"{name}.zero"], [f"{name}.b"], axis=1
                    ),
                ]
            else:
                constants[f"{name}.b"] = weights.astype(np.float32) * np.float32(1e-3)
            nodes.append(helper.make_node("MatMul", [f"{name}.a" if int8 else value, f"{name}.b"], [name]))
            value = name
            if place == "qkv":
                value = f"{name}.first"
                nodes.append(helper.make_node("Slice", [name, "from", "to", "axis"], [value]))
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", WIDTH])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["tokens", WIDTH])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def main() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    encoder = load_encoder("timm:vit_small_patch16_224").encoder.eval()
    frame = torch.from_numpy(rng.integers(0, 256, (1, *encoder.input.shape), np.uint8))
    x = rng.standard_normal((TOKENS, WIDTH), dtype=np.float32)
    runs: dict[str, Callable[[], object]] = {"eager": lambda: _eager(encoder, frame)}
    for precision in ("fp32", "int8"):
        graph = skeleton(int8=precision == "int8")
        for engine in ENGINES:
            opened = open_engine(engine, graph, threads=THREADS)
            runs[f"{engine} {precision}"] = lambda opened=opened: opened.run({"x": x})
    times = {key: float(np.median(taken)) for key, taken in interleaved(runs, rounds=ROUNDS, budget_s=300).items()}
    eager = times.pop("eager")
    rows = [
        {"products_of": key, "median_ms": round(1e3 * taken, 2), "eager_over_products": round(eager / taken, 2)}
        for key, taken in times.items()
    ]
    result = {
        "claim": "eager over the 48 products alone: the most that int8 can give ViT-small at batch 1 here",
        "most": max(row["eager_over_products"] for row in rows),
        "date": date.today().isoformat(),
        "machine": {"cpu": machine(), "threads": THREADS, "system": platform.platform()},
        "versions": {name: version(name) for name in ("torch", "timm", "onnxruntime", "openvino", "numpy")},
        "eager_ms": round(1e3 * eager, 2),
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


@torch.inference_mode()
def _eager(encoder: torch.nn.Module, frame: torch.Tensor) -> object:
    return encoder(frame)


if __name__ == "__main__":
    main()
