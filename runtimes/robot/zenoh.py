"""Vectors and a status, published with Zenoh.

KEY/vector   the vector, float32, little endian; its attachment is a JSON object: dim, stamp, name of the frame, and what
             `Answer.facts` says
KEY/error    a line of text for every frame that could not be embedded, with the same attachment
KEY/status   JSON, once a second

A session connects where it was told, and nowhere else: no multicast, no gossip, no listening, unless asked for.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import zenoh

from edgessl.errors import InputError
from edgessl.runtimes.robot.answer import Answer
from edgessl.runtimes.robot.parameters import LOOPBACK
from edgessl.runtimes.robot.rounds import Rounds
from edgessl.runtimes.robot.seams import Frame, Status
from edgessl.runtimes.robot.service import Service
from edgessl.runtimes.robot.systemd import Notifier

KEY = "edgessl"

_LOG = logging.getLogger("edgessl.node")


class Publisher:
    """A Zenoh session that publishes answers; use it in a `with`, or close it.

    Args:
        key: In front of every key expression.
        connect: Endpoints to connect to, such as `tcp/192.168.1.7:7447`.
        listen: Endpoints to listen on; a bare port is on loopback.
        multicast: Look for other peers in the local network.

    Raises:
        InputError: No endpoint was given, or Zenoh cannot use one.
    """

    def __init__(
        self, key: str = KEY, *, connect: Sequence[str] = (), listen: Sequence[str] = (), multicast: bool = False
    ) -> None:
        if not (connect or listen or multicast):
            raise InputError("nobody would hear this: type --connect tcp/ADDRESS:7447, --listen 7447 or --multicast")
        self._key = key.strip("/")
        self._heard = False
        try:
            self._session = zenoh.open(
                session_config(connect, [endpoint(text) for text in listen], multicast=multicast)
            )
            drop: dict[str, Any] = {
                "congestion_control": zenoh.CongestionControl.DROP
            }  # a slow reader never delays the robot
            self._vectors, self._errors, self._statuses = (
                self._session.declare_publisher(f"{self._key}/{name}", **drop) for name in ("vector", "error", "status")
            )
        except zenoh.ZError as error:
            raise InputError(f"Zenoh cannot publish {key!r}: {error}") from error

    @property
    def listened_to(self) -> bool:
        """Somebody subscribed to the vectors."""
        status: Any = self._vectors.matching_status  # its stub calls it a bool
        return bool(status.matching)

    def answer(self, answer: Answer, *, name: str, stamp_s: float | None) -> None:
        """Publish the vector of an answer, or its error; an answer without either is not published."""
        facts: dict[str, Any] = {"name": name, "stamp": stamp_s} | answer.facts()
        if answer.vector is not None:
            payload = answer.vector.astype("<f4").tobytes()
            attachment = json.dumps(facts | {"dim": len(answer.vector)})
            self._vectors.put(payload, encoding=zenoh.Encoding.APPLICATION_OCTET_STREAM, attachment=attachment)
        elif answer.outcome in ("unusable", "failed"):
            self._errors.put(answer.reason, encoding=zenoh.Encoding.TEXT_PLAIN, attachment=json.dumps(facts))

    def status(self, status: Status) -> None:
        """Publish a status, and log when the vectors find their first reader, or lose the last."""
        if self.listened_to != self._heard:
            self._heard = not self._heard
            _LOG.info("somebody listens" if self._heard else "nobody listens")
        self._statuses.put(json.dumps(status, default=str), encoding=zenoh.Encoding.APPLICATION_JSON)

    def close(self) -> None:
        """End the session; closing twice is allowed."""
        self._session.close()  # type: ignore[no-untyped-call]

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run(
    service: Service,
    frames: Iterable[tuple[str, float | None, Frame] | None],
    publisher: Publisher,
    notifier: Notifier,
    *,
    recorded: bool = False,
) -> Status:
    """Answer frames until there are no more, or a signal ends it; the last status.

    Args:
        service: Belongs to this function from now on.
        frames: Name, stamp and pixels; `None` where there is none yet, so that the status goes on.
        publisher: Told of every answer; stays open.
        notifier: Of systemd.
        recorded: The stamps are of long ago, or of no clock: they are published, and no frame has an age.
    """
    with Rounds(service, publisher.status, notifier=notifier) as rounds:
        for given in frames:
            if given is not None:
                name, stamp_s, frame = given
                publisher.answer(service.embed(frame, None if recorded else stamp_s), name=name, stamp_s=stamp_s)
            rounds.turn()
            if rounds.stopping:
                break
    publisher.status(rounds.last)
    return rounds.last


def session_config(connect: Sequence[str], listen: Sequence[str], *, multicast: bool) -> zenoh.Config:
    """Zenoh's configuration of a session that does only what it was told to."""
    config: zenoh.Config = zenoh.Config()
    told: dict[str, Any] = {
        "mode": "peer",  # a client looks for a router
        "connect/endpoints": list(connect),
        "listen/endpoints": list(listen),
        "scouting/multicast/enabled": multicast,
        "scouting/gossip/enabled": False,  # would connect to whoever a peer knows
    }
    for key, value in told.items():
        config.insert_json5(key, json.dumps(value))
    return config


def endpoint(text: str) -> str:
    """`7447` -> `tcp/127.0.0.1:7447`; any other endpoint as it is, `tcp/0.0.0.0:7447`.

    Raises:
        InputError: It is none.
    """
    if re.fullmatch(r"\d{1,5}", text):
        return f"tcp/{LOOPBACK}:{text}"
    if not re.fullmatch(r"[a-z]+/.+", text):
        raise InputError(f"{text!r} is no endpoint; type a port on loopback, 7447, or tcp/0.0.0.0:7447")
    return text


def vector_of(payload: bytes) -> np.ndarray:
    """The vector `(dim,)` float32 of a payload."""
    return np.frombuffer(payload, "<f4").astype(np.float32)
