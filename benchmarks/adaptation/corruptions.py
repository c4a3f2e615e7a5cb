"""CIFAR-10-C-style: the 15 + 4 corruptions of arXiv:1903.12261, built anew on numpy, scipy and Pillow.

The constants are those published for images of 32 pixels; the code is ours, and the pictures are not those of CIFAR-10-C.
So figures had on them stand beside figures had on them, never beside published ones. Where ours differs:

- every result is rounded to 8 bits; the published files are cut off;
- motion blur and snow use our own line kernel (`corruption_kinds.line_weights`) in place of ImageMagick's, after its definition;
- zoom blur and snow zoom about the centre of the image, not about a crop of whole pixels;
- glass blur gives each pixel a neighbour's value, which is what the published code does where it means to swap two;
- frost has no photographs of ice: each frame gets its own texture, ridges and veils of a plasma fractal in ice white;
- elastic transform samples once for the affine part and the waves together;
- spatter's drops are lit from the upper left by their own slope, instead of by edges and histograms of OpenCV.
"""

from __future__ import annotations

import sys
from pathlib import Path

import corruption_kinds
import numpy as np
from numpy.typing import NDArray

from edgessl.errors import InputError, UnknownNameError

Frames = NDArray[np.uint8]  # (n, 32, 32, 3)

#: Name -> constants of severity 1 to 5, in the standard order.
BENCHMARK = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": (500, 250, 100, 75, 50),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom_blur": (1.06, 1.11, 1.16, 1.21, 1.26),
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "elastic_transform": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": (80, 65, 58, 50, 40),
}
#: The four that settings are chosen on.
EXTRA = {
    "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
}

_AT_ONCE = 1000  # frames; bounds the memory


def corrupt(name: str, frames: Frames, *, severity: int, seed: int) -> Frames:
    """Corrupt every frame by a draw of its own.

    Args:
        name: A key of `BENCHMARK` or `EXTRA`.
        frames: uint8 `(n, 32, 32, 3)`.
        severity: 1 to 5.
        seed: The same name, severity, seed and frames give the same bytes.

    Returns:
        uint8 `(n, 32, 32, 3)`.

    Raises:
        UnknownNameError: No such corruption.
        InputError: The severity is not 1 to 5, or the frames are of another shape or dtype.
    """
    severities = BENCHMARK | EXTRA
    if name not in severities:
        raise UnknownNameError("corruption", name, severities)
    if severity not in range(1, 6):
        raise InputError(f"severity {severity} does not exist; choose 1 to 5")
    if frames.dtype != np.uint8 or frames.shape[1:] != (32, 32, 3):
        raise InputError(f"frames must be uint8 (n, 32, 32, 3), not {frames.dtype} {frames.shape}")
    constants = severities[name][severity - 1]
    if not isinstance(constants, tuple):
        constants = (constants,)
    change = getattr(corruption_kinds, name)
    rng = np.random.default_rng([*name.encode(), severity, seed])
    corrupted = np.empty_like(frames)
    for start in range(0, len(frames), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        images = change(*constants, frames[part].astype(np.float32) / 255, rng)
        corrupted[part] = np.rint(images * 255).clip(0, 255)
    return corrupted


def cifar10(folder: Path, split: str, count: int) -> tuple[Frames, NDArray[np.int64]]:
    """Frames uint8 `(count, 32, 32, 3)` and labels `(count,)`: the first ones of `cifar10/cifar10.npz` in a data folder."""
    sys.path.append(str(Path(__file__).parents[1]))  # a script has only its own folder
    from cifar import cifar10 as source_of

    source = source_of(folder, split, slice(count))
    # A source numbers the classes that it has; the file's own numbers hold for any count and either split.
    return source.read(range(count))[1], np.array(source.classes, np.int64)[source.labels]
