"""Prometheus text metrics of a node, served where the user asked for them."""

from __future__ import annotations

import math
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from edgessl.errors import InputError
from edgessl.runtimes.robot.answer import OUTCOMES, Answer
from edgessl.runtimes.robot.seams import Frame, Status

_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.033, 0.05, 0.1, 0.2, 0.5, 1.0)
_AGE_S = (0.01, 0.02, 0.033, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """An observer that counts; the only thing of edgessl that listens on a socket, and only when asked to.

    Args:
        host: Address to listen on.
        port: Port; 0 for a free one.

    Attributes:
        port: Where it listens.

    Raises:
        InputError: It cannot listen there.
    """

    def __init__(self, host: str, port: int) -> None:
        self.registry = CollectorRegistry()
        told: dict[str, Any] = {"registry": self.registry, "namespace": "edgessl"}
        self._frames = Counter("frames", "Frames by what became of them.", ["outcome"], **told)
        for outcome in OUTCOMES:
            self._frames.labels(outcome)
        self._took = Histogram("embed_seconds", "Time of one embedding.", buckets=_LATENCY_S, **told)
        self._age = Histogram("age_seconds", "From capture to vector.", buckets=_AGE_S, **told)
        self._drift = Gauge("drift", "Drift of the world; above 1 a shift is seen.", **told)
        self._version = Gauge("version", "Version that serves; 0 is the factory's.", **told)
        self._level = Gauge("level", "1 for the level of learning that was asked for.", ["level"], **told)
        self._learns = Gauge("learning", "1 while something may be learned.", **told)
        self._shed = Gauge("shed", "1 for what is shed under heat or with little memory.", ["shed"], **told)
        self._temperature = Gauge("temperature_celsius", "Of the hottest thermal zone.", **told)
        self._restarts = Gauge("engine_restarts", "Restarts of the engine since the node started.", **told)
        self._healthy = Gauge("healthy", "1 when nothing is wrong.", **told)
        try:
            self._server, self._thread = start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise InputError(f"metrics cannot be served on {host}:{port}: {error}; choose another --metrics") from error
        self.port = int(self._server.server_address[1])

    def frame(self, frame: Frame | None, answer: Answer) -> None:
        """Count one frame."""
        self._frames.labels(answer.outcome).inc()
        if answer.vector is None:
            return
        self._took.observe(answer.took_s)
        if not math.isnan(answer.age_s):
            self._age.observe(answer.age_s)
        self._version.set(answer.version)
        self._drift.set(answer.drift)

    def status(self, status: Status) -> None:
        """Take over what a status says."""
        self._level.clear()
        self._level.labels(status["level"]).set(1)
        self._shed.clear()
        self._shed.labels(status["shed"]).set(1)
        self._learns.set(status["learning"] in ("learning", "behind"))
        self._restarts.set(status["restarts"])
        self._healthy.set(status["health"] == "ok")
        self._temperature.set(status.get("temperature_c", math.nan))

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
