"""The picture of an evaluation: maps of the embeddings, and curves of the probes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgessl.errors import MissingExtraError
from edgessl.evaluation.results import FEW, Evaluation, Row

_ACROSS = 4  # maps in a line
_NAMED = 20  # classes that a legend names


def draw_maps(path: Path, found: Evaluation) -> None:
    """A map of every embedding: test samples in the plane of the two widest directions, coloured by class."""
    figure = _figure(len(found.maps))
    colours = _colours(len(found.classes))
    for place, each in enumerate(found.maps):
        lines, across = _grid(len(found.maps))
        axes = figure.add_subplot(lines, across, place + 1)
        axes.set_title(_short(each.name), fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
        if each.labels is None:
            axes.scatter(*each.points.T, s=4, color="0.4")
            continue
        for label, name in enumerate(found.classes):
            axes.scatter(*each.points[each.labels == label].T, s=4, color=colours[label], label=name)
        if place == 0 and len(found.classes) <= _NAMED:
            figure.legend(loc="outside lower center", ncols=10, fontsize=7, markerscale=2)  # beside the points
    figure.savefig(path)


def draw_curves(path: Path, found: Evaluation) -> bool:
    """Accuracy over labels per class, and over the stages of each encoder; False where neither was measured."""
    few, layers = [row for row in found.rows if row.few_labels], [row for row in found.rows if row.layers]
    panels = [bool(few), bool(layers)]
    if not any(panels):
        return False
    figure = _figure(sum(panels), wide=2)
    if few:
        axes = figure.add_subplot(1, sum(panels), 1)
        for row in few:
            _few(axes, row)
        counts = list(few[0].few_labels)
        axes.set_xscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        _named(axes, "labels per class (bars: standard deviation over runs)", "accuracy of the linear probe")
    if layers:
        axes = figure.add_subplot(1, sum(panels), sum(panels))
        for row in layers:
            if row.layers is not None:
                (line,) = axes.plot(row.layers.names, row.layers.accuracies, marker="o", label=_short(row.name))
                axes.plot(row.layers.names, row.layers.weights, linestyle=":", color=line.get_color())
        axes.tick_params(axis="x", rotation=45)
        _named(axes, "layer (dotted: its weight in the gated probe)", "accuracy of the linear probe, or weight")
    figure.savefig(path)
    return True


def _colours(count: int) -> Any:
    """`(count, 4)`: far apart for up to ten classes, else around the rainbow."""
    from matplotlib import colormaps

    return colormaps["tab10"](range(count)) if count <= 10 else colormaps["turbo"](np.linspace(0, 1, count))


def _few(axes: Any, row: Row) -> None:
    counts, values = list(row.few_labels), list(row.few_labels.values())
    spread: Sequence[float] = [row.sd.get(f"{FEW}{count}", 0.0) for count in counts]
    axes.errorbar(counts, values, yerr=spread, marker="o", capsize=2, label=_short(row.name))


def _named(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def _grid(count: int) -> tuple[int, int]:
    across = min(count, _ACROSS)
    return -(-count // across), across


def _figure(count: int, wide: int = 1) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "train") from error
    lines, across = _grid(count)
    figure = Figure(figsize=(3.2 * across * wide, 3.4 * lines * min(wide, 1.3)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"...{name[-37:]}"
