"""A report of `edgessl bench` as one SVG file: latencies as bars with their tails, and the other figures beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgessl.errors import InputError
from edgessl.files import refuse_existing, write_atomic
from edgessl.runtimes.adapt.svg import escaped, nice, text
from edgessl.runtimes.bench import BenchReport

_WIDE, _NAMES, _BARS, _GAP = 1160, 250, 330, 40  # of the drawing, of the names, of the bars, and behind them, in pixels
_ROW, _TOP = 46, 86  # height of a row, and of the head
_COLOURS = {"fp32": "#2166a5", "fp16": "#7a5ea8", "int8": "#1a7f5a"}
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#20304a}.title{font-size:16px;font-weight:600}.quiet{fill:#63666b}"
    ".grid{stroke:#e3e6ea}.tail{stroke:#20304a;stroke-width:1.5;fill:none}.bad{fill:#b3261e}"
)


def refuse_drawing(path: Path, *, overwrite: bool) -> None:
    """Call before measuring: fails where the drawing cannot be written.

    Raises:
        InputError: It is not named as a drawing is.
        OutputExistsError: It exists, and `overwrite` is false.
    """
    if path.suffix != ".svg":
        raise InputError(f"a picture's name ends in .svg; type -o {path.with_suffix('.svg')}")
    refuse_existing(path, overwrite=overwrite, file="-o bench.svg")


def write_drawing(path: Path, report: BenchReport) -> None:
    """Write the picture."""
    write_atomic(path, drawing(report).encode())


def drawing(report: BenchReport) -> str:
    """The SVG text."""
    rows = report.rows
    most = max((row["flat_out"]["p99_ms"] for row in rows if row["ok"]), default=1.0)
    step = nice(max(most, 1e-3) / 5)
    scale = _BARS / (step * 5)
    high = _TOP + _ROW * len(rows) + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {high}" width="{_WIDE}" height="{high}" role="img">',
        f"<style>{_STYLE}</style><rect width='100%' height='100%' fill='#fff'/>",
        text(16, 28, "Milliseconds per embedding, one at a time", "title"),
        text(16, 48, _where(report), "quiet"),
    ]
    bottom = _TOP + _ROW * len(rows)
    for tick in range(6):
        x = _NAMES + tick * step * scale
        parts.append(f'<path class="grid" d="M{x:.1f},{_TOP - 8}V{bottom}"/>')
        parts.append(text(x, bottom + 18, f"{tick * step:g}", anchor="middle"))
    parts.append(
        text(_NAMES + _BARS / 2, bottom + 36, "ms: bar to the median, lines to p95 and p99", "quiet", "middle")
    )
    for index, row in enumerate(rows):
        parts.append(_row(row, _TOP + _ROW * index, scale))
    return "".join(parts) + "</svg>\n"


def _row(row: Mapping[str, Any], y: float, scale: float) -> str:
    name = text(16, y + 18, row["name"])
    if not row["ok"]:
        return name + text(_NAMES, y + 18, row["reason"].partition(". ")[0][:140], "bad")
    flat = row["flat_out"]
    ends = [_NAMES + flat[key] * scale for key in ("p50_ms", "p95_ms", "p99_ms")]
    colour = _COLOURS.get(row["precision"], "#63666b")
    told = escaped(" ".join(f"{key} {flat[key]:g}" for key in ("p50_ms", "p95_ms", "p99_ms")))
    bar = (
        f'<g><title>{told}</title><rect x="{_NAMES}" y="{y + 4:.1f}" width="{ends[0] - _NAMES:.1f}" height="20" fill="{colour}"/>'
        f'<path class="tail" d="M{ends[0]:.1f},{y + 14:.1f}H{ends[2]:.1f}M{ends[1]:.1f},{y + 9:.1f}v10'
        f'M{ends[2]:.1f},{y + 6:.1f}v16"/></g>'
    )
    beside = _NAMES + _BARS + _GAP
    return name + bar + text(beside, y + 12, _speed(row)) + text(beside, y + 28, _costs(row), "quiet")


def _speed(row: Mapping[str, Any]) -> str:
    each = ", ".join(f"{count:.0f} by {batch}" for batch, count in row["per_second"].items())
    return f"p50 {row['flat_out']['p50_ms']:.3g} ms; a second: {each}"


def _costs(row: Mapping[str, Any]) -> str:
    camera, cold, energy = row["paced"], row.get("cold_start"), row["energy"]
    said = [
        f"{camera['rate_hz']:g} Hz: p99 {camera['p99_ms']:.3g} ms, {camera['late']} late, {camera['dropped']} dropped"
    ]
    if isinstance(cold, dict):
        said.append(f"start {cold['process_ms']:.0f} ms, {cold['peak_mib']:.0f} MiB")
    said.append(f"{energy['mj_per_embedding']:.3g} mJ" if isinstance(energy, dict) else "energy unavailable")
    return "; ".join(said)


def _where(report: BenchReport) -> str:
    machine, now = report.machine, report.machine["after"]
    said = [machine["board"] or machine["cpu"], f"power mode {now['power_mode']}", f"governor {now['governor']}"]
    heat = now["temperature_c"]
    said.append(f"{heat} C" if isinstance(heat, (int, float)) else "temperature unavailable")
    return ", ".join([*said, machine["date"][:10], f"edgessl {machine['edgessl']}"])
