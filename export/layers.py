"""Where an error starts: two graphs compared layer by layer on the same samples, in the engine that runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgessl.export.calibrate import Ranges
from edgessl.export.placement import RECTIFIERS, Placement, attention, quantizable, sums
from edgessl.export.quantize import quantized
from edgessl.export.surgery import readers_of, with_outputs
from edgessl.metrics import cosines
from edgessl.runtimes.engines import open_engine

Layers = list[tuple[str, float]]


def layer_cosines(reference: onnx.ModelProto, candidate: onnx.ModelProto, samples: NDArray[Any], engine: str) -> Layers:
    """Mean cosine between both graphs' outputs of each layer with weights, in the order of the graph.

    Args:
        reference: The fp32 graph, run in onnxruntime.
        candidate: Made from it: values keep their names.
        samples: A few, `(n, *sample)`.
        engine: Runs the candidate.
    """
    places = _places(reference, candidate)
    found = []
    for at, (model, runs_in) in enumerate(((reference, "onnxruntime"), (candidate, engine))):
        names = [pair[at] for pair in places.values()]
        opened = open_engine(runs_in, with_outputs(model, names).SerializeToString())
        try:
            runs = [opened.run({"frames": np.ascontiguousarray(sample[None])}) for sample in samples]
        finally:
            opened.close()
        # An engine may have fused a value away, and then gives it no name.
        found.append({name: np.stack([run[name].ravel() for run in runs]) for name in names if name in runs[0]})
    return [
        (layer, float(cosines(found[0][exact], found[1][near]).mean()))
        for layer, (exact, near) in places.items()
        if exact in found[0] and near in found[1]
    ]


def alone(model: onnx.ModelProto, ranges: Ranges, placement: Placement, samples: NDArray[Any]) -> Layers:
    """What each layer, and each sum of a residual net, costs by itself: `1 - cosine` of the vectors with it alone in int8.

    The most expensive is the first.

    Errors add up nearly as if layers knew nothing of each other; behind a layer that went wrong early, all look wrong.

    Args:
        model: The fp32 encoder.
        ranges: Of its values.
        placement: Where the pairs go.
        samples: A few, `(n, *sample)`.
    """
    feeds = {"frames": np.ascontiguousarray(samples)}

    def vectors(graph: onnx.ModelProto) -> NDArray[np.float32]:
        engine = open_engine("onnxruntime", graph.SerializeToString())
        try:
            return engine.run(feeds)["vectors"]
        finally:
            engine.close()

    exact = vectors(model)
    nodes = {node.name: node for node in model.graph.node if node.name}
    costs = []
    for layer in (*quantizable(model), *attention(placement, model), *sums(placement, model)):
        own = nodes[layer].output[0]  # with the ReLU behind it, which its range does the work of
        others = [
            name
            for name, node in nodes.items()
            if name != layer and not (node.op_type in RECTIFIERS and own in node.input)
        ]
        rounded = vectors(quantized(model, ranges, placement, exclude=others))
        costs.append((layer, 1 - float(cosines(exact, rounded).mean())))
    return sorted(costs, key=lambda cost: -cost[1])


def _places(reference: onnx.ModelProto, candidate: onnx.ModelProto) -> dict[str, tuple[str, str]]:
    """Layer -> its output in both graphs.

    A quantizer may leave out the ReLU behind a layer, which a pair with nothing below zero does as well: then the layer's
    own output has the ReLU's name.
    """
    made = {name for node in candidate.graph.node for name in node.output}
    outputs = {node.name: node.output[0] for node in reference.graph.node}
    readers = readers_of(reference)
    places = {}
    for layer in quantizable(reference):
        exact = near = outputs[layer]
        after = readers.get(exact, [])
        if near not in made and len(after) == 1 and after[0].op_type in RECTIFIERS:
            near = after[0].output[0]
        if near in made:
            places[layer] = (exact, near)
    return places


def drops(layers: Layers) -> Layers:
    """How much each layer lost against the one before, largest first."""
    before = [1.0, *(cosine for _, cosine in layers)]
    falls = [(name, last - cosine) for (name, cosine), last in zip(layers, before[:-1], strict=True)]
    return sorted(falls, key=lambda fall: -fall[1])


def starts_at(layers: Layers, bound: float) -> str:
    """The first layer below `bound`, or the one that loses most where none is; empty without layers."""
    below = [name for name, cosine in layers if not cosine >= bound]  # NaN is below
    return below[0] if below else (drops(layers)[0][0] if layers else "")
