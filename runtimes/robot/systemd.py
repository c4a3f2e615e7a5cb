"""What systemd is told: ready, alive, stopping. One datagram each, and nothing where systemd did not ask."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from edgessl.errors import InputError


class Notifier:
    """Speaks to the socket of `NOTIFY_SOCKET`, as `sd_notify(3)` says; silent where there is none.

    Attributes:
        every_s: How often systemd wants a sign of life, halved as its manual advises; `None` where it wants none.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        own = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        text = environment.get("WATCHDOG_USEC", "") if own else ""
        if text and not (text.isascii() and text.isdigit()):
            raise InputError(f"WATCHDOG_USEC must be microseconds, not {text!r}")
        self.every_s = int(text) / 2e6 if text and self._address else None

    def say(self, **facts: str) -> None:
        """`say(READY="1")`; the socket that is gone is not worth a robot."""
        if not self._address:
            return
        lines = "\n".join(f"{name}={value}" for name, value in facts.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as speaker:
            try:
                speaker.sendto(lines.encode(), self._address)
            except OSError:
                return
