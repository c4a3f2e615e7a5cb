"""Frames of the source, disturbed as the stream is: what is seen and what it should give, in pairs, without a label.

Of the stream nothing is kept but its spectrum (`equalize.py`), and that says how to disturb a clean frame alike. A frequency
is damped as much as in the colour that kept least of it, since a blur, a haze or a lost contrast treat all colours alike; what
the stream has beyond that is noise, drawn anew for each frame. A tail that learns to give a disturbed frame the clean one's
vector learns to look past what no map of second order can undo: a haze is as smooth as what it hides. The pairs themselves
are made up, and what is wrong with them is learned, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import Bundle
from edgessl.runtimes.framefilter import FrameFilter
from edgessl.runtimes.spectrum import Spectrum, spread_bands

Floats = NDArray[np.float32]
Frames = NDArray[np.uint8]
_TINY = 1e-9
_AT_ONCE = 64  # frames that are embedded together


class Rehearsed(NamedTuple):
    """Frames of the source, each disturbed twice.

    Attributes:
        first, second: `(n, height, width, 3)`.
        vectors: What the factory's encoder makes of them undisturbed, `(n, dim)`.
    """

    first: Frames
    second: Frames
    vectors: Floats


class Rehearsal:
    """The frames that are rehearsed with.

    Args:
        source: Tensors of the bundle's `source` file, `spectrum` and `prepare` among them.
        frames: `(n, height, width, 3)` at the encoder's own size.
        vectors: The factory's of them, `(n, dim)`.
    """

    def __init__(self, source: Mapping[str, NDArray[Any]], frames: Frames, vectors: Floats) -> None:
        names = {"axes": "spectrum.axes", "mean": "prepare.mean", "std": "prepare.std"}
        self._scale = {name: source[tensor].astype(np.float32) for name, tensor in names.items()}
        self._source = Spectrum.of(source)
        self._frames, self._vectors = frames, vectors

    def draw(self, count: int, stream: Spectrum, rng: np.random.Generator) -> Rehearsed:
        """So many of them as the stream would show them."""
        rows = rng.choice(len(self._frames), size=count, replace=count > len(self._frames))
        twice = self.disturbed(self._frames[np.tile(rows, 2)], stream, rng)
        return Rehearsed(twice[:count], twice[count:], self._vectors[rows])

    def disturbed(self, frames: Frames, stream: Spectrum, rng: np.random.Generator) -> Frames:
        """Frames `(n, height, width, 3)` with the stream's spectrum in place of the source's."""
        source = self._source
        ratio = stream.power / np.maximum(source.power, _TINY)  # (channels, bands, bands)
        kept = np.broadcast_to(np.minimum(ratio.min(0), 1.0), ratio.shape)
        more = np.maximum(stream.power - kept * source.power, 0.0)
        apart = np.sqrt(stream.var / np.maximum(source.var, _TINY))
        size = frames.shape[1], frames.shape[2]
        numbers = {"gain": np.sqrt(kept), "mean_gain": apart, "shift": stream.mean - apart * source.mean}
        damped = FrameFilter(size=size, **self._scale, **{name: np.float32(each) for name, each in numbers.items()})
        noise = rng.standard_normal((len(frames), len(apart), *size), dtype=np.float32)
        return damped(frames, noise * spread_bands(np.sqrt(more), size))


def rehearsal_of(
    bundle: Bundle, source: Mapping[str, NDArray[Any]], embed: Callable[[Frames], Floats]
) -> Rehearsal | None:
    """With the bundle's frames; `None` where it has none, or does not say what frames look like.

    Raises:
        BundleError: The file cannot be read, or is of other frames.
    """
    if "spectrum.power" not in source or not any(artefact.role == "rehearsal" for artefact in bundle.artefacts):
        return None
    frames = bundle.tensors("rehearsal", "frames")["frames"]
    parts = [embed(frames[start : start + _AT_ONCE]) for start in range(0, len(frames), _AT_ONCE)]
    return Rehearsal(source, frames, np.concatenate(parts))
