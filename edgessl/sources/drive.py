"""A simulated camera that drives over real photographs, by day and by night; nothing is downloaded.

The photographs are those inside the wheels of scikit-image and scikit-learn. A lap visits them one after the other along
a smooth path, so frames come in driving order and neighbours look alike, as on a robot.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import MissingExtraError, UnknownNameError

# Path relative to its package; read by path, because some loaders of scikit-image would go to the network.
PHOTOS = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/camera.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/coins.png"),
    ("skimage", "data/grass.png"),
    ("skimage", "data/gravel.png"),
    ("skimage", "data/hubble_deep_field.jpg"),
    ("skimage", "data/ihc.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/retina.jpg"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)
TOLERANCE = 0.5  # frame widths: half a frame
_PHOTO_GAP = 100.0  # what one photograph is apart from the next in a place, far over any tolerance
_SHORT_SIDE = 4.0  # the short side of every photograph, in frame widths
_CHUNK = 256  # frames drawn at once, to keep memory small


@dataclass(frozen=True, kw_only=True)
class Lap:
    """How a lap differs from the one that made the map.

    Args:
        phase: Where between two day frames the camera takes its picture, in frames.
        shift: Largest step off the path, in frame widths, on either axis.
        zoom: Largest change of scale, as a factor.
        turn_deg: Largest roll of the camera, either way.
        gain: Light that reaches the sensor, 1 by day.
        read_noise: Standard deviation of the sensor's own noise, full scale 1.
        shot_noise: Standard deviation of the noise of the light itself at full scale; it grows with its square root.
        blur_px: Standard deviation of the blur, in pixels of a 64 pixel frame.
    """

    phase: float = 0.0
    shift: float = 0.0
    zoom: float = 1.0
    turn_deg: float = 0.0
    gain: float = 1.0
    read_noise: float = 0.0
    shot_noise: float = 0.0
    blur_px: float = 0.0


LAPS = {
    "day": Lap(),
    "revisit": Lap(phase=0.25, shift=0.25, zoom=1.4, turn_deg=40.0),
    "night": Lap(
        phase=0.5, shift=0.25, zoom=1.4, turn_deg=40.0, gain=0.35, read_noise=0.02, shot_noise=0.03, blur_px=0.8
    ),
    "night_unseen": Lap(
        phase=0.75, shift=0.25, zoom=1.4, turn_deg=40.0, gain=0.35, read_noise=0.02, shot_noise=0.03, blur_px=0.8
    ),
}


def drive(
    lap: str, frames: int = 1800, size: int = 64, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Drive one lap and return what the camera saw, in driving order, and where it was.

    A place is `(photograph * 100, x, y)` of the point on the path that the camera was at, in frame widths, before the
    lap's own step off the path. Plain distance therefore says it all: a retrieved frame is right when its place is within
    `TOLERANCE` of the true one; another photograph is at least 100 away. All laps of one seed share the path.

    Args:
        lap: A key of `LAPS`: "day" makes the map, "revisit" comes by day from other viewpoints, "night" and "night_unseen"
            are two independent traversals in the dark.
        frames: Frames in the lap, shared out over the photographs.
        size: Height and width of a frame, in pixels.
        seed: Of the path, the viewpoints and the noise.

    Returns:
        Frames `(frames, size, size, 3)` and places `(frames, 3)`.

    Raises:
        UnknownNameError: There is no lap of that name.
        MissingExtraError: scikit-image or scikit-learn is not installed.
    """
    if lap not in LAPS:
        raise UnknownNameError("lap", lap, LAPS)
    how = LAPS[lap]
    route = np.random.default_rng([seed, 0])
    view = np.random.default_rng([seed, 1, crc32(lap.encode())])
    edges = np.linspace(0, frames, len(PHOTOS) + 1).round().astype(int)
    seen = np.empty((frames, size, size, 3), np.uint8)
    places = np.empty((frames, 3))
    for index, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        photo = _photo(*PHOTOS[index], round(_SHORT_SIDE * size))
        time = (np.arange(start, stop) + how.phase - start) / max(stop - start, 1)
        at = _path(time, (photo.shape[1] / size, photo.shape[0] / size), route)
        off = how.shift * np.stack([_wander(time, view), _wander(time, view)], 1)
        scale = how.zoom ** _wander(time, view)
        turn = np.radians(how.turn_deg) * _wander(time, view)
        places[start:stop] = np.column_stack([np.full(len(time), index * _PHOTO_GAP), at])
        for first in range(0, len(time), _CHUNK):
            part = slice(first, first + _CHUNK)
            light = _look(photo, (at + off)[part] * size, scale[part], turn[part], size)
            seen[start + first : start + first + len(light)] = _sensor(light, how, view)
    return seen, places


