"""A history as one SVG file: panels over the frames, written by hand, so that a device draws it with nothing installed.

From top to bottom: the drift score in thresholds, what served, the decisions in lanes, and the quality that shows without
labels. Shaded is where the stream is shifted. Every mark and bar tells its numbers when it is pointed at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgessl.errors import InputError
from edgessl.files import refuse_existing, write_atomic
from edgessl.runtimes.adapt.history import SERVING, History, Mark, Series
from edgessl.runtimes.adapt.svg import (
    LEFT,
    RIGHT,
    WIDE,
    Scale,
    curve,
    escaped,
    frame_axis,
    frame_lines,
    level_line,
    nice,
    text,
)

_TITLES = {"spread": "Spread of the embedding", "rank": "Effective rank of the embedding"}
_COLOURS = {
    "factory": "#9aa1a9",
    "recenter": "#7cc4a4",
    "ports": "#2f9a70",
    "tail": "#0e5e41",
    "shift, return": "#20304a",
    "learned": "#1a7f5a",
    "refused": "#b3261e",
    "snapshot": "#2166a5",
    "rolled back": "#b3261e",
    "quarantined": "#8a6d1b",
    "restart": "#63666b",
    "trouble": "#b3261e",
    "other": "#63666b",
}
#: kind -> how it is drawn, around 0, 0; any other is a dot
_GLYPHS = {
    "shift": '<path d="M0,-5L5,4H-5z"/>',
    "return": '<path d="M0,5L5,-4H-5z"/>',
    "another_shift": '<path d="M0,-5.5L5.5,0L0,5.5L-5.5,0z"/>',
    "refused": '<path class="cross" d="M-4,-4L4,4M4,-4L-4,4"/>',
    "snapshot": '<path d="M-1.25,-6H1.25V6H-1.25z"/>',
    "rollback": '<path d="M-5,0L4,-5V5z"/>',
    "frozen": '<path d="M-4.5,-4.5H4.5V4.5H-4.5z"/>',
    "failed": '<path class="cross" d="M-4,-4L4,4M4,-4L-4,4"/>',
    "open": '<path class="cross" d="M0,-6V6"/>',
}
_DOT = '<circle r="3.5"/>'
_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',sans-serif;font-size:11px;fill:#5b5f66}"
    ".title{font-size:17px;font-weight:600;fill:#1c1d1f}.head{font-size:12px;font-weight:600;fill:#1c1d1f}"
    ".grid{stroke:#e4e6e9}.axis{stroke:#9aa1a9}.night{fill:#20304a;fill-opacity:.08}"
    ".limit{stroke:#b3261e;stroke-dasharray:5 4}.curve{fill:none;stroke-width:1.6;stroke-linejoin:round}"
    ".cross{fill:none;stroke:currentColor;stroke-width:2.2;stroke-linecap:round}"
)
_TOP, _GAP, _CURVE, _QUALITY, _ROW = 92, 42, 170, 84, 20  # heights in pixels
_SMALLEST, _LARGEST = 0.05, 1e4  # of a drift score: beyond, the curve runs along the edge of its panel
_CROWD = 3  # pixels in which marks of a lane become one


def drawn(history: History, *, title: str) -> str:
    """The drawing as text; see `write_plot`."""
    title = f"Adaptation: {title}"
    scale = Scale(history.start, history.end)
    panels = [_drift(history, scale), _serving(history, scale), _decisions(history, scale)]
    panels += [_quality(name, series, scale) for name, series in history.quality.items()]
    body, y = [], _TOP
    for panel in panels:
        body.append(
            f'<g transform="translate(0,{y})">{text(LEFT, -10, panel.title, "head")}'
            f"{_shade(history, scale, panel.high)}{frame_lines(scale, panel.high)}{panel.content}</g>"
        )
        y += panel.high + _GAP
    bottom = y - _GAP
    high = bottom + (66 if history.quality else 84)
    missing = (
        "" if history.quality else "No event tells the spread or the rank of the embedding, so quality is not drawn."
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {high}" width="{WIDE}" height="{high}" role="img">'
        f"<title>{escaped(title)}</title><desc>{escaped(_summary(history))}</desc><style>{_STYLE}</style>"
        f'<rect width="{WIDE}" height="{high}" fill="#fff"/>{text(LEFT, 28, title, "title")}'
        f"{text(LEFT, 46, _summary(history))}{_legend()}{''.join(body)}{frame_axis(scale, bottom)}"
        f"{text(LEFT, high - 14, missing) if missing else ''}</svg>\n"
    )


def write_plot(path: Path, history: History, *, title: str) -> None:
    """Draw a history into an .svg file, whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, drawn(history, title=title).encode())


