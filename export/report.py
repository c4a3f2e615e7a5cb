"""The page for people that lies in a bundle: one file, no script, nothing fetched, every text of the manifest escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.export.figures import curve, escaped, histogram, thumbnail
from edgessl.files import write_atomic
from edgessl.metrics import cosines, unit

REPORT = "report.html"
REFERENCE = "golden"  # the key of the reference among the vectors

_QUERIES, _NEAR = 8, 5  # examples of neighbours: as many queries, as many neighbours of each
_LONGEST = 400  # characters of a fact; more stands in the manifest

_STYLE = """
:root{color-scheme:light dark;--back:#fbfbfa;--text:#1c1d1f;--dim:#63666b;--line:#d9dadd;--mark:#2166a5;
--bad:#b3261e;--good:#1a7a3c}
@media(prefers-color-scheme:dark){:root{--back:#16181b;--text:#e4e5e7;--dim:#9a9ea4;--line:#383b40;--mark:#6fb1ea;
--bad:#ff8a80;--good:#7fd69a}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:62rem;padding:1rem;background:var(--back);color:var(--text);font:16px/1.5 system-ui,sans-serif}
h1{margin:.5rem 0}h2{margin:2.2rem 0 .6rem;border-bottom:1px solid var(--line)}h3{margin:1.2rem 0 .3rem;font-size:1rem}
p,.dim{color:var(--dim)}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .9rem .25rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{font-weight:600;white-space:nowrap}td.n{text-align:right;white-space:nowrap}td.f{overflow-wrap:anywhere;min-width:6rem}td.f:first-child{min-width:11rem}
.good{color:var(--good)}.bad{color:var(--bad);font-weight:600}
svg.figure{width:100%;max-width:40rem;height:auto}
svg .mark{fill:var(--mark)}svg .line{fill:none;stroke:var(--mark);stroke-width:1.5}
svg .axis{stroke:var(--dim)}svg text{fill:var(--dim);font-size:11px}
.near{display:flex;flex-wrap:wrap;gap:.3rem;align-items:center;margin:.15rem 0}
.near span.who{width:4.2rem;color:var(--dim);font-size:.85rem}
.near img,.near svg{border:3px solid transparent;border-radius:4px;display:block}
.near .lost img,.near .lost svg{border-color:var(--bad)}.near .came img,.near .came svg{border-color:var(--mark)}
"""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """What the page is made of; all of it is plain data, and none of it is trusted.

    Attributes:
        manifest: Of the bundle.
        measured: What was timed, as in `measured.json`; None where nothing was.
        samples: Golden samples, `uint8 (n, height, width, 3)` or float `(n, channels, time)`.
        names: Of the golden samples.
        vectors: file -> vectors of the golden samples `(n, dim)`; `golden` is the reference.
        layers: file -> (layer, cosine with the reference's output of that layer), in the graph's order.
        lint: Findings, each with `rule`, `message` or whatever the linter says.
    """

    manifest: Mapping[str, Any]
    samples: NDArray[Any]
    names: Sequence[str]
    vectors: Mapping[str, NDArray[np.floating]]
    measured: Mapping[str, Any] | None = None
    layers: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    lint: Sequence[Mapping[str, Any]] = ()


def write_report(folder: Path, data: ReportData) -> Path:
    """Write `report.html` into a bundle in the making.

    Args:
        folder: The bundle.
        data: What to tell.

    Returns:
        The page.
    """
    path = folder / REPORT
    write_atomic(path, page(data).encode("utf-8", "replace"))
    return path


def page(data: ReportData) -> str:
    """The page as text."""
    name = escaped(data.manifest.get("name", "bundle"))
    sections = {
        "What it is": _facts(data.manifest),
        "Size": _sizes(_table_of(data.manifest, "artefacts")),
        "Latency": _latency(data.measured),
        "Agreement with PyTorch": _parity(data),
        "Cosines of the golden samples": _histograms(data),
        "Where the error starts": "".join(
            f"<h3>{escaped(file)}</h3>{curve(points, f'cosine per layer of {file}')}"
            for file, points in data.layers.items()
        ),
        "Neighbours before and after": _neighbours(data),
        "Left out": _table(["", "why"], _table_of(data.manifest, "rejected").items()),
        "Lint": _lint(data.lint),
    }
    body = "".join(f"<section><h2>{head}</h2>{text}</section>" for head, text in sections.items() if text)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{name}</title><style>{_STYLE}</style></head><body><h1>{name}</h1>{body}</body></html>\n"
    )


def _facts(manifest: Mapping[str, Any]) -> str:
    shown = (
        *("space_id", "dim", "input", "encoder", "preprocessing", "pooling", "license", "provenance", "onnx"),
        *("created", "edgessl", "format", "content_sha256"),
    )
    rows = [line for key in shown if key in manifest for line in _lines(key, manifest[key])]
    if "license" not in manifest:
        rows.insert(0, ("license", "not stated"))
    return _table(["", ""], rows)


def _lines(key: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [line for inner, each in value.items() for line in _lines(f"{key}.{inner}", each)]
    text = str(value)
    return [(key, text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ...")]


def _sizes(artefacts: Mapping[str, Any]) -> str:
    heads = ["file", "role", "precision", "engine", "MB"]
    rows = [
        (file, entry.get("role", ""), entry.get("precision", ""), entry.get("engine") or "any", _megabytes(entry))
        for file, entry in artefacts.items()
    ]
    return _table(heads, [*rows, ("all", "", "", "", sum(row[4] for row in rows))], digits=3)


def _megabytes(entry: Mapping[str, Any]) -> float:
    size = entry.get("size_bytes", 0)
    return float(size) / 1e6 if isinstance(size, (int, float)) else 0.0


def _latency(measured: Mapping[str, Any] | None) -> str:
    if not measured or not measured.get("rows"):
        return "<p>Not measured. Type: edgessl doctor</p>" if measured is None else ""
    heads = ["file", "engine", "precision", "batch", "median ms", "times its fp32"]
    keys = ("file", "engine", "precision", "batch", "median_ms", "ratio_to_fp32")
    rows = [[row.get(key, "") for key in keys] for row in measured["rows"]]
    where = (
        f"{escaped(measured.get('machine', ''))}, {escaped(measured.get('threads', ''))} threads; figures of one run."
    )
    return f"<p>{where} Below 1 is faster than the same engine's fp32.</p>{_table(heads, rows, digits=3)}"


def _parity(data: ReportData) -> str:
    rows = []
    for file, figures in _table_of(data.manifest, "parity").items():
        if not isinstance(figures, Mapping) or "min_cosine" not in figures:
            continue
        bound = figures.get("bound", {})
        asked = (
            ", ".join(f"{key} {value}" for key, value in bound.items() if value) if isinstance(bound, Mapping) else ""
        )
        passed = figures.get("ok")
        said = "" if passed is None else "passed" if passed is True else "FAILED"
        worst = figures.get("worst") or _worst(data, file)
        measured = [figures.get(key, "") for key in ("min_cosine", "mean_cosine", "knn_overlap")]
        rows.append([file, figures.get("engine", ""), *measured, asked, said, worst])
    heads = ["file", "engine", "min cosine", "mean cosine", "overlap @10", "bound", "", "worst sample"]
    return _table(heads, rows, digits=5)


def _worst(data: ReportData, file: str) -> str:
    if file not in data.vectors or REFERENCE not in data.vectors:
        return ""
    similar = cosines(data.vectors[REFERENCE], data.vectors[file])
    return data.names[int(np.argmin(similar))] if len(data.names) == len(similar) else ""


def _histograms(data: ReportData) -> str:
    parts = []
    for file, vectors in data.vectors.items():
        if file != REFERENCE and REFERENCE in data.vectors:
            similar = cosines(data.vectors[REFERENCE], vectors)
            title = f"cosines of {file} with the fp32 reference"
            parts.append(f"<h3>{escaped(file)}</h3>{histogram(similar, title)}")
    return "".join(parts)


def _neighbours(data: ReportData) -> str:
    """The queries whose neighbours changed most, and the neighbours on both sides."""
    int8 = next((file for file in data.vectors if "int8" in file and "trunk" not in file), None)
    count = min(_NEAR, len(data.samples) - 1)
    if int8 is None or REFERENCE not in data.vectors or count < 1:
        return ""
    before, after = (_nearest(data.vectors[key], count) for key in (REFERENCE, int8))
    kept = np.array([len(np.intersect1d(x, y)) for x, y in zip(before, after, strict=True)])
    parts = [
        f"<p>{escaped(int8)} against fp32: the {_QUERIES} golden samples of whose {count} nearest neighbours most changed. "
        f"On average {kept.mean():.2f} of {count} stay. A red frame leaves, a blue one comes.</p>"
    ]
    for query in np.argsort(kept, kind="stable")[:_QUERIES]:
        rows = []
        for who, mine, other, mark in (("fp32", before, after, "lost"), ("int8", after, before, "came")):
            pictures = "".join(
                f'<span class="{"" if row in other[query] else mark}">{_picture(data, int(row))}</span>'
                for row in mine[query]
            )
            rows.append(f'<div class="near"><span class="who">{who}</span>{pictures}</div>')
        name = escaped(_name(data, int(query)))
        whose = f'<div class="near"><span class="who">of</span>{_picture(data, int(query))}<span>{name}</span></div>'
        parts.append(f"<div>{whose}{''.join(rows)}</div><hr>")
    return "".join(parts)


def _nearest(vectors: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    similar = unit(vectors) @ unit(vectors).T
    np.fill_diagonal(similar, -np.inf)
    return np.argsort(-similar, axis=1, kind="stable")[:, :count]


def _picture(data: ReportData, row: int) -> str:
    return thumbnail(data.samples[row], _name(data, row))


def _name(data: ReportData, row: int) -> str:
    return str(data.names[row]) if row < len(data.names) else f"sample {row}"


def _lint(findings: Sequence[Mapping[str, Any]]) -> str:
    if not findings:
        return ""
    heads = list(dict.fromkeys(str(key) for finding in findings for key in finding))
    return _table(heads, [[finding.get(head, "") for head in heads] for finding in findings])


def _table_of(manifest: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = manifest.get(key, {})
    return value if isinstance(value, Mapping) else {}


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]], *, digits: int = 4) -> str:
    lines = ["".join(_cell(value, digits) for value in row) for row in rows]
    if not lines:
        return ""
    head = "".join(f"<th>{escaped(each)}</th>" for each in heads) if any(heads) else ""
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        mark = {"passed": "good", "FAILED": "bad"}.get(str(value), "f")
        return f'<td class="{mark}">{escaped(value)}</td>'
    return f'<td class="n">{value:.{digits}f}</td>' if isinstance(value, float) else f'<td class="n">{value}</td>'
