"""Pieces of an SVG drawing over frames: the scale, grid, texts and curves. Strings only, every text escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence

WIDE, LEFT, RIGHT = 960, 104, 72  # of the drawing, and of its margins, in pixels


class Scale:
    """Frames to pixels."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, max(end, start + 1)

    def x(self, frame: float) -> float:
        """Where a frame stands."""
        return LEFT + (frame - self.start) / (self.end - self.start) * (WIDE - LEFT - RIGHT)

    def ticks(self) -> list[int]:
        """Round frames, five to ten of them."""
        step = max(int(nice((self.end - self.start) / 6)), 1)
        return list(range(-(-self.start // step) * step, self.end + 1, step))


def nice(least: float) -> float:
    """The first of 1, 2, 5, 10, 20, 50 ... that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def escaped(value: str) -> str:
    """Text as XML may hold it, attributes included; what cannot be printed becomes a space."""
    return html.escape("".join(each if each.isprintable() else " " for each in value), quote=True)


def text(x: float, y: float, content: str, style: str = "", anchor: str = "start") -> str:
    """A line of text that begins, has its middle, or ends (`anchor`) at `x`."""
    style = f' class="{style}"' if style else ""
    anchor = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{style}{anchor}>{escaped(content)}</text>'


def level_line(y: float, label: str) -> str:
    """A grid line across a panel, with its value at the left."""
    return f'<path class="grid" d="M{LEFT},{y:.1f}H{WIDE - RIGHT}"/>{text(LEFT - 8, y + 4, label, anchor="end")}'


def frame_lines(scale: Scale, high: int) -> str:
    """Grid lines down a panel."""
    return "".join(f'<path class="grid" d="M{scale.x(frame):.1f},0V{high}"/>' for frame in scale.ticks())


def frame_axis(scale: Scale, y: int) -> str:
    """The axis of frames, below the last panel."""
    line = f'<path class="axis" d="M{LEFT},{y}H{WIDE - RIGHT}"/>'
    labels = (text(scale.x(frame), y + 18, f"{frame:,}", anchor="middle") for frame in scale.ticks())
    return line + "".join(labels) + text((LEFT + WIDE - RIGHT) / 2, y + 38, "frames", anchor="middle")


def curve(points: Iterable[tuple[int, float]], scale: Scale, y: Callable[[float], float], colour: str) -> str:
    """A line through frames and values; broken where a value is not finite, and where the frames go back."""
    drawn = []
    for run in _runs(points):
        places = _thinned([(round(scale.x(frame), 1), y(value)) for frame, value in run])
        if len(places) == 1:
            drawn.append(f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="2" fill="{colour}"/>')
        else:
            line = " ".join(f"{x:.1f},{height:.1f}" for x, height in places)
            drawn.append(f'<polyline class="curve" stroke="{colour}" points="{line}"/>')
    return "".join(drawn)


def _runs(points: Iterable[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    runs: list[list[tuple[int, float]]] = [[]]
    for frame, value in points:
        if runs[-1] and (frame < runs[-1][-1][0] or not math.isfinite(value)):
            runs.append([])
        if math.isfinite(value):
            runs[-1].append((frame, value))
    return [run for run in runs if run]


def _thinned(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The lowest and the highest place of each pixel, in their order: a long life stays a small file."""
    if len(places) <= 2 * WIDE:
        return list(places)
    columns: dict[int, list[tuple[float, float]]] = {}
    for place in places:
        columns.setdefault(int(place[0]), []).append(place)
    kept = []
    for column in columns.values():
        ends = {
            id(end): end for end in (min(column, key=lambda place: place[1]), max(column, key=lambda place: place[1]))
        }
        kept += sorted(ends.values())
    return kept