def refuse_plot(path: Path, *, overwrite: bool, option: str) -> None:
    """Call before long work: fails while nothing has been computed yet.

    Raises:
        OutputExistsError: `path` exists and `overwrite` is false.
        InputError: It is no .svg file, or its folder cannot hold it.
    """
    refuse_existing(path, overwrite=overwrite, file=f"{option} adaptation.svg")
    if path.suffix.lower() != ".svg":
        raise InputError(f"{path} would hold an SVG drawing; name it so: {option} {path.with_suffix('.svg')}")


@dataclass(frozen=True, kw_only=True)
class _Panel:
    title: str
    high: int
    content: str


def _drift(history: History, scale: Scale) -> _Panel:
    """Logarithmic: a night lies far above the threshold, and what matters by day happens just below it."""
    values = [min(value, _LARGEST) for _, value in history.drift if math.isfinite(value)]
    top = math.ceil(math.log10(max([*values, 5.0]) * 1.15) * 4) / 4
    low = math.log10(_SMALLEST)

    def y(value: float) -> float:
        return _CURVE * (1 - (math.log10(min(max(value, _SMALLEST), _LARGEST)) - low) / (top - low))

    decades = [value for value in (10.0**power for power in range(-1, 5)) if math.log10(value) <= top]
    parts = [level_line(y(value), f"{value:g}") for value in decades if value != 1]
    parts.append(
        f'<path class="limit" d="M{LEFT},{y(1):.1f}H{WIDE - RIGHT}"/>{text(LEFT - 8, y(1) + 4, "1", anchor="end")}'
    )
    parts.append(text(WIDE - RIGHT + 10, y(1) + 4, "threshold"))
    if history.watched:
        parts.append(curve(history.drift, scale, y, "#b3541e"))
    elif values:
        dots = (f'<circle cx="{scale.x(f):.1f}" cy="{y(v):.1f}" r="4"/>' for f, v in history.drift if math.isfinite(v))
        parts.append(f'<g fill="#b3541e">{"".join(dots)}</g>')
    if not history.watched:
        known = "known only where a shift began or ended" if values else "not in these events"
        parts.append(text(WIDE - RIGHT, -10, f"no watch events: the score is {known}", anchor="end"))
    return _Panel(title="Drift score, in thresholds", high=_CURVE, content="".join(parts))


def _serving(history: History, scale: Scale) -> _Panel:
    parts = [text(LEFT - 8, row * _ROW + 14, name, anchor="end") for row, name in enumerate(SERVING)]
    shares = dict.fromkeys(SERVING, 0)
    for each in history.stretches:
        shares[each.serving] += each.end - each.start
        x, wide = scale.x(each.start), max(scale.x(each.end) - scale.x(each.start), 1.5)
        parts.append(
            f'<rect x="{x:.1f}" y="{SERVING.index(each.serving) * _ROW + 4}" width="{wide:.1f}" height="{_ROW - 8}" rx="2" '
            f'fill="{_COLOURS[each.serving]}"><title>{each.serving}: frames {each.start:,} to {each.end:,}</title></rect>'
        )
    whole = max(sum(shares.values()), 1)
    for row, name in enumerate(SERVING):
        if shares[name]:
            parts.append(text(WIDE - RIGHT + 10, row * _ROW + 14, f"{100 * shares[name] / whole:.0f} %"))
    return _Panel(title="What served", high=len(SERVING) * _ROW, content="".join(parts))


