"""Where OpenVINO keeps what it compiled: a folder of the user's, bounded, and done without where it cannot be written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CACHE_VARIABLE = "EDGESSL_CACHE"  # as for TensorRT's plans
_KEPT_BYTES = 512 << 20


def open_cache() -> tuple[Path | None, str]:
    """`$EDGESSL_CACHE/openvino`, or `~/.cache/edgessl/openvino`, made where it is not there.

    Returns:
        The folder, and its path as text; or None, and why there is none.
    """
    try:
        named = os.environ.get(CACHE_VARIABLE)
        folder = (Path(named) if named else Path.home() / ".cache" / "edgessl") / "openvino"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # a read-only disk; a user without a home
        return None, f"off: {error}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return None, f"off: {folder} cannot be written; set {CACHE_VARIABLE} to a folder that can"
    return folder, str(folder)


def prune(folder: Path, kept_bytes: int = _KEPT_BYTES) -> None:
    """Remove the files that were written first until the rest is small enough."""
    with suppress(OSError):  # another process removes them too, and a cache that stays too large is no reason to fail
        files = sorted(folder.glob("*.blob"), key=lambda file: file.stat().st_mtime, reverse=True)
        total = 0
        for file in files:
            total += file.stat().st_size
            if total > kept_bytes:
                file.unlink()
