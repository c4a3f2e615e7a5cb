"""Where an error starts: two graphs compared layer by layer on the same samples, in the engine that runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgessl.export.placement import quantizable
from edgessl.export.surgery import with_outputs
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
    made = {name for node in candidate.graph.node for name in node.output}
    outputs = {node.name: node.output[0] for node in reference.graph.node}
    layers = [name for name in quantizable(reference) if outputs[name] in made]
    names = [outputs[name] for name in layers]
    found = []
    for model, runs_in in ((reference, "onnxruntime"), (candidate, engine)):
        opened = open_engine(runs_in, with_outputs(model, names).SerializeToString())
        try:
            runs = [opened.run({"frames": np.ascontiguousarray(sample[None])}) for sample in samples]
        finally:
            opened.close()
        found.append([np.stack([run[name].ravel() for run in runs]) for name in names])
    return [(layer, float(cosines(a, b).mean())) for layer, a, b in zip(layers, *found, strict=True)]


def drops(layers: Layers) -> Layers:
    """How much each layer lost against the one before, largest first."""
    before = [1.0, *(cosine for _, cosine in layers)]
    falls = [(name, last - cosine) for (name, cosine), last in zip(layers, before[:-1], strict=True)]
    return sorted(falls, key=lambda fall: -fall[1])


def starts_at(layers: Layers, bound: float) -> str:
    """The first layer below `bound`, or the one that loses most where none is; empty without layers."""
    below = [name for name, cosine in layers if not cosine >= bound]  # NaN is below
    return below[0] if below else (drops(layers)[0][0] if layers else "")
