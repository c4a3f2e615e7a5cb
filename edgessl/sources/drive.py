"""A simulated camera that drives over real photographs, by day and by night; nothing is downloaded.

The photographs are those inside the wheels of scikit-image and scikit-learn. A lap visits them one after the other
along a smooth path, so frames come in driving order and neighbours look alike, as on a robot.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import MissingExtraError, UnknownNameError

# Package, and path inside it. Read by path: some loaders of scikit-image would go to the network.
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
_WHEELS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
TOLERANCE = 0.5  # frame widths: half a frame
_PHOTO_GAP = 100.0  # what one photograph is apart from the next in a place, far over any tolerance
_SHORT_SIDE = 4.0  # the short side of every photograph, in frame widths
ROUNDS = 9  # times that a lap comes by every photograph, each time on the next piece of its path
_CHUNK = 64  # frames drawn at once, to keep memory small


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
        phase=0.5, shift=0.25, zoom=1.4, turn_deg=40.0, gain=0.25, read_noise=0.012, shot_noise=0.02, blur_px=0.5
    ),
    "night_unseen": Lap(
        phase=0.75, shift=0.25, zoom=1.4, turn_deg=40.0, gain=0.25, read_noise=0.012, shot_noise=0.02, blur_px=0.5
    ),
}


def drive(lap: str, frames: int = 1800, size: int = 64, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Drive one lap and return what the camera saw, in driving order, and where it was.

    A place is `(photograph * 100, x, y)` of the point on the path that the camera was at, in frame widths, before the
    lap's own step off the path. Plain distance therefore says it all: a retrieved frame is right when its place is
    within `TOLERANCE` of the true one; another photograph is at least 100 away. All laps of one seed share the path.

    Args:
        lap: A key of `LAPS`: "day" makes the map, "revisit" comes by day from other viewpoints, "night" and
            "night_unseen" are two independent traversals in the dark.
        frames: Frames in the lap, shared out over the photographs.
        size: Height and width of a frame, in pixels.
        seed: Of the path, the viewpoints and the noise.

    Returns:
        Frames `(frames, size, size, 3)` and places `(frames, 3)`.

    Raises:
        UnknownNameError: There is no lap of that name.
        MissingExtraError: scikit-image, scikit-learn or Pillow is not installed.
    """
    if lap not in LAPS:
        raise UnknownNameError("lap", lap, LAPS)
    how = LAPS[lap]
    clock = (np.arange(frames) + how.phase) / frames * ROUNDS * len(PHOTOS)  # in visits
    visit = np.minimum(clock.astype(int), ROUNDS * len(PHOTOS) - 1)
    which = visit % len(PHOTOS)
    along = (visit // len(PHOTOS) + clock - visit) / ROUNDS  # of the photograph's path, 0..1
    route = np.random.default_rng([seed, 0])
    view = np.random.default_rng([seed, 1, crc32(lap.encode())])
    seen = np.empty((frames, size, size, 3), np.uint8)
    places = np.empty((frames, 3))
    for index in range(len(PHOTOS)):
        photo = _blurred(_photo(*PHOTOS[index], round(_SHORT_SIDE * size)), how.blur_px * size / 64)
        here = np.flatnonzero(which == index)
        time = along[here]
        at = _path(time, (photo.shape[1] / size, photo.shape[0] / size), route)
        off = how.shift * np.stack([_wander(time, view), _wander(time, view)], 1)
        scale = how.zoom ** _wander(time, view)
        turn = np.radians(how.turn_deg) * _wander(time, view)
        places[here] = np.column_stack([np.full(len(here), index * _PHOTO_GAP), at])
        for first in range(0, len(here), _CHUNK):
            part = slice(first, first + _CHUNK)
            light = _look(photo, (at + off)[part] * size, scale[part], turn[part], size)
            seen[here[part]] = _sensor(light, how, view)
    return seen, places


@lru_cache(maxsize=len(PHOTOS))
def _photo(package: str, name: str, short_px: int) -> NDArray[np.float32]:
    """Read one photograph in steps of 0..1 as `(height, width, 3)` with the short side as asked."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtraError(_WHEELS[package], "demo")
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError("pillow", "demo") from error
    with Image.open(Path(spec.origin).parent / name) as picture:
        factor = short_px / min(picture.size)
        shape = (round(picture.width * factor), round(picture.height * factor))
        pixels = np.asarray(picture.convert("RGB").resize(shape, Image.Resampling.BICUBIC))
    return np.asarray(pixels / np.float32(255), np.float32)


def _path(time: NDArray[np.float64], photo: tuple[float, float], rng: np.random.Generator) -> NDArray[np.float64]:
    """Points `(frames, 2)` of a smooth closed curve that keeps the frame inside the photograph, in frame widths."""
    phase = rng.uniform(0, 2 * np.pi, 2)
    x = np.sin(2 * np.pi * time + phase[0])
    y = np.sin(4 * np.pi * time + phase[1])
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
    grid = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    cos, sin, across, down = (
        value.astype(np.float32)[:, None, None]
        for value in (scale * np.cos(turn), scale * np.sin(turn), centre[:, 0], centre[:, 1])
    )
    left, right_part = _mirror(across + cos * grid[None, None, :] - sin * grid[None, :, None], photo.shape[1])
    top, low_part = _mirror(down + sin * grid[None, None, :] + cos * grid[None, :, None], photo.shape[0])
    flat, corner = photo.reshape(-1, 3), top * photo.shape[1] + left
    upper = flat.take(corner, 0) * (1 - right_part) + flat.take(corner + 1, 0) * right_part
    corner += photo.shape[1]
    lower = flat.take(corner, 0) * (1 - right_part) + flat.take(corner + 1, 0) * right_part
    return np.asarray(upper * (1 - low_part) + lower * low_part)  # (frames, size, size, 3)


def _mirror(at: NDArray[np.float32], side: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The pixel left of each coordinate, mirrored into the photograph, and how far beyond it the coordinate is."""
    inside = np.float32(side - 1) - np.abs(np.float32(side - 1) - np.abs(at))
    pixel = inside.astype(np.intp).clip(0, side - 2)
    return pixel, (inside - pixel).clip(0, 1)[..., None].astype(np.float32)


def _blurred(photo: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """The scene is blurred before the camera looks at it: as each frame would be, but for the zoom, in less time."""
    if sigma == 0:
        return photo
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(photo, (sigma, sigma, 0)), np.float32)


def _sensor(light: NDArray[np.float32], how: Lap, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn light into what the sensor gives: dimmed, noisy, in 256 steps."""
    light = light * np.float32(how.gain)
    if how.read_noise > 0 or how.shot_noise > 0:
        spread = np.sqrt(how.read_noise**2 + how.shot_noise**2 * light)
        light = light + spread * rng.standard_normal(light.shape, dtype=np.float32)
    return np.asarray((light * 255 + 0.5).clip(0, 255), np.uint8)


def redrive(frames: NDArray[np.uint8], lap: str, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Make a lap out of frames that somebody's own camera took by day, as `drive` does out of photographs.

    A place is `(index / 10, 0, 0)`, so that a frame within five of the true one is within `TOLERANCE`.

    Args:
        frames: `(n, size, size, 3)`, in driving order.
        lap: A key of `LAPS`; "day" gives the frames as they are.
        seed: Of the viewpoints and the noise.

    Raises:
        UnknownNameError: There is no lap of that name.
    """
    if lap not in LAPS:
        raise UnknownNameError("lap", lap, LAPS)
    places = np.zeros((len(frames), 3))
    places[:, 0] = np.arange(len(frames)) / 10
    if lap == "day":
        return frames, places
    how, size = LAPS[lap], frames.shape[1]
    view = np.random.default_rng([seed, 1, crc32(lap.encode())])
    time = np.arange(len(frames)) / len(frames) * len(PHOTOS)
    off = how.shift * np.stack([_wander(time, view), _wander(time, view)], 1)
    scale, turn = how.zoom ** _wander(time, view), np.radians(how.turn_deg) * _wander(time, view)
    centre = (np.array([[0.5, 0.5]]) + off) * size
    seen = np.empty_like(frames)
    for index, frame in enumerate(frames):
        one = slice(index, index + 1)
        light = _look(
            _blurred(frame / np.float32(255), how.blur_px * size / 64), centre[one], scale[one], turn[one], size
        )
        seen[one] = _sensor(light, how, view)
    return seen, places
