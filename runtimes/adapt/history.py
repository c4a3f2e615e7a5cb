"""What the events of a learner say over time: drift, what served, decisions, and what shows quality without labels.

Plain Python, so that a log can be read anywhere. Figures of drift and quality are those of `watch` events; a log without
them still has the score where a shift was declared or was over, and every decision.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgessl.errors import InputError

FACTORY = "factory"
SERVING = (FACTORY, "recenter", "ports", "tail")  # the factory's encoder, and the levels

#: lane -> kinds of events that stand in it; every other kind stands in the lane `OTHER`
LANES: dict[str, tuple[str, ...]] = {
    "shift, return": ("shift", "return", "another_shift", "mild"),
    "learned": ("front", "port", "tail", "accepted", "serves"),
    "refused": ("refused", "tail_stopped", "withdrawn"),
    "snapshot": ("snapshot",),
    "rolled back": ("rollback", "frozen"),
    "quarantined": ("quarantined", "blank"),
    "restart": ("open", "started_again"),
    "budget": ("paused", "resumed", "behind", "caught_up"),
    "trouble": (
        *("failed", "snapshot_failed", "snapshot_skipped", "damaged"),
        *("dead", "hung", "abandoned", "not_served", "close_failed"),
    ),
}
OTHER = "other"
QUALITY = ("spread", "rank")  # of `watch` events

_LONGEST = 240  # characters of a mark's text
_LANE_OF = {kind: lane for lane, kinds in LANES.items() for kind in kinds}

#: frame and value, in order; a value that is not a number breaks the curve
Series = list[tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One decision; `text` says all that its event says."""

    frame: int
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Frames `start` to `end` that one of `SERVING` served."""

    start: int
    end: int
    serving: str
    shifted: bool


@dataclass(frozen=True, kw_only=True)
class History:
    """A life, or a part of one.

    Attributes:
        start, end: First and last frame.
        counts: Events by kind.
        drift: Score of the drift over its threshold.
        watched: Whether `drift` is a curve; if not, it is known at decisions only.
        stretches: Without gaps, in order.
        marks: Decisions by lane; only lanes that have some.
        quality: Curve by name of `QUALITY`; only those that the events have.
        version: What served at the end, where the events name it.
    """

    start: int
    end: int
    counts: dict[str, int]
    drift: Series
    watched: bool
    stretches: list[Stretch]
    marks: dict[str, list[Mark]]
    quality: dict[str, Series]
    version: str


def read_events(path: Path) -> list[dict[str, Any]]:
    """Events from a file with one JSON object a line.

    Raises:
        InputError: It cannot be read, holds none, or a line is no event.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}; give a file that edgessl adapt --log wrote") from error
    events = [_event(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not events:
        raise InputError(f"{path} holds no events; give a file that edgessl adapt --log wrote")
    return events


def history_of(events: Sequence[Mapping[str, Any]]) -> History:
    """Sort events into what is to be drawn.

    Args:
        events: At least one, each with `kind` and `frame`, in the order in which they happened.
    """
    marks: dict[str, list[Mark]] = {}
    for event in events:
        kind = str(event["kind"])
        began = kind == "open" and event["frame"] <= events[0]["frame"]  # the first opening is no restart
        if kind != "watch" and not began:
            lane = _LANE_OF.get(kind, OTHER)
            marks.setdefault(lane, []).append(Mark(frame=int(event["frame"]), kind=kind, text=_told(event)))
    frames = [int(event["frame"]) for event in events]
    watched = [event for event in events if event["kind"] == "watch"]
    quality = {name: _series((event, _number(event, name)) for event in watched) for name in QUALITY}
    versions = [str(event["version"]) for event in events if event.get("version") is not None]
    return History(
        start=min(frames),
        end=max(frames),
        counts=dict(Counter(str(event["kind"]) for event in events)),
        drift=_series((event, _ratio(event)) for event in events),
        watched=bool(watched),
        stretches=_stretches(events, max(frames)),
        marks={lane: marks[lane] for lane in (*LANES, OTHER) if lane in marks},
        quality={name: series for name, series in quality.items() if series},
        version=versions[-1] if versions else "",
    )


def _event(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError as error:
        raise InputError(f"{path} line {number} is no JSON object: {error}") from error
    frame = event.get("frame") if isinstance(event, dict) else None
    if not isinstance(frame, int) or not 0 <= frame < 2**53 or not isinstance(event.get("kind"), str):
        raise InputError(f"{path} line {number} is no event: it needs a kind and a frame, and is {line[:80]}")
    return dict(event)


def _stretches(events: Sequence[Mapping[str, Any]], end: int) -> list[Stretch]:
    """Who served when; what stood before the first event that tells of a shift follows from that event."""
    shifted = next((known for event in events if (known := _before(event)) is not None), False)
    level, frozen = SERVING[1], False
    start, now = int(events[0]["frame"]), (FACTORY, shifted)
    found = []
    for index, event in enumerate(events):
        kind, frame = event["kind"], int(event["frame"])
        level = event["level"] if event.get("level") in SERVING else level
        if kind in ("shift", "return", "another_shift", "mild"):
            shifted = kind in ("shift", "another_shift")  # a mild one is served by the factory's encoder
        elif isinstance(event.get("shifted"), bool) and not frozen:
            shifted = event["shifted"]
        if kind == "open":  # a learner that opens frozen says so just before
            frozen = index > 0 and events[index - 1]["kind"] == "frozen"
        frozen = frozen or kind in ("frozen", "failed")
        state = (level if shifted and not frozen else FACTORY, shifted)
        if state != now:
            if frame > start:
                found.append(Stretch(start=start, end=frame, serving=now[0], shifted=now[1]))
            start, now = frame, state
    return [*found, Stretch(start=start, end=max(start, end), serving=now[0], shifted=now[1])]


def _before(event: Mapping[str, Any]) -> bool | None:
    """Whether the stream was shifted before an event; `None` when the event does not tell."""
    if event["kind"] in ("shift", "return", "mild"):
        return bool(event["kind"] != "shift")
    told = event.get("shifted")
    return told if isinstance(told, bool) else None


def _series(values: Iterable[tuple[Mapping[str, Any], float | None]]) -> Series:
    return [(int(event["frame"]), value) for event, value in values if value is not None]


def _ratio(event: Mapping[str, Any]) -> float | None:
    score, threshold = _number(event, "score"), _number(event, "threshold")
    if score is None or threshold is None:
        return None
    return score / threshold if threshold > 0 else math.nan


def _number(event: Mapping[str, Any], name: str) -> float | None:
    value = event.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e300 else math.nan  # which NaN and infinity are not either


def _told(event: Mapping[str, Any]) -> str:
    numbers = [
        f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}"
        for key, value in event.items()
        if key not in ("kind", "frame")
    ]
    return "; ".join([f"frame {event['frame']:,}, {event['kind']}", *numbers])[:_LONGEST]
