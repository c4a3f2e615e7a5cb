"""What every node does around its transport: end on a signal, tell its status each second, show systemd that it lives."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from edgessl.runtimes.robot.seams import Status
from edgessl.runtimes.robot.service import Service
from edgessl.runtimes.robot.systemd import Notifier

POLL_S = 0.2  # how long a transport waits for a frame before it looks whether it is to end

_LOG = logging.getLogger("edgessl.node")
_EVERY_S = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Rounds:
    """The rounds of one node; use it in a `with`, which closes the service.

    SIGTERM and Ctrl-C end the node in good order: what was learned is written, and the exit code is 0. A second signal
    does what it does to any program, so that a node that cannot end can be ended.

    Args:
        service: Belongs to this object from now on.
        send: Given each status, to publish it.
        notifier: Told when the node is ready, lives and stops.
        clock: Seconds, never going back.

    Attributes:
        stopping: The node is to end.
        last: The status at the end.
    """

    def __init__(
        self,
        service: Service,
        send: Callable[[Status], None],
        *,
        notifier: Notifier,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stopping = False
        self.last: Status = {}
        self._service, self._send, self._notifier, self._clock = service, send, notifier, clock
        self._due = self._sign_due = clock()
        self._before: dict[int, Any] = {}
        self._ended = threading.Event()
        self._looks = threading.Thread(target=self._look, name="edgessl-look", daemon=True)

    def turn(self) -> None:
        """Call this between two frames, and `POLL_S` after the last one."""
        now = self._clock()
        if self._notifier.every_s is not None and now >= self._sign_due and self._service.alive:
            # An encoder that fails on every frame gives no sign of life either, so systemd starts the node again.
            self._sign_due = now + self._notifier.every_s
            self._notifier.say(WATCHDOG="1")
        if now >= self._due:
            self._due = now + _EVERY_S
            status = self._service.status()
            _LOG.debug("status", extra={"facts": status})
            self._send(status)

    def stop(self) -> None:
        """End the node after the present frame."""
        self.stopping = True

    def __enter__(self) -> Rounds:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._signalled) for number in _SIGNALS}
        self._looks.start()
        self._notifier.say(READY="1")
        _LOG.info("ready", extra={"facts": {"space_id": self._service.status()["space_id"]}})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._notifier.say(STOPPING="1")
        self._ended.set()
        self._looks.join(_EVERY_S)
        self.last = self._service.status()
        self._service.close()
        self._restore()
        _LOG.info("stopped", extra={"facts": self.last})

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.stop()
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _look(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self._look_once()

    def _look_once(self) -> None:
        try:
            self._service.look()
        except Exception:  # noqa: BLE001 (a sensor that raises must not end what looks at the others)
            _LOG.exception("look")
