"""What displacements of frames from their nearest source frames say: how far, along what, and whether two are one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import BundleError

TINY = 1e-12
_APART = 5  # source frames before and after one that are not asked for its nearest
_FEW = 64  # source frames below which they say nothing of how displacements scatter
Floats64 = NDArray[np.float64]


class Reference:
    """Where the source's frames lie: what displacements are counted from.

    Args:
        source: Tensors of the bundle's `source` file.

    Attributes:
        size: Length of a whitened statistic.
        threshold: Score that clean blocks stay below.

    Raises:
        BundleError: The bundle has no drift reference.
    """

    def __init__(self, source: Mapping[str, NDArray[np.floating]]) -> None:
        try:
            self._mean = source["drift.mean"].astype(np.float64)
            self._whiten = source["drift.whiten"].astype(np.float64)
            # A bundle without a bank has one scene, the mean.
            self._bank = source.get("drift.bank", np.zeros((1, len(self._whiten)))).astype(np.float64)
            self.threshold = float(source["drift.threshold"].item())
        except KeyError as error:
            raise BundleError(f"the bundle has no {error} to judge drift by; export it again") from error
        self.size = len(self._whiten)
        self._bias = bias(self._bank)

    def whitened(self, statistic: Floats64) -> Floats64:
        """Statistics `(batch, 2 channels)` in units of the source's spread, `(batch, size)`."""
        return np.asarray((statistic - self._mean) @ self._whiten.T)

    def displacement(self, whitened: Floats64) -> Floats64:
        """From the nearest source frame, `(batch, size)`, less what the source's own frames have on average."""
        squared = np.square(self._bank).sum(1) - 2 * whitened @ self._bank.T  # and |whitened|^2, the same for all
        return np.asarray(whitened - self._bank[squared.argmin(1)] - self._bias)

    def clipped(self, moved: Floats64, thresholds: float) -> Floats64:
        """No longer than the square root of so many thresholds."""
        distance = np.maximum((moved**2).mean(1, keepdims=True), TINY)
        return np.asarray(moved * np.minimum(1.0, np.sqrt(thresholds * self.threshold / distance)))


def score_of(moved: Floats64) -> float:
    """Squared length of the mean displacement, per dimension."""
    return float((moved.mean(0) ** 2).mean()) if len(moved) else 0.0


def along(moved: Floats64, signature: Floats64) -> float:
    """How far frames have moved along a known shift, 1 for all of its way.

    Scenes move a block anywhere; along one direction they hardly do, so few frames are enough.
    """
    return float(moved.mean(0) @ signature / max(float(signature @ signature), TINY)) if len(moved) else 0.0


def near(here: Floats64, signature: Floats64, noise: float, share: float) -> bool:
    """Whether a mean displacement, squared error `noise`, may be one of a known shift."""
    apart = float(np.square(here - signature).sum()) - noise
    return apart <= share * min(float(here @ here), float(signature @ signature))


def alike(moved: Floats64, factor: float, share: float) -> bool:
    """Whether both halves of these displacements, of which `factor` are worth an independent one, may lie in one place."""
    half = len(moved) // 2
    if half < 2:
        return False
    halves = moved[:half], moved[half:]
    noise = sum(float(part.var(0, ddof=1).sum()) * factor / len(part) for part in halves)
    return near(halves[0].mean(0), halves[1].mean(0), noise, share)


def bias(bank: Floats64) -> Floats64:
    """Mean displacement of the source's own frames, each from the nearest that is not beside it in time."""
    if len(bank) < _FEW:
        return np.zeros(bank.shape[1])
    squared = np.square(bank).sum(1)
    distance = squared[:, None] + squared[None] - 2 * bank @ bank.T
    order = np.arange(len(bank))
    distance[np.abs(order[:, None] - order[None]) <= _APART] = np.inf
    return np.asarray((bank - bank[distance.argmin(1)]).mean(0))
