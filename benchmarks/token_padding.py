"""What a number of tokens costs OpenVINO: the int8 products of a transformer's block at numbers that divide and that do not.

    python benchmarks/token_padding.py

The product that makes queries, keys and values and the two of the MLP, as wide as ViT-small's, twelve of each one behind the
other, quantized as an export quantizes them. Two threads. All numbers of tokens around one take turns in one run.

Claim: where `even_tokens` adds some, a block's products take less time than with the number as it was, tokens added and all.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgessl.export.pays import machine
from edgessl.export.rewrites.pad import even_tokens
from edgessl.runtimes.engines import open_engine
from edgessl.runtimes.timing import interleaved

WIDTH, BLOCKS, THREADS, ROUNDS = 384, 12, 2, 40
#: Tokens as models have them, and others beside them
AROUND = {
    101: (102, 104),
    131: (132, 134),
    197: (198, 200, 206, 208),
    257: (258, 260, 268),
    577: (578, 580, 592),
}
RESULT = Path(__file__).parent / "results" / "token_padding.json"


def products(tokens: int) -> bytes:
    """`(tokens, WIDTH)` through the products of all blocks; of queries, keys and values the first part goes on."""
    rng = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {"scale": np.float32(0.03), "zero": np.int8(0)}
    constants |= {"from": np.array([0]), "to": np.array([WIDTH]), "axis": np.array([1])}
    nodes: list[onnx.NodeProto] = []
    value = "x"
    for block in range(BLOCKS):
        for place, inputs, outputs in (("qkv", WIDTH, 3 * WIDTH), ("up", WIDTH, 4 * WIDTH), ("down", 4 * WIDTH, WIDTH)):
            name = f"{place}{block}"
            constants[f"{name}.w"] = rng.integers(-127, 128, (inputs, outputs)).astype(np.int8)
            constants[f"{name}.step"] = np.full(outputs, 1e-3, np.float32)
            constants[f"{name}.zero"] = np.zeros(outputs, np.int8)
            nodes += [
                helper.make_node("QuantizeLinear", [value, "scale", "zero"], [f"{name}.q"]),
                helper.make_node("DequantizeLinear", [f"{name}.q", "scale", "zero"], [f"{name}.a"]),
                helper.make_node(
                    "DequantizeLinear", [f"{name}.w", f"{name}.step", f"{name}.zero"], [f"{name}.b"], axis=1
                ),
                helper.make_node("MatMul", [f"{name}.a", f"{name}.b"], [name]),
            ]
            value = name
            if place == "qkv":
                value = f"{name}.first"
                nodes.append(helper.make_node("Slice", [name, "from", "to", "axis"], [value]))
            if place == "up":
                value = f"{name}.gelu"
                nodes.append(helper.make_node("Gelu", [name], [value]))
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [tokens, WIDTH])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, [tokens, WIDTH])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def rows_around(tokens: int, others: tuple[int, ...]) -> list[dict[str, Any]]:
    """A number of tokens and its neighbours, timed in turns."""
    runs: dict[str, Callable[[], object]] = {}
    for number in (tokens, *others):
        engine = open_engine("openvino", products(number), threads=THREADS)
        x = np.random.default_rng(0).standard_normal((number, WIDTH), dtype=np.float32)
        runs[str(number)] = lambda engine=engine, x=x: engine.run({"x": x})
    times = interleaved(runs, rounds=ROUNDS, budget_s=120)
    base = np.array(times[str(tokens)])
    return [
        {
            "tokens": int(number),
            "of": tokens,
            "chosen": int(number) == even_tokens(tokens),
            "median_ms": round(1e3 * float(np.median(taken)), 2),
            "time_over_as_it_was": round(float(np.median(np.array(taken) / base)), 3),
        }
        for number, taken in times.items()
    ]


def main() -> None:
    rows = [row for tokens, others in AROUND.items() for row in rows_around(tokens, others)]
    chosen = {row["of"]: row["time_over_as_it_was"] for row in rows if row["chosen"]}
    result = {
        "claim": "where tokens are added the products of a block take less time than before",
        "holds": all(chosen[tokens] < 1 for tokens in AROUND),
        "chosen": chosen,
        "date": date.today().isoformat(),
        "machine": {"cpu": machine(), "threads": THREADS, "system": platform.platform()},
        "versions": {name: version(name) for name in ("edgessl", "openvino", "numpy")},
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
