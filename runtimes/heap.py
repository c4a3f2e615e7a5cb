"""What the C library keeps of memory that was given back."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_BYTES = 128 * 1024  # glibc's own value of both, at the start


def steady_heap() -> bool:
    """Large blocks go back to the system when they are freed, as they do when a process starts; on glibc only.

    With each large block that is freed glibc raises the size from which it asks the system for a block of its own, up to 32 MiB.
    What is freed below that stays with the process, in pieces: a process that opens a graph now and then, and trains, keeps
    half as much again as it uses. Whoever sets `MALLOC_MMAP_THRESHOLD_` or `MALLOC_TRIM_THRESHOLD_` has decided otherwise.

    Returns:
        Whether the C library took it.
    """
    own = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}
    if not sys.platform.startswith("linux") or own & os.environ.keys():
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 (musl has a mallopt that does nothing)
        return all(library.mallopt(name, _BYTES) == 1 for name in (_MMAP, _TRIM))
    except (AttributeError, OSError):
        return False
