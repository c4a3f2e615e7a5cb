"""One sample at a time, in OpenVINO: the same graph with its batch set to 1, and a request whose arrays stay in their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from edgessl.runtimes.engines.base import Arrays


def model_of_one(model: Any) -> Any:
    """A copy that takes exactly one sample; it shares the constants.

    Returns:
        None where the graph has no batch, where a size varies that is none, or where it is another graph for one sample: one
        that takes its samples in pairs, say.
    """
    if any(port.get_partial_shape().rank.is_dynamic for port in (*model.inputs, *model.outputs)):
        return None
    inputs, outputs = ([shape_of(port) for port in ports] for ports in (model.inputs, model.outputs))
    if not any(shape[:1] == (None,) for shape in inputs) or any(None in shape[1:] for shape in inputs + outputs):
        return None
    one = model.clone()
    try:
        one.reshape({place: _of_one(shape) for place, shape in enumerate(inputs)})
    except RuntimeError:  # an operator does not take one sample
        return None
    return one if [shape_of(port) for port in one.outputs] == list(map(_of_one, outputs)) else None


class Single:
    """A request for one sample; what it takes and gives stays where OpenVINO put it.

    Most of what a run costs beside the graph is telling OpenVINO where its arrays are.

    Args:
        compiled: A graph for one sample.
        inputs, outputs: Names of its ends, in their order: compiled, it may know them by others too.
    """

    def __init__(self, compiled: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self._request = request = compiled.create_infer_request()
        self._given = {name: request.get_input_tensor(place).data for place, name in enumerate(inputs)}
        self._made = {name: request.get_output_tensor(place).data for place, name in enumerate(outputs)}

    def takes(self, feeds: Mapping[str, NDArray[Any]]) -> bool:
        """They hold one sample."""
        return all(value.shape == self._given[name].shape for name, value in feeds.items())

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run it; feeds that were checked."""
        for name, value in feeds.items():
            self._given[name][...] = value
        self._request.infer()
        return {name: array.copy() for name, array in self._made.items()}


def shape_of(port: Any) -> tuple[int | None, ...]:
    """Sizes of an input or output; `None` is one that varies."""
    return tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())


def _of_one(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(1 if size is None else size for size in shape)
