"""A node of a dora dataflow: images in, vectors and a status out.

in    image   uint8 Arrow array, with `encoding`, `width`, `height` in its metadata, as dora's camera nodes send it, and
              perhaps `stamp`, the capture in seconds since 1970; without it, the time at which dora's message was sent
out   vector  float32 Arrow array (dim,), its metadata what `Answer.facts` says, and the frame's `stamp`
      error   a line of text for every frame that was given no vector though it was not too old, with the same metadata
      status  JSON, once a second

Give the input `queue_size: 1`, so that the newest frame wins; what dora drops before that, dora says.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from typing import Any, Protocol

from edgessl.errors import InputError, MissingExtraError
from edgessl.runtimes.robot.rounds import POLL_S, Rounds
from edgessl.runtimes.robot.seams import Frame, Status
from edgessl.runtimes.robot.service import Service
from edgessl.runtimes.robot.systemd import Notifier
from edgessl.sources.pixels import rgb_from

IMAGE, VECTOR, ERROR, STATUS = "image", "vector", "error", "status"

_LOG = logging.getLogger("edgessl.node")


class Dataflow(Protocol):
    """What is needed of `dora.Node`."""

    def next(self, timeout: float) -> dict[str, Any] | None: ...  # noqa: D102

    def send_output(self, output_id: str, data: Any, metadata: dict[str, Any]) -> None: ...  # noqa: D102


def open_dataflow() -> Dataflow:
    """Join the dataflow that started this process.

    Raises:
        InputError: None did.
        MissingExtraError: The `dora` package is not installed.
    """
    try:
        from dora import Node
    except ModuleNotFoundError as error:
        raise MissingExtraError("dora-rs", "dora") from error

    try:
        node: Dataflow = Node()
    except RuntimeError as error:
        raise InputError(f"no dora dataflow started this process: {error}; see examples/dora/dataflow.yml") from error
    return node


def run(service: Service, dataflow: Dataflow, notifier: Notifier) -> Status:
    """Answer images until the dataflow ends, or a signal does; the last status."""
    arrow = import_module("pyarrow")  # comes with dora

    ignored: set[str] = set()

    def publish(status: Status) -> None:
        dataflow.send_output(STATUS, arrow.array([json.dumps(status)]), {})

    with Rounds(service, publish, notifier=notifier) as rounds:
        while not rounds.stopping:
            event = dataflow.next(timeout=POLL_S)
            if event is None:
                break
            if event["type"] == "INPUT" and event["id"] == IMAGE:
                _answer(service, dataflow, event, arrow.array)
            elif event["type"] == "INPUT" and event["id"] not in ignored:
                ignored.add(event["id"])
                _LOG.warning("ignored", extra={"facts": {"input": event["id"], "todo": f"call the input {IMAGE!r}"}})
            elif event["type"] == "STOP" and event.get("id") != "ALL_INPUTS_CLOSED":  # then the last inputs still come
                rounds.stop()
            elif event["type"] == "ERROR" and "Timeout" not in event["error"]:
                _LOG.error("dora", extra={"facts": {"error": event["error"].partition("\n")[0]}})
            rounds.turn()
    return rounds.last


def _answer(service: Service, dataflow: Dataflow, event: dict[str, Any], array: Callable[..., Any]) -> None:
    metadata = event["metadata"]
    stamp_s = _stamp_s(metadata)
    answer = service.embed(_frame_of(event["value"], metadata, service.size), stamp_s)
    facts = answer.facts() | {"stamp": stamp_s}
    if answer.vector is not None:
        dataflow.send_output(VECTOR, array(answer.vector), facts)
    elif answer.outcome in ("unusable", "failed"):
        dataflow.send_output(ERROR, array([answer.reason]), facts)


def _frame_of(value: Any, metadata: dict[str, Any], size: tuple[int, int]) -> Callable[[], Frame]:
    """What gives the frame; `value` is an Arrow array of uint8."""

    def frame() -> Frame:
        try:
            encoding = str(metadata.get("encoding", "bgr8"))  # what dora's nodes take where nothing is said
            height, width = int(metadata.get("height", 0)), int(metadata.get("width", 0))
            pixels = value.to_numpy(zero_copy_only=False)
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"no image: {error}") from error
        return rgb_from(pixels, encoding, height=height, width=width, size=size)

    return frame


def _stamp_s(metadata: dict[str, Any]) -> float:
    """When the image was captured; else when it was sent."""
    stamp, sent = metadata.get("stamp"), metadata.get("timestamp")
    if isinstance(stamp, int | float):
        return float(stamp)
    return sent.timestamp() if isinstance(sent, datetime) else time.time()
