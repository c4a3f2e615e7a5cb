"""What a start costs, in a process of its own: from its first instruction to its first vector, and its peak of memory.

python -m edgessl.runtimes.coldstart '{"bundle": ..., "engine": ..., "precision": ..., "settings": {...}, "spawned": ...}'
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgessl.errors import EngineError
from edgessl.runtimes.sensors import fields

_PATIENCE_S = 300.0


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """A start, its files in the page cache.

    Attributes:
        process_ms: From the start of the process to the first vector.
        open_ms: From opening the bundle to the first vector, everything imported that opening does not import.
        peak_mib: Most memory that the process had at once.
    """

    process_ms: float
    open_ms: float
    peak_mib: float

    def to_json(self) -> dict[str, float]:
        """Rounded, for a report."""
        return {key: round(value, 1) for key, value in asdict(self).items()}


def cold_start(bundle: Path, *, engine: str, precision: str, settings: Mapping[str, Any], starts: int = 2) -> ColdStart:
    """The quickest of some starts, and the largest of their memory.

    Args:
        bundle: To open.
        engine, precision: To run it in.
        settings: Fields of `EngineSettings`.
        starts: How many; the first one may have to fetch files from the disk.

    Raises:
        EngineError: The process failed; with its last line.
    """
    asked = {"bundle": str(bundle), "engine": engine, "precision": precision, "settings": dict(settings)}
    found = [_start(asked) for _ in range(starts)]
    return ColdStart(
        process_ms=min(start.process_ms for start in found),
        open_ms=min(start.open_ms for start in found),
        peak_mib=max(start.peak_mib for start in found),
    )


def _start(asked: Mapping[str, Any]) -> ColdStart:
    # The clock of the whole system: what the child reads can be compared with what its parent read.
    words = json.dumps({**asked, "spawned": time.monotonic()})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edgessl.runtimes.coldstart", words],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"a fresh process gave no vector in {_PATIENCE_S:.0f} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise EngineError(f"a fresh process failed: {last}")
    return ColdStart(**json.loads(done.stdout.strip().splitlines()[-1]))


def _measure(asked: Mapping[str, Any]) -> ColdStart:
    """In the child: open, embed one sample, look at the clock and the memory."""
    import numpy as np

    from edgessl.runtimes.encoder import open_encoder
    from edgessl.runtimes.engines import EngineSettings

    opening = time.monotonic()
    settings = EngineSettings(**{**asked["settings"], "cores": tuple(asked["settings"].get("cores", ()))})
    with open_encoder(
        asked["bundle"], engine=asked["engine"], precision=asked["precision"], settings=settings
    ) as encoder:
        # Not a golden sample: a robot reads none.
        encoder.embed(np.zeros((1, *encoder.input.shape), encoder.input.dtype))
        done = time.monotonic()
        peak = peak_mib()
    return ColdStart(process_ms=(done - asked["spawned"]) * 1e3, open_ms=(done - opening) * 1e3, peak_mib=peak)


def peak_mib(proc: Path = Path("/proc")) -> float:
    """Most memory that this process had at once.

    The kernel's high-water mark is of this process alone; what getrusage says may be what its parent had when it forked.
    """
    words = fields(proc / "self" / "status").get("VmHWM", "").split()
    if words and words[0].isdigit():
        return int(words[0]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_measure(json.loads(sys.argv[1])))) + "\n")