def _photo(package: str, name: str, short_px: int) -> NDArray[np.float32]:
    """Read one photograph in linear steps of 0..1 as `(height, width, 3)` with the short side as asked."""
    try:
        folder = Path(str(import_module(package).__file__)).parent
        from skimage.io import imread
        from skimage.transform import resize
    except ModuleNotFoundError as error:
        if error.name not in ("skimage", "sklearn"):
            raise
        raise MissingExtraError({"skimage": "scikit-image", "sklearn": "scikit-learn"}[error.name], "demo") from error
    pixels = np.asarray(imread(folder / name))
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    factor = short_px / min(pixels.shape[:2])
    shape = (round(pixels.shape[0] * factor), round(pixels.shape[1] * factor), 3)
    return np.asarray(resize(pixels[..., :3] / np.float32(255), shape, anti_aliasing=True), np.float32)


def _path(
    time: NDArray[np.float64], photo: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Points `(frames, 2)` of a smooth closed curve that keeps the frame inside the photograph, in frame widths."""
    phase = rng.uniform(0, 2 * np.pi, 2)
    x = np.sin(2 * np.pi * 1 * time + phase[0])
    y = np.sin(2 * np.pi * 2 * time + phase[1])
    reach = [max(side / 2 - 0.6, 0.0) for side in photo]
    return np.stack([photo[0] / 2 + reach[0] * x, photo[1] / 2 + reach[1] * y], axis=1)


def _wander(time: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A smooth random curve within -1..1: what a driver's hand does from frame to frame."""
    turns = rng.uniform(2, 9, 3)
    phase = rng.uniform(0, 2 * np.pi, 3)
    return np.asarray(np.sin(2 * np.pi * time[:, None] * turns + phase).mean(axis=1) * 1.5).clip(-1, 1)


def _look(
    photo: NDArray[np.float32],
    centre: NDArray[np.float64],
    scale: NDArray[np.float64],
    turn: NDArray[np.float64],
    size: int,
) -> NDArray[np.float32]:
    """Cut turned and scaled windows out of a photograph, bilinear, mirrored at its border."""
    grid = np.arange(size) - (size - 1) / 2
    cos, sin = (scale * np.cos(turn))[:, None, None], (scale * np.sin(turn))[:, None, None]
    x = centre[:, 0, None, None] + cos * grid[None, None, :] - sin * grid[None, :, None]
    y = centre[:, 1, None, None] + sin * grid[None, None, :] + cos * grid[None, :, None]
    x, y = _mirror(x, photo.shape[1] - 1), _mirror(y, photo.shape[0] - 1)
    left = np.minimum(x.astype(np.intp), photo.shape[1] - 2)
    top = np.minimum(y.astype(np.intp), photo.shape[0] - 2)
    right_part = (x - left)[..., None].astype(np.float32)
    low_part = (y - top)[..., None].astype(np.float32)
    upper = photo[top, left] * (1 - right_part) + photo[top, left + 1] * right_part
    lower = photo[top + 1, left] * (1 - right_part) + photo[top + 1, left + 1] * right_part
    return np.asarray(upper * (1 - low_part) + lower * low_part)  # (frames, size, size, 3)


def _mirror(at: NDArray[np.float64], last: int) -> NDArray[np.float64]:
    return np.asarray(last - np.abs(last - np.abs(at) % (2 * last)))


def _sensor(light: NDArray[np.float32], how: Lap, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn light into what the sensor gives: blurred, dimmed, noisy, in 256 steps."""
    if how.blur_px > 0:
        from scipy.ndimage import gaussian_filter

        sigma = how.blur_px * light.shape[1] / 64
        light = gaussian_filter(light, (0, sigma, sigma, 0))
    light = light * np.float32(how.gain)
    if how.read_noise > 0 or how.shot_noise > 0:
        spread = np.sqrt(how.read_noise**2 + how.shot_noise**2 * light)
        light = light + spread * rng.standard_normal(light.shape, dtype=np.float32)
    return np.asarray((light * 255 + 0.5).clip(0, 255), np.uint8)
