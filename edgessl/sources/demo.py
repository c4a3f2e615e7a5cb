"""The demo's simulated drive as a source."""

from __future__ import annotations

from edgessl.errors import UnknownNameError
from edgessl.signals import image_spec
from edgessl.sources.arrays import ArraySource
from edgessl.sources.drive import LAPS, drive

_SIZE = 64


def demo_source(lap: str, *, size: tuple[int, int] | None = None, frames: int = 1800, seed: int = 0) -> ArraySource:
    """One lap of the simulated drive; its `places` say where each frame was taken.

    Args:
        lap: A key of `LAPS`.
        size: Height and width of a frame.
        frames: Frames in the lap.
        seed: Of the path, the viewpoints and the noise.

    Raises:
        UnknownNameError: There is no such lap.
        MissingExtraError: The packages that bring the photographs are not installed.
    """
    if lap not in LAPS:
        raise UnknownNameError("lap", lap, LAPS)
    side = _SIZE if size is None else max(size)
    seen, places = drive(lap, frames=frames, size=side, seed=seed)
    names = [f"{lap}/{index:06d}" for index in range(len(seen))]
    return ArraySource(f"demo:{lap}", seen, image_spec(side, side), names, places=places, size=size)
