"""What a service needs of its neighbours: an encoder, the board's sensors, and who is told."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgessl.runtimes.robot.answer import Answer
from edgessl.signals import InputSpec

Frame = NDArray[Any]  # (height, width, 3) uint8
Status = dict[str, Any]


class Embeds(Protocol):
    """What is needed of an encoder; `Encoder` is one."""

    @property
    def input(self) -> InputSpec: ...  # noqa: D102

    @property
    def dim(self) -> int: ...  # noqa: D102

    @property
    def space_id(self) -> str: ...  # noqa: D102

    def embed(self, frames: Frame) -> NDArray[np.float32]: ...  # noqa: D102

    def info(self) -> dict[str, Any]: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


class Presses(Protocol):
    """What is needed of the board's sensors; `Pressure` is one. 0 sheds nothing, 1 adaptation, 2 frames too."""

    @property
    def why(self) -> str: ...  # noqa: D102

    def look(self) -> IntEnum: ...  # noqa: D102


class Observer(Protocol):
    """Who is told of every frame and of every status: metrics, a recording."""

    def frame(self, frame: Frame | None, answer: Answer) -> None: ...  # noqa: D102

    def status(self, status: Status) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102
