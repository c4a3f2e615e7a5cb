"""What a stream of frames offers, and what a camera must offer to become one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgessl.signals import InputSpec

#: Takes what happens: `{"event": "disconnected", "source": "camera:0", ...}`.
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class LiveFrame:
    """A frame of a stream.

    Attributes:
        name: `camera:0#000123`; the number counts the frames that were taken, given or not.
        stamp_s: Seconds of the wall clock when it was taken; when it was read, of standard input.
        age_s: How long ago that was when it was given.
        frame: `(*shape)` of the input spec.
    """

    name: str
    stamp_s: float
    age_s: float
    frame: NDArray[Any]


class Live(Protocol):
    """A stream of frames: a camera or standard input.

    Attributes:
        name: What the user typed.
        spec: What one frame is.
    """

    name: str
    spec: InputSpec

    def read(self, timeout_s: float) -> LiveFrame | None:
        """The next frame; None when there was none within `timeout_s`, or it is at its end."""
        ...

    def __iter__(self) -> Iterator[LiveFrame]:
        """Frames until it is closed or at its end."""
        ...

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more."""
        ...

    def counts(self) -> dict[str, int]:
        """Frames `given`, `dropped`, `stale` and `damaged`, and `reconnects`."""
        ...

    def close(self) -> None:
        """Stop; closing twice is allowed."""
        ...

    def __enter__(self) -> Live: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Grabber(Protocol):
    """An open camera, used by one thread.

    Attributes:
        captured_s: `time.monotonic()` when the last frame was taken, where the driver says it; else None.
    """

    captured_s: float | None

    def grab(self) -> NDArray[np.uint8] | None:
        """Wait for a frame `(height, width, 3)`, RGB, which the caller may keep; None where it could not be read.

        Raises:
            Exception: The camera is gone.
        """
        ...

    def close(self) -> None:
        """Give the camera back."""
        ...


def quiet(event: dict[str, Any]) -> None:
    """For those who do not want to know."""
