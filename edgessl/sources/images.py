"""One image file -> one RGB frame."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edgessl.errors import InputError

#: Endings that are looked at; anything else in a folder is not taken for an image.
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
)


class UnreadableError(Exception):
    """An image cannot be read; the message is the reason. Never leaves this package."""


def read_image(path: Path | BytesIO, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Decode, turn upright, convert to RGB and resize one image.

    Args:
        path: The file, or what stands in it.
        size: Height and width, or None for the image's own.

    Returns:
        `(height, width, 3)`.

    Raises:
        UnreadableError: It is no image, is damaged, or has more pixels than Pillow's limit against decompression bombs.
    """
    try:
        if isinstance(path, Path) and not path.is_file():  # a pipe would block, a broken link cannot be opened
            raise UnreadableError("not a file, or a broken link")
        if (path.stat().st_size if isinstance(path, Path) else path.getbuffer().nbytes) == 0:
            raise UnreadableError("empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            if size is not None:
                # A JPEG is decoded at a half, quarter or eighth where that leaves twice the pixels that are needed.
                image.draft("RGB", (2 * size[1], 2 * size[0]))
            upright = ImageOps.exif_transpose(_rgb(image))
    except UnreadableError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableError("not an image that Pillow knows") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from error
    except Exception as error:  # a damaged header makes Pillow's decoders raise almost anything
        raise UnreadableError(str(error) or type(error).__name__) from error
    return resized(np.asarray(upright), size)


def one_image(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The frame `(height, width, 3)` of an image that the user named.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return read_image(path, size)
    except UnreadableError as error:
        raise InputError(f"{path} cannot be read as an image: {error}; name another") from error


def resized(frame: NDArray[np.uint8], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """`frame` `(height, width, 3)` stretched to `size` (height, width), bilinear, antialiased."""
    if size is None or frame.shape[:2] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnreadableError("floating point pixels; save it with 8 bits per channel")
    if image.mode.startswith("I"):  # 16 bit grey; Pillow's own conversion clips at 255 instead of scaling
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise UnreadableError("more than 16 bits per pixel; save it with 8 bits per channel")
        grey = Image.fromarray((levels >> 8).astype(np.uint8))
        grey.info["exif"] = image.info.get("exif", b"")
        return grey.convert("RGB")
    return image.convert("RGB")
