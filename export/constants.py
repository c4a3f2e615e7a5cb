"""What a convolution of an exported graph computes with, and whether the graph with other such constants does what it should."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgessl.export.draft import Draft
from edgessl.export.surgery import readers_of, weights_of
from edgessl.metrics import cosines
from edgessl.runtimes.constants import ConvConstants
from edgessl.runtimes.verify import BOUNDS

_NOISE = (
    1e-4  # 1 - cosine that rounding makes; an encoder whose vectors hardly move with a change is not judged below it
)


def constants_in(draft: Draft, path: str, model: onnx.ModelProto, name: str) -> ConvConstants | None:
    """Those of one convolution in the file at `path`; None where it has something else.

    Args:
        draft: Holds the file.
        path: Within it.
        model: What the file holds, before it was converted to an engine's own format.
        name: Of the convolution in `model`.
    """
    if path.endswith(".xml"):
        from edgessl.export.openvino import conv_constants

        return conv_constants(draft.folder / path, name)
    return constants_of(model, name)


def constants_of(model: onnx.ModelProto, name: str) -> ConvConstants | None:
    """Those of a convolution of an ONNX graph, in float or behind Q/DQ pairs; None where it has something else."""
    node = next((node for node in model.graph.node if node.name == name and node.op_type == "Conv"), None)
    if node is None or len(node.input) < 3:
        return None
    made = {value: node for node in model.graph.node for value in node.output}
    weight, bias = (made.get(value) for value in node.input[1:])
    one = ConvConstants(
        weight=node.input[1] if weight is None else weight.input[0],
        scale="" if weight is None else weight.input[1],
        bias=node.input[2] if bias is None else bias.input[0],
        steps="" if bias is None else bias.input[1],
    )
    stored, readers = weights_of(model), readers_of(model)
    pairs = [pair for pair in (weight, bias) if pair is not None]
    if any(pair.op_type != "DequantizeLinear" for pair in pairs):
        return None
    centred = all(len(pair.input) < 3 or not numpy_helper.to_array(stored[pair.input[2]]).any() for pair in pairs)
    alone = all(each in stored and len(readers[each]) == 1 for each in one.names())
    return one if centred and alone else None


def near_enough(
    wanted: NDArray[np.floating], given: NDArray[np.floating], unmoved: NDArray[np.floating], precision: str
) -> bool:
    """Whether vectors `given` with moved constants are those that are `wanted`.

    They must be as near as any graph of this precision must be to PyTorch (`BOUNDS`), and go at least half of the way from
    where they are `unmoved`: a change that moves little would pass the first alone without being taken in at all.
    """
    bound = BOUNDS[precision]
    moved, off = (1 - cosines(wanted, each).mean() for each in (unmoved, given))
    return bool(off <= 1 - max(bound.min_cosine, bound.mean_cosine) and off <= max(moved / 2, _NOISE))  # NaN is not
