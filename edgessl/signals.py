"""What one sample is: kind, shape, dtype and units, and how a batch is checked against it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError

KINDS = ("image", "series")


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One sample, untouched, as the sensor gives it.

    Attributes:
        kind: `image` (`uint8 (height, width, 3)`, RGB) or `series` (`float32 (channels, time)`).
        shape: Shape of one sample, without the batch.
        dtype: numpy name of the sample's dtype.
        units: Unit of the values; `RGB 0..255` for images.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    units: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"no kind of signal {self.kind!r}; choose one of {', '.join(KINDS)}")
        if any(size < 1 for size in self.shape):
            raise InputError(f"the shape of a sample must be positive, not {self.shape}")

    def check(self, batch: Any) -> NDArray[Any]:
        """Return `batch` as an array `(batch, *shape)` of the right dtype, or say what is wrong with it.

        Raises:
            InputError: Wrong dtype, shape, channel order or value range. Names what was given and what is taken.
        """
        array = np.asarray(batch)
        wanted = f"this encoder takes {self.dtype} (batch, {', '.join(map(str, self.shape))}), {self.units}"
        given = f"got {array.dtype} {array.shape}"
        if array.shape == self.shape:
            raise InputError(f"{given}, a single sample; {wanted}. Type frames[None]")
        if array.shape[1:] != self.shape:
            raise InputError(f"{given}; {wanted}{self._shape_hint(array.shape)}")
        if array.dtype != np.dtype(self.dtype):
            raise InputError(f"{given}; {wanted}{image_hint(array, 'frames') if self.dtype == 'uint8' else ''}")
        return array

    def finite(self, batch: NDArray[Any]) -> NDArray[np.bool_]:
        """Which samples hold only finite numbers: `(batch,)`."""
        if not np.issubdtype(batch.dtype, np.floating):
            return np.ones(len(batch), dtype=bool)
        return np.asarray(np.isfinite(batch.reshape(len(batch), -1)).all(1))

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self) | {"shape": list(self.shape)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> InputSpec:
        """The opposite of `to_json`."""
        return cls(
            kind=str(fields["kind"]),
            shape=tuple(int(size) for size in fields["shape"]),
            dtype=str(fields["dtype"]),
            units=str(fields["units"]),
        )

    def _shape_hint(self, shape: tuple[int, ...]) -> str:
        if len(shape) == len(self.shape) + 1 and self.kind == "image":
            if shape[1:] == (self.shape[2], *self.shape[:2]):
                return ". These are channels first: type frames.transpose(0, 2, 3, 1)"
            if shape[1:3] == self.shape[:2] and shape[3] in (1, 4):
                return f". These have {shape[3]} channels: convert them to RGB"
        return ""


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
