"""Which axis of an input becomes which of the output."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgessl.export.rewrites.axes import Axes
from tests.export.hand_graphs import model_of
from tests.export.rewrites.conftest import run

#: kind, shape in, attributes, constants, shape out, axis in -> out
CASES = [
    ("Transpose", (2, 3, 5), {"perm": [2, 0, 1]}, {}, (5, 2, 3), {0: 1, 1: 2, 2: 0}),
    ("Reshape", (2, 3, 20), {}, {"c": [2, 3, 4, 5]}, (2, 3, 4, 5), {0: 0, 1: 1, 2: None}),
    ("Squeeze", (2, 1, 5), {}, {"c": [1]}, (2, 5), {0: 0, 1: None, 2: 1}),
    ("Unsqueeze", (2, 3), {}, {"c": [0, 2]}, (1, 2, 1, 3), {0: 1, 1: 3}),
    ("ReduceMean", (2, 3, 5), {"keepdims": 0}, {"c": [1]}, (2, 5), {0: 0, 1: None, 2: 1}),
    ("ReduceMean", (2, 3, 5), {"keepdims": 1}, {"c": [-1]}, (2, 3, 1), {0: 0, 1: 1, 2: None}),
    ("Softmax", (2, 3, 5), {"axis": 1}, {}, (2, 3, 5), {0: 0, 1: None, 2: 2}),
    ("LayerNormalization", (2, 3, 5), {"axis": -2}, {"g": np.ones((3, 5))}, (2, 3, 5), {0: 0, 1: None, 2: None}),
    ("MatMul", (2, 3, 5), {}, {"w": np.ones((5, 4))}, (2, 3, 4), {0: 0, 1: 1, 2: None}),
    ("Gather", (2, 3, 5), {"axis": 1}, {"c": 2}, (2, 5), {0: 0, 1: None, 2: 1}),
    ("CumSum", (2, 3, 5), {}, {"c": 1}, (2, 3, 5), {0: None, 1: None, 2: None}),
]


class TestAxes:
    @pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}{place}" for place, case in enumerate(CASES)])
    def test_an_entry_of_the_output_moves_with_its_entry_of_the_input_alone(self, case) -> None:
        """Held against the operator itself: one entry is changed, and what changes is looked at."""
        kind, shape, attributes, constants, out, wanted = case
        node = helper.make_node(kind, ["x", *constants], ["y"], name="n", **attributes)
        stored = {name: np.asarray(value) for name, value in constants.items()}
        stored = {name: value.astype(np.float32) if value.dtype == float else value for name, value in stored.items()}
        model = model_of([node], {"x": (TensorProto.FLOAT, shape)}, {"y": out}, stored)
        axes = Axes.of(model)
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        for axis, expected in wanted.items():
            found = axes.through(model.graph.node[0], 0, axis)
            assert found == expected
            if found is None:
                continue
            moved = x.copy()
            np.moveaxis(moved, axis, 0)[1 % shape[axis]] += 1
            changed = run(model, {"x": moved})["y"] != run(model, {"x": x})["y"]
            entries = np.moveaxis(changed, found, 0).reshape(changed.shape[found], -1).any(1)
            assert entries.nonzero()[0].tolist() == [1 % shape[axis]]
