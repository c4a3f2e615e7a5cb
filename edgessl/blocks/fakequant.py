"""An encoder run as its int8 graph will run, in float and with gradients: what is rounded there is rounded here.

Batch norms are folded on the fly, weights rounded per channel, activations over learned ranges. Modules, parameters and
their names stay as they are: the functions that the encoder calls are intercepted, while it is called from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from edgessl.blocks.folding import foldable
from edgessl.blocks.intercept import HANDLERS, Intercept, Plan
from edgessl.blocks.rounding import rounded_activation, rounded_bias, rounded_weight
from edgessl.encoders import EncoderModule
from edgessl.errors import UnknownNameError

PLACEMENTS = ("onnxruntime", "symmetric")

_SPEED = 10.0  #: how much faster than a weight the logarithm of a bound learns


class FakeQuantized(nn.Module):
    """An encoder with fake quantization: images in 0..1 -> features, as `EncoderModule.features`.

    - `onnxruntime`: uint8 with zero points. Inputs of convolutions and linear layers, outputs of convolutions (behind
      the ReLU that alone reads one), biases, and in a convolutional net inputs and outputs of sums.
    - `symmetric`, of TensorRT and OpenVINO: int8 without zero points. Inputs of convolutions and linear layers, and in a
      convolutional net inputs of sums.

    Where one tensor has several readers, all of them see it rounded, as in the graph. Ranges are those observed on
    `batches`, times a factor that is learned. The encoder is to be in eval mode whenever this is called.

    Attributes:
        placement: A name from `PLACEMENTS`.
    """

    def __init__(self, encoder: EncoderModule, placement: str, batches: Sequence[Tensor]) -> None:
        """Find what is to be rounded and observe its ranges.

        Args:
            encoder: In eval mode; it is not changed, and not a submodule of this.
            placement: A name from `PLACEMENTS`, or `auto`: symmetric where there is attention or layer norm.
            batches: Images in 0..1 of real frames, each `(batch, 3, height, width)`.

        Raises:
            UnknownNameError: No such placement.
        """
        super().__init__()
        if placement not in (*PLACEMENTS, "auto"):
            raise UnknownNameError("placement", placement, [*PLACEMENTS, "auto"])
        self._encoder = (encoder,)  # in a tuple it is no submodule
        with torch.no_grad():
            self._pairs = foldable(encoder, lambda: encoder.features(batches[0]))
            first = Plan(asymmetric=True, residual=True)
            self._through(_Trace(encoder, self._pairs, first), batches[0])
            transformer = first.transformer
            self.placement = placement if placement != "auto" else PLACEMENTS[transformer]
            self._plan = Plan(asymmetric=self.placement == "onnxruntime", residual=not transformer)
            self._plan.fused = set() if transformer else first.fused
            for images in batches:
                self._through(_Observe(encoder, self._pairs, self._plan), images)
        low, high = torch.tensor(list(self._plan.seen.values())).T
        if not self._plan.asymmetric:
            high = torch.maximum(high, -low)
            low = -high
        self.register_buffer("low", low.contiguous())
        self.register_buffer("high", high.contiguous())
        # Each of one axis: weight decay leaves them alone.
        self.low_growth = nn.Parameter(torch.zeros(len(low)))
        self.high_growth = nn.Parameter(torch.zeros(len(high)))

    def forward(self, images: Tensor) -> Tensor:
        """Images `(batch, 3, height, width)` in 0..1 -> features `(batch, dim)`."""
        return self._through(_Round(*self._encoder, self._pairs, self._plan, *self.bounds()), images)

    def ranges(self) -> dict[str, tuple[float, float]]:
        """`input.MODULE` and `output.MODULE` -> range, for modules of the encoder with weights.

        The output of a convolution is that of the ReLU that alone reads it, where there is one; its range begins at 0.
        """
        low, high = (bounds.tolist() for bounds in self.bounds())
        slots = {name: slot for slot, name in enumerate(self._plan.seen)}
        return {
            alias: (low[slots[name]], high[slots[name]])
            for alias, name in self._plan.aliases.items()
            if alias.startswith(("input.", "output."))
        }

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Low and high of every range, `(ranges,)` each."""
        low, high = (torch.as_tensor(each) for each in (self.low, self.high))
        high = high * (_SPEED * self.high_growth).exp()
        return (low * (_SPEED * self.low_growth).exp() if self._plan.asymmetric else -high), high

    def _through(self, mode: Intercept, images: Tensor) -> Tensor:
        (encoder,) = self._encoder
        with mode:
            features = encoder.features(images)
        mode.check()
        return features


class _Trace(Intercept):
    """Which outputs are read by one ReLU and by nobody else."""

    def __init__(self, encoder: nn.Module, pairs: Sequence[tuple[str, str]], plan: Plan) -> None:
        super().__init__(encoder, pairs, plan)
        self._outputs: dict[int, tuple[Tensor, str]] = {}
        self._readers: dict[str, list[Any]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = [leaf for leaf in tree_leaves((args, kwargs)) if id(leaf) in self._outputs]
        result = super().__torch_function__(func, types, args, kwargs)
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):  # not a question for the shape
            for leaf in read:
                self._readers.setdefault(self._outputs[id(leaf)][1], []).append(func)
                if leaf is result:  # changed in place: another value from here on
                    del self._outputs[id(leaf)]
        return result

    def place(self, name: str, x: Tensor) -> Tensor:
        x = x.clone()  # what changes it in place, changes no output of an earlier name
        self._outputs[id(x)] = (x, name)
        return x

    def check(self) -> None:
        super().check()
        for name, readers in self._readers.items():
            if len(readers) == 1 and HANDLERS.get(readers[0]) is Intercept.relu:
                self._plan.fused.add(name)


class _Observe(Intercept):
    """Smallest and largest value."""

    def place(self, name: str, x: Tensor) -> Tensor:
        low, high = self._plan.seen.get(name, (0.0, 0.0))
        self._plan.seen[name] = (min(low, x.min().item()), max(high, x.max().item()))
        return x.clone()


class _Round(Intercept):
    """Rounded over the ranges as they are now."""

    def __init__(
        self, encoder: nn.Module, pairs: Sequence[tuple[str, str]], plan: Plan, low: Tensor, high: Tensor
    ) -> None:
        super().__init__(encoder, pairs, plan)
        self._bounds = {name: (low[slot], high[slot]) for slot, name in enumerate(plan.seen)}

    def place(self, name: str, x: Tensor) -> Tensor:
        low, high = self._bounds[name]
        return rounded_activation(x, low, high, symmetric=not self._plan.asymmetric)

    def weight(self, weight: Tensor) -> Tensor:
        return rounded_weight(weight)

    def bias(self, bias: Tensor, weight: Tensor, name: str) -> Tensor:
        return rounded_bias(bias, weight, *self._bounds[name]) if self._plan.asymmetric else bias
