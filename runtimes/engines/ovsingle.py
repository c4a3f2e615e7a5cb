"""One sample at a time, in OpenVINO: the same graph with its batch set to 1, and a request whose arrays stay in their places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.engines.base import Arrays

_LENT = 1 << 17  #: bytes; to copy less is quicker than to tell OpenVINO where it is


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

    Most of what a run costs beside the graph is telling OpenVINO where its arrays are. Only a large frame is read where the
    caller has it: copied, it would drive out of the cache what the graph is about to read.

    Args:
        compiled: A graph for one sample.
        inputs, outputs: Names of its ends, in their order: compiled, it may know them by others too.
        lent: An array -> a tensor of OpenVINO's on the same memory.
    """

    def __init__(
        self, compiled: Any, inputs: Sequence[str], outputs: Sequence[str], lent: Callable[[NDArray[Any]], Any]
    ) -> None:
        self._lent = lent
        self._request = request = compiled.create_infer_request()
        self._own = {name: (place, request.get_input_tensor(place)) for place, name in enumerate(inputs)}
        self._given = {name: tensor.data for name, (_, tensor) in self._own.items()}
        self._made = {name: request.get_output_tensor(place).data for place, name in enumerate(outputs)}

    def takes(self, feeds: Mapping[str, NDArray[Any]]) -> bool:
        """They are what the graph takes, and one sample of it."""
        if feeds.keys() != self._given.keys():
            return False
        for name, value in feeds.items():
            own = self._given[name]
            if not isinstance(value, np.ndarray) or value.shape != own.shape or value.dtype != own.dtype:
                return False
        return True

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run it, with feeds that it takes."""
        # carray: in C order, aligned and writable; OpenVINO takes no array that is read-only.
        lent = [name for name, value in feeds.items() if value.nbytes >= _LENT and value.flags.carray]
        try:
            for name, value in feeds.items():
                if name in lent:
                    self._request.set_input_tensor(self._own[name][0], self._lent(value))
                else:
                    self._given[name][...] = value
            self._request.infer()
        finally:
            for name in lent:  # a request keeps what it was given, and the caller may free that
                self._request.set_input_tensor(*self._own[name])
        return {name: array.copy() for name, array in self._made.items()}


def shape_of(port: Any) -> tuple[int | None, ...]:
    """Sizes of an input or output; `None` is one that varies."""
    return tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())


def _of_one(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(1 if size is None else size for size in shape)
