"""Where OpenVINO keeps what it compiled: a folder of the user's, bounded, and done without where it cannot be written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from edgessl.files import sha256_of

CACHE_VARIABLE = "EDGESSL_CACHE"  # as for TensorRT's plans
_KEPT_BYTES = 512 << 20


def open_cache(graph: Path) -> tuple[Path | None, str]:
    """A folder for this graph alone, in `$EDGESSL_CACHE/openvino` or `~/.cache/edgessl/openvino`.

    OpenVINO 2025.4 takes graphs that differ only in their weights for each other: a robot whose bundle was replaced by one
    that learned more would go on with the old vectors, and say nothing. So the content of the files is in the folder's name.

    Returns:
        The folder, and the path of the cache as text; or None, and why there is none.
    """
    try:
        named = os.environ.get(CACHE_VARIABLE)
        cache = (Path(named) if named else Path.home() / ".cache" / "edgessl") / "openvino"
        cache.mkdir(parents=True, exist_ok=True)
        if not os.access(cache, os.W_OK | os.X_OK):
            return None, f"off: {cache} cannot be written; set {CACHE_VARIABLE} to a folder that can"
        files = [file for file in (graph, graph.with_suffix(".bin")) if file.is_file()]
        folder = cache / "-".join(sha256_of(file)[:24] for file in files)
        folder.mkdir(exist_ok=True)
    except (OSError, RuntimeError) as error:  # a read-only disk; a user without a home
        return None, f"off: {error}"
    return folder, str(cache)


def prune(cache: Path, kept_bytes: int = _KEPT_BYTES) -> None:
    """Remove the files that were written first, and their folders, until the rest is small enough."""
    with suppress(OSError):  # another process removes them too, and a cache that stays too large is no reason to fail
        files = sorted(cache.glob("*/*.blob"), key=lambda file: file.stat().st_mtime, reverse=True)
        total = 0
        for file in files:
            total += file.stat().st_size
            if total > kept_bytes:
                file.unlink()
                with suppress(OSError):  # a newer one is in it
                    file.parent.rmdir()
