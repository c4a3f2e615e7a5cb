"""What one sample is: kind, shape, dtype and units, and how a batch is checked against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError

SERIES = ("series", "clip")  #: kinds whose samples are `(channels, time)`
KINDS = ("image", *SERIES)


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One sample, untouched, as the sensor gives it.

    Attributes:
        kind: `image` (`uint8 (height, width, 3)`, RGB), `series` or `clip` (both `float32 (channels, time)`; a clip is
            sound).
        shape: Shape of one sample, without the batch.
        dtype: numpy name of the sample's dtype.
        units: Unit of the values; `RGB 0..255` for images.
        rate_hz: Time steps per second of a series, where it is known.
        channels: Names of a series' channels, where they are known.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    units: str
    rate_hz: float | None = None
    channels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"no kind of signal {self.kind!r}; choose one of {', '.join(KINDS)}")
        if any(size < 1 for size in self.shape):
            raise InputError(f"the shape of a sample must be positive, not {self.shape}")
        rate = self.rate_hz
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1e12):
            raise InputError(f"rate_hz must be a positive, finite number, or None where it is not known, not {rate!r}")
        if self.kind == "image" and (rate is not None or self.channels):
            raise InputError("rate_hz and channels are facts of a series; leave them out for images")
        if self.channels and (
            len(self.channels) != self.shape[0] or not all(isinstance(name, str) for name in self.channels)
        ):
            raise InputError(f"channels must be {self.shape[0]} names, one per channel, not {self.channels!r}")

    def check(self, batch: Any) -> NDArray[Any]:
        """Return `batch` as an array `(batch, *shape)` of the right dtype, or say what is wrong with it.

        Raises:
            InputError: Wrong dtype, shape, channel order or value range. Names what was given and what is taken.
        """
        array = np.asarray(batch)
        if array.shape[1:] == self.shape and array.dtype == self.dtype:
            return array  # what comes next costs a frame more than it looks: behind a graph, Python's own code is cold
        wanted = f"this encoder takes {self.dtype} (batch, {', '.join(map(str, self.shape))}), {self.units}"
        given = f"got {array.dtype} {array.shape}"
        if array.shape == self.shape:
            raise InputError(f"{given}, a single sample; {wanted}. Type frames[None]")
        if array.shape[1:] != self.shape:
            raise InputError(f"{given}; {wanted}{self._shape_hint(array.shape)}")
        raise InputError(f"{given}; {wanted}{self._dtype_hint(array)}")

    def finite(self, batch: NDArray[Any]) -> NDArray[np.bool_]:
        """Which samples hold only finite numbers: `(batch,)`."""
        if not np.issubdtype(batch.dtype, np.floating):
            return np.ones(len(batch), dtype=bool)
        return np.asarray(np.isfinite(batch.reshape(len(batch), -1)).all(1))

    def blank(self, batch: NDArray[Any]) -> NDArray[np.bool_]:
        """Which samples show nothing, `(batch,)`: a covered lens, a camera or a sensor that hangs.

        No channel of a frame differs from one pixel to the next by more than 2 levels of 256, or of a series in time at all.
        """
        still = np.ptp(batch, (1, 2)) <= 2 if self.kind == "image" else batch.max(-1) == batch.min(-1)
        return np.asarray(still.all(tuple(range(1, still.ndim))))

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values; what is not known is left out."""
        told: dict[str, Any] = {
            "kind": self.kind,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "units": self.units,
        }
        if self.rate_hz is not None:
            told["rate_hz"] = self.rate_hz
        if self.channels:
            told["channels"] = list(self.channels)
        return told

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> InputSpec:
        """The opposite of `to_json`."""
        channels = fields.get("channels", [])
        if not isinstance(channels, list):
            raise InputError(f"channels must be a list of names, not {channels!r}")
        return cls(
            kind=str(fields["kind"]),
            shape=tuple(int(size) for size in fields["shape"]),
            dtype=str(fields["dtype"]),
            units=str(fields["units"]),
            rate_hz=fields.get("rate_hz"),
            channels=tuple(channels),
        )

    def _shape_hint(self, shape: tuple[int, ...]) -> str:
        if len(shape) == len(self.shape) + 1 and self.kind == "image":
            if shape[1:] == (self.shape[2], *self.shape[:2]):
                return ". These are channels first: type frames.transpose(0, 2, 3, 1)"
            if shape[1:3] == self.shape[:2] and shape[3] in (1, 4):
                return f". These have {shape[3]} channels: convert them to RGB"
        if len(shape) == 3 and self.kind in SERIES and shape[:0:-1] == self.shape:
            return ". These are time first: type frames.transpose(0, 2, 1)"
        return ""

    def _dtype_hint(self, array: NDArray[Any]) -> str:
        if self.dtype == "uint8":
            return image_hint(array, "frames")
        number = np.issubdtype(array.dtype, np.number) and not np.issubdtype(array.dtype, np.complexfloating)
        return f". Type frames.astype({self.dtype!r})" if number else ""


def image_hint(array: NDArray[Any], name: str) -> str:
    """What to do about images that are not uint8, judged by their values; never a conversion that loses them.

    Args:
        array: Numbers of another dtype.
        name: What the array is called in the line to type.
    """
    if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating) or array.size == 0:
        return ""
    low, high = float(np.min(array)), float(np.max(array))
    if not np.isfinite([low, high]).all():
        return ". The values hold NaN or infinity: leave those samples out first"
    if np.issubdtype(array.dtype, np.floating) and low >= 0 and high <= 1:
        return f". The values lie in {low:.3g}..{high:.3g}: type ({name} * 255).round().astype('uint8')"
    if low < 0 or high > 255:
        return f". The values lie in {low:.4g}..{high:.4g}, outside 0..255: undo the normalisation first"
    whole = np.issubdtype(array.dtype, np.integer) or bool((array == np.round(array)).all())
    return f". Type {name}{'' if whole else '.round()'}.astype('uint8')"


def image_spec(height: int, width: int) -> InputSpec:
    """The spec of an RGB frame of this size."""
    return InputSpec(kind="image", shape=(height, width, 3), dtype="uint8", units="RGB 0..255")


def series_spec(
    channels: int | Sequence[str],
    time: int,
    *,
    rate_hz: float | None = None,
    units: str = "as recorded",
    kind: str = "series",
) -> InputSpec:
    """The spec of a window of a multi-channel recording.

    Args:
        channels: How many, or their names.
        time: Time steps in a window.
        rate_hz: Time steps per second.
        units: Of the values.
        kind: `series`, or `clip` for sound.
    """
    names = () if isinstance(channels, int) else tuple(channels)
    count = channels if isinstance(channels, int) else len(names)
    return InputSpec(kind=kind, shape=(count, time), dtype="float32", units=units, rate_hz=rate_hz, channels=names)
