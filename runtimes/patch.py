"""Other weights in an ONNX file, without the onnx package.

Engines do not agree on how weights are replaced, and onnxruntime's own way (`add_initializer`) is ignored by the passes
that rearrange convolution weights. So the bytes of the file are replaced: in a serialized tensor the name stands
directly before the values, both with their lengths, and a value of the same shape has the same length.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import BundleError

_NAME, _RAW_DATA = b"\x42", b"\x4a"  # tags of TensorProto's fields 8 and 9 (onnx.proto), length-delimited


def with_weights(content: bytes, weights: Mapping[str, NDArray[np.float32]]) -> bytes:
    """The file `content` with these values for the initializers of these names.

    Raises:
        BundleError: An initializer is not there exactly once, or has another size.
    """
    patched = bytearray(content)
    for name, value in weights.items():
        raw = np.ascontiguousarray(value, np.dtype("<f4")).tobytes()
        encoded = name.encode()
        head = _NAME + _varint(len(encoded)) + encoded + _RAW_DATA + _varint(len(raw))
        if content.count(head) != 1:
            raise BundleError(f"the graph has no float32 initializer {name!r} of {value.size} values; export it again")
        start = content.index(head) + len(head)
        patched[start : start + len(raw)] = raw
    return bytes(patched)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])
