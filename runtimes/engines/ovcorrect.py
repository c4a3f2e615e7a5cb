"""An affine correction behind the vectors of a graph in OpenVINO, in as few of its operators as the processor allows."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import BundleError
from edgessl.runtimes.correct import TINY
from edgessl.runtimes.engines.ovcore import openvino, shared_core

_OPERATORS = openvino.opset13


def correct(model: Any, matrix: NDArray[np.float32], shift: NDArray[np.float32]) -> None:
    """Behind `vectors`, what `correct.with_affine` puts there; in place.

    Where one operator brings a vector to unit length, it does so in front of the product too, instead of the graph's own two:
    between small ones OpenVINO waits for its workers, which is much of what the correction costs a batch. For a single sample
    the product is nearly all of it.

    Args:
        model: The graph.
        matrix: `(dim, dim)`.
        shift: `(dim,)`.

    Raises:
        BundleError: There are no `vectors`.
    """
    results = [result for result in model.get_results() if "vectors" in result.input(0).get_tensor().get_names()]
    if len(results) != 1:
        raise BundleError("the graph has no output 'vectors'; export the bundle again")
    result, dim = results[0], len(shift)
    before = result.input_value(0)
    before.set_names(before.get_names() - {"vectors"})
    fused = _fuses(dim)
    divided = _divided(before.get_node()) if fused else None
    given = before if divided is None else _by_root_mean_square(divided, dim)
    product = _OPERATORS.matmul(given, _constant(matrix), False, False)
    moved = _OPERATORS.add(product, _constant(shift[None]))
    unit = _by_root_mean_square(moved, dim) if fused else _by_length(moved)
    unit.output(0).set_names({"vectors"})
    result.input(0).replace_source_output(unit.output(0))


@cache
def _fuses(dim: int) -> bool:
    """Whether the division by the root mean square is one operator here: on processors that OpenVINO has a kernel for."""
    given = _OPERATORS.parameter([-1, dim], np.float32)
    model = openvino.Model([_by_root_mean_square(given, dim)], [given], "unit")
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return any(node.get_rt_info()["layerType"].value == "RMS" for node in compiled.get_runtime_model().get_ops())


def _by_length(vectors: Any) -> Any:
    length = _OPERATORS.reduce_l2(vectors, _constant(np.array([1])), keep_dims=True)
    return _OPERATORS.divide(vectors, _OPERATORS.maximum(length, _scalar(TINY)))


def _by_root_mean_square(vectors: Any, dim: int) -> Any:
    """The same, in the form that OpenVINO takes for its RMS: `v / sqrt(mean(v^2) + e)`, times `sqrt(1 / dim)`.

    `e` bounds it as `TINY` bounds the length, and is as little beside any other.
    """
    mean = _OPERATORS.reduce_mean(_OPERATORS.power(vectors, _scalar(2)), _constant(np.array([-1])), keep_dims=True)
    root = _OPERATORS.sqrt(_OPERATORS.add(mean, _scalar(TINY**2 / dim)))
    scaled = _OPERATORS.multiply(vectors, _OPERATORS.divide(_scalar(1), root))
    return _OPERATORS.multiply(scaled, _constant(np.full(dim, dim**-0.5, np.float32)))


def _divided(node: Any) -> Any:
    """What the graph divides by its length as its last operator; `None` where it does something else."""
    if node.get_type_name() != "Divide":
        return None
    vectors, bounded = node.input_value(0), node.input_value(1).get_node()
    if bounded.get_type_name() != "Clamp" or bounded.get_attributes()["min"] > TINY:
        return None
    length = bounded.input_value(0).get_node()
    if length.get_type_name() != "ReduceL2" or length.input_value(0) != vectors:
        return None
    axes = length.input_value(1).get_node()
    along_last = axes.get_type_name() == "Constant" and axes.data.reshape(-1).tolist() in ([1], [-1])
    planes = vectors.get_partial_shape().rank == length.output(0).get_partial_shape().rank == 2
    return vectors if along_last and planes else None


def _constant(value: NDArray[Any]) -> Any:
    return openvino.op.Constant(np.ascontiguousarray(value))


def _scalar(value: float) -> Any:
    return _constant(np.array([[value]], np.float32))
