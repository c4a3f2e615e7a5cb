"""Small pictures for a page that asks nothing of a network: SVG and data URIs, every text escaped."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 64  # pixels of a thumbnail
_WIDE, _HIGH, _EDGE = 560, 150, 34


def escaped(value: object) -> str:
    """Text as a page may hold it, attributes included."""
    return html.escape(str(value), quote=True)


def thumbnail(sample: NDArray[Any], name: str) -> str:
    """A frame as a small JPEG, a series as a small drawing."""
    if sample.ndim == 3 and sample.dtype == np.uint8:
        image = Image.fromarray(sample)
        image.thumbnail((SIDE, SIDE))
        content = io.BytesIO()
        image.convert("RGB").save(content, "JPEG", quality=70)
        data = base64.b64encode(content.getvalue()).decode()
        return f'<img src="data:image/jpeg;base64,{data}" alt="{escaped(name)}" width="{image.width}" height="{image.height}">'
    return _series(sample.reshape(-1, sample.shape[-1]), name)


def histogram(values: NDArray[np.floating], title: str, bins: int = 24) -> str:
    """How many values lie where, from the least to 1."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "<p>no finite value</p>"
    low = min(float(finite.min()), 1 - 1e-6)
    counts, edges = np.histogram(np.minimum(finite, 1), bins=bins, range=(low, 1))
    width, top = (_WIDE - 2 * _EDGE) / bins, max(int(counts.max()), 1)
    bars = "".join(
        f'<rect x="{_EDGE + index * width:.1f}" y="{_y(count / top):.1f}" width="{width - 1:.1f}" '
        f'height="{_y(0) - _y(count / top):.1f}"><title>{count} from {edges[index]:.5f}</title></rect>'
        for index, count in enumerate(counts)
    )
    ends = (
        _text(_EDGE, _HIGH - 8, f"{low:.5f}")
        + _text(_WIDE - _EDGE, _HIGH - 8, "1", "end")
        + _text(_EDGE, 14, f"{top} samples")
    )
    return _svg(title, f'<g class="mark">{bars}</g>{_base()}{ends}')


def curve(points: Sequence[tuple[str, float]], title: str) -> str:
    """A value per layer, in their order."""
    values = np.array([value for _, value in points], np.float64)
    if not len(values) or not np.isfinite(values).all():
        return "<p>not measured, or not finite</p>"
    low = min(float(values.min()), 1 - 1e-6)
    high = max(float(values.max()), 1.0)
    across = np.linspace(_EDGE, _WIDE - _EDGE, len(values)) if len(values) > 1 else np.array([_WIDE / 2])
    places = [(x, _y((value - low) / (high - low))) for x, value in zip(across, values, strict=True)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escaped(name)}: {value:.5f}</title></circle>'
        for (x, y), (name, value) in zip(places, points, strict=True)
    )
    worst = int(values.argmin())
    ends = _text(_EDGE, 14, f"{high:.5f}") + _text(
        _EDGE, _HIGH - 8, f"lowest {values[worst]:.5f} at {points[worst][0][:60]}, layer {worst + 1} of {len(values)}"
    )
    return _svg(title, f'<polyline class="line" points="{line}"/><g class="mark">{dots}</g>{_base()}{ends}')


def _series(channels: NDArray[Any], name: str) -> str:
    drawn = []
    for channel in channels[:8].astype(np.float64):
        values = np.nan_to_num(channel[np.linspace(0, len(channel) - 1, min(len(channel), 120)).astype(int)])
        spread = float(np.ptp(values)) or 1.0
        y = (SIDE - 4) * (1 - (values - values.min()) / spread) + 2
        x = np.linspace(2, 2 * SIDE - 2, len(values))
        points = " ".join(f"{a:.0f},{b:.0f}" for a, b in zip(x, y, strict=True))
        drawn.append(f'<polyline class="line" points="{points}"/>')
    return (
        f'<svg class="thumb" role="img" aria-label="{escaped(name)}" width="{2 * SIDE}" height="{SIDE}" '
        f'viewBox="0 0 {2 * SIDE} {SIDE}"><title>{escaped(name)}</title>{"".join(drawn)}</svg>'
    )


def _svg(title: str, content: str) -> str:
    return (
        f'<svg class="figure" role="img" aria-label="{escaped(title)}" viewBox="0 0 {_WIDE} {_HIGH}">'
        f"<title>{escaped(title)}</title>{content}</svg>"
    )


def _y(share: float) -> float:
    return 22 + (1 - share) * (_HIGH - 48)


def _base() -> str:
    return f'<line class="axis" x1="{_EDGE}" x2="{_WIDE - _EDGE}" y1="{_y(0):.1f}" y2="{_y(0):.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escaped(text)}</text>'
