"""The constants that a convolution computes with, in float or rounded: read exactly, and written again with other values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import BundleError
from edgessl.runtimes.engines import Arrays

Floats = NDArray[np.floating]
Floats64 = NDArray[np.float64]
_TINY = 1e-12
_INT32 = 2**31 - 1
_LARGEST = 2**30  # of an int32 bias: half of the range stays for what the convolution adds to it


@dataclass(frozen=True, kw_only=True)
class ConvConstants:
    """Names of the constants of one convolution in a graph.

    Attributes:
        weight: `(out, in, *kernel)`, float32 or int8.
        scale: Of int8, the constant with the step per output channel; else empty.
        bias: float32 or int32, an entry per output channel.
        steps: Of an int32 bias, the constant with its steps; else empty.
    """

    weight: str
    scale: str
    bias: str
    steps: str

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ConvConstants:
        """Of a manifest."""
        return cls(**{name: str(fields[name]) for name in ("weight", "scale", "bias", "steps")})

    def names(self) -> set[str]:
        """All of them."""
        return {self.weight, self.scale, self.bias, self.steps} - {""}

    def exact(self, factory: Arrays) -> tuple[Floats64, Floats64]:
        """Weights `(out, in, *kernel)` and bias `(out,)` as the convolution computes with them.

        Raises:
            BundleError: The constants are not those of a convolution.
        """
        self.check(factory)
        weight, bias = factory[self.weight].astype(np.float64), factory[self.bias].ravel().astype(np.float64)
        if self.scale:
            weight *= _along(factory[self.scale], weight.ndim)
        return weight, bias * factory[self.steps].ravel() if self.steps else bias

    def written(self, factory: Arrays, weight: Floats, bias: Floats) -> Arrays:
        """The constants of the convolution with these weights and this bias; rounded where the factory's are.

        The new steps use as many levels as the factory's, and are as large as an int32 bias needs.

        Raises:
            BundleError: The constants are not those of a convolution.
        """
        self.check(factory)
        if not self.scale:
            shape = factory[self.bias].shape
            return {self.weight: weight.astype(np.float32), self.bias: bias.reshape(shape).astype(np.float32)}
        before = factory[self.scale].ravel().astype(np.float64)
        levels = max(1, int(np.abs(factory[self.weight].astype(np.int32)).max()))
        reach = np.abs(weight).reshape(len(weight), -1).max(1) / levels
        fresh = np.where(reach > 0, reach, before)  # a channel without weights still has its bias
        if self.steps:  # which counts in steps of the weights' own
            was = factory[self.steps].ravel().astype(np.float64)
            fresh = np.maximum(fresh, np.abs(bias) * before / np.maximum(was, _TINY) / _LARGEST)
        fresh = fresh.astype(np.float32)
        values: Arrays = {
            self.weight: np.rint(weight / _along(fresh, weight.ndim)).astype(np.int8),
            self.scale: fresh.reshape(factory[self.scale].shape),
        }
        if not self.steps:
            return values | {self.bias: bias.reshape(factory[self.bias].shape).astype(np.float32)}
        steps = (was * (fresh / before)).astype(np.float32)
        counts = np.clip(np.rint(bias / steps), -_INT32, _INT32).astype(np.int32)
        shapes = {name: factory[name].shape for name in (self.bias, self.steps)}
        return values | {self.bias: counts.reshape(shapes[self.bias]), self.steps: steps.reshape(shapes[self.steps])}

    def scaled(self, factory: Arrays, scale: Floats, shift: Floats) -> Arrays:
        """With a gain and a shift per output channel `(out,)`: integers stay, and their steps are scaled.

        Raises:
            BundleError: The constants are not those of a convolution with so many channels.
        """
        self.check(factory, len(scale))
        bias = factory[self.bias]
        values = {
            name: factory[name] * _along(scale.astype(np.float32), factory[name].ndim)
            for name in (self.scale or self.weight, self.steps)
            if name
        }
        if not self.steps:
            moved = scale.reshape(bias.shape) * bias + shift.reshape(bias.shape)
            return values | {self.bias: moved.astype(np.float32)}
        counts = bias + np.rint(shift / values[self.steps].ravel().astype(np.float64)).reshape(bias.shape)
        if np.abs(counts).max() > _LARGEST:  # larger steps hold it
            weight, exact = self.exact(factory)
            return self.written(factory, weight * _along(scale, weight.ndim), exact * scale + shift)
        return values | {self.bias: counts.astype(np.int32)}

    def mixed(self, factory: Arrays, matrix: Floats, shift: Floats) -> Arrays:
        """With output channels mixed: `matrix @ channels + shift`, `(out, out)` and `(out,)`.

        Raises:
            BundleError: The constants are not those of a convolution with so many channels.
        """
        self.check(factory, len(matrix))
        weight, bias = self.exact(factory)
        return self.written(factory, np.tensordot(matrix, weight, 1), matrix @ bias + shift)

    def check(self, factory: Arrays, channels: int | None = None) -> None:
        """Whether the constants are those of a convolution, with so many output channels.

        Raises:
            BundleError: They are not.
        """
        weight = factory[self.weight]
        out = weight.shape[0] if weight.ndim else 0
        kinds = {self.weight: np.int8 if self.scale else np.float32, self.bias: np.int32 if self.steps else np.float32}
        kinds |= {name: np.float32 for name in (self.scale, self.steps) if name}
        if (
            any(factory[name].dtype != kind for name, kind in kinds.items())
            or any(factory[name].size != out for name in kinds if name != self.weight)
            or weight.ndim < 3
            or channels not in (None, out)
        ):
            given = ", ".join(f"{name} {factory[name].dtype} {factory[name].shape}" for name in kinds)
            wanted = "a convolution" if channels is None else f"a convolution of {channels} channels"
            raise BundleError(f"{given} are not the constants of {wanted}; export the bundle again")


def _along(values: Floats, axes: int) -> Floats:
    """A value per output channel, beside an array with so many axes."""
    return values.reshape(-1, *[1] * (axes - 1))
