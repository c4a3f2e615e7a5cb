"""A log of one JSON object a line on stderr, through the standard library's logging."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any, TextIO

NAME = "edgessl"


def start_log(level: str, stream: TextIO | None = None) -> logging.Logger:
    """Send what edgessl logs to `stream`, stderr by default, and nowhere else; a second call replaces the first.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        stream: Where lines go.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger(NAME)
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False  # a root logger of the host, such as dora's, would say everything twice
    return logger


class JsonLines(logging.Formatter):
    """`{"time", "level", "logger", "event", "facts"}`; facts where there are some."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        facts = getattr(record, "facts", {})
        if record.exc_info:
            facts = facts | {"traceback": self.formatException(record.exc_info)}
        return json.dumps(line | ({"facts": facts} if facts else {}), default=str)
