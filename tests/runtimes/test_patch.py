"""Constants in an ONNX file are read and replaced as the onnx package would."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl.errors import BundleError
from edgessl.runtimes.engines import open_engine
from edgessl.runtimes.patch import constants_of, with_weights

RNG = np.random.default_rng(0)
VALUES = {
    "floats": RNG.normal(size=(3, 5)).astype(np.float32),
    "bytes": RNG.integers(-128, 128, (2, 3, 7)).astype(np.int8),
    "unsigned": RNG.integers(0, 256, 300).astype(np.uint8),
    "ints": RNG.integers(-(2**31), 2**31, (4, 1)).astype(np.int32),
    "scalar": np.float32(2.5).reshape(()),
}


def model(values: dict[str, np.ndarray] = VALUES) -> onnx.ModelProto:
    """Hands `x` on; holds constants of every kind, and one whose numbers are stored one by one."""
    entries = [numpy_helper.from_array(value, name) for name, value in values.items()]
    entries.append(helper.make_tensor("listed", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]))
    entries.append(numpy_helper.from_array(np.array([7]), "long"))
    assert not entries[-2].raw_data
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "listed"], ["y"])], "constants", [x], [y], entries)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, doc_string="kept")


def stored(content: bytes) -> dict[str, np.ndarray]:
    """As the onnx package reads them."""
    return {entry.name: numpy_helper.to_array(entry) for entry in onnx.load_from_string(content).graph.initializer}


@pytest.mark.parametrize("name", [*VALUES, "listed"])
def test_a_constant_is_read_as_onnx_reads_it(name: str) -> None:
    content = model().SerializeToString()
    read = constants_of(content, [name])[name]
    assert read.dtype == stored(content)[name].dtype
    np.testing.assert_array_equal(read, stored(content)[name])


def test_what_is_replaced_changes_and_all_else_stays() -> None:
    content = model().SerializeToString()
    fresh = {name: np.flip(value).copy() for name, value in VALUES.items()} | {"listed": np.float32([4, 5, 6])}
    given = with_weights(content, fresh)
    onnx.checker.check_model(onnx.load_from_string(given), full_check=True)
    for name, value in stored(given).items():
        np.testing.assert_array_equal(value, fresh.get(name, stored(content)[name]))
    # Back again, all but the storage of the listed one is what it was.
    again = onnx.load_from_string(with_weights(given, constants_of(content, list(fresh))))
    was = model()
    was.graph.initializer[len(VALUES)].CopyFrom(numpy_helper.from_array(np.float32([1, 2, 3]), "listed"))
    assert again == was


def test_an_engine_computes_with_what_was_put_in() -> None:
    content = with_weights(model().SerializeToString(), {"listed": np.float32([4, 5, 6])})
    engine = open_engine("onnxruntime", content)
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_allclose(engine.run({"x": x})["y"], x * [4, 5, 6], rtol=1e-6)
    engine.close()


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ({"gone": np.zeros(3, np.float32)}, "no initializer 'gone'"),
        ({"floats": np.zeros((5, 3), np.float32)}, r"float32 \(3, 5\), not float32 \(5, 3\)"),
        ({"ints": np.zeros((4, 1), np.float32)}, r"int32 \(4, 1\), not float32"),
        ({"long": np.zeros(1, np.int64)}, "type"),
    ],
)
def test_a_constant_that_is_not_there_or_another_one_is_refused(weights: dict[str, np.ndarray], match: str) -> None:
    with pytest.raises(BundleError, match=match):
        with_weights(model().SerializeToString(), weights)


def test_a_name_that_stands_twice_is_refused() -> None:
    twice = model()
    twice.graph.initializer.append(twice.graph.initializer[0])
    with pytest.raises(BundleError, match="two initializers 'floats'"):
        constants_of(twice.SerializeToString(), ["floats"])


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x3a\x7f", model().SerializeToString()[:200]])
def test_what_is_no_onnx_file_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        constants_of(content, ["floats"])