def _decisions(history: History, scale: Scale) -> _Panel:
    parts = []
    for row, (lane, marks) in enumerate(history.marks.items()):
        y = row * _ROW + _ROW // 2
        parts.append(text(LEFT - 8, y + 4, lane, anchor="end") + text(WIDE - RIGHT + 10, y + 4, f"{len(marks):,}"))
        parts.append(f'<path class="grid" d="M{LEFT},{y}H{WIDE - RIGHT}"/>')
        glyphs = "".join(_glyph(crowd, scale, y) for crowd in _crowds(marks, scale))
        parts.append(f'<g color="{_COLOURS[lane]}" fill="currentColor">{glyphs}</g>')
    if not parts:
        parts.append(text(LEFT + 8, 14, "none"))
    return _Panel(title="Decisions", high=max(len(history.marks), 1) * _ROW, content="".join(parts))


def _quality(name: str, series: Series, scale: Scale) -> _Panel:
    """From zero, so that a collapse is seen as what it is."""
    values = [value for _, value in series if math.isfinite(value)]
    step = nice(max([*values, 1e-9]) / 4)
    top = step * math.ceil(max([*values, step]) * 1.02 / step)

    def y(value: float) -> float:
        return _QUALITY * (1 - max(value, 0.0) / top)

    lines = [level_line(y(step * count), f"{step * count:g}") for count in range(round(top / step) + 1)]
    last = f"{values[-1]:.3g}" if values else "-"
    end = text(WIDE - RIGHT + 10, (y(values[-1]) if values else 0) + 4, last)
    content = "".join(lines) + curve(series, scale, y, "#2166a5") + end
    return _Panel(title=_TITLES[name], high=_QUALITY, content=content)


def _shade(history: History, scale: Scale, high: int) -> str:
    """Where the stream is shifted; stretches that touch become one."""
    bands: list[tuple[int, int]] = []
    for each in history.stretches:
        if each.shifted and bands and bands[-1][1] == each.start:
            bands[-1] = (bands[-1][0], each.end)
        elif each.shifted:
            bands.append((each.start, each.end))
    places = ((scale.x(start), max(scale.x(end) - scale.x(start), 1.0)) for start, end in bands)
    return "".join(f'<rect class="night" x="{x:.1f}" width="{wide:.1f}" height="{high}"/>' for x, wide in places)


def _crowds(marks: Sequence[Mark], scale: Scale) -> list[list[Mark]]:
    """Marks of one kind that would lie on each other."""
    crowds: dict[tuple[int, str], list[Mark]] = {}
    for mark in marks:
        crowds.setdefault((round(scale.x(mark.frame) / _CROWD), mark.kind), []).append(mark)
    return list(crowds.values())


def _glyph(crowd: Sequence[Mark], scale: Scale, y: int) -> str:
    more = f", and {len(crowd) - 1:,} more until frame {crowd[-1].frame:,}" if len(crowd) > 1 else ""
    shape = _GLYPHS.get(crowd[0].kind, _DOT)
    return (
        f'<g transform="translate({scale.x(crowd[0].frame):.1f},{y})"><title>{escaped(crowd[0].text + more)}</title>'
        f"{shape}</g>"
    )


def _legend() -> str:
    x = WIDE - RIGHT
    return (
        f'<rect class="night" x="{x - 12}" y="37" width="12" height="12"/>{text(x - 18, 47, "shifted", anchor="end")}'
    )


def _summary(history: History) -> str:
    counts = {
        "shift": ("shift", "shifts"),
        "snapshot": ("snapshot", "snapshots"),
        "rollback": ("rollback", "rollbacks"),
        "refused": ("refused candidate", "refused candidates"),
    }
    told = [f"frames {history.start:,} to {history.end:,}"]
    for kind, (one, many) in counts.items():
        if count := history.counts.get(kind, 0):
            told.append(f"{count:,} {one if count == 1 else many}")
    if history.version:
        told.append(f"version {history.version} at the end")
    return " \u00b7 ".join(told)
