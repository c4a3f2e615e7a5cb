"""OpenVINO itself, for the files that call it: imported so that it reports nothing, and its one core."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

# Importing openvino reports itself through this package; with None there the stub that it ships answers instead.
if "openvino_telemetry" not in sys.modules:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino as openvino


@cache
def shared_core() -> Any:
    """The one core of this process, never destroyed.

    A core puts a signal stack of its own in place, and puts back what it found when it goes. Of two that go in the order in
    which they came the second puts back the first one's, which is freed: the next signal with a handler, Ctrl-C say, is then a
    segmentation fault (openvino 2026.4.1).
    """
    return openvino.Core()
