"""What the demo found: rows, and a picture of the night."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.metrics import places_found

NAMES = {
    "raw_pixels": "raw pixels, mean removed",
    "untrained": "untrained student",
    "teacher": "teacher",
    "student": "student, fp32",
    "int8": "student, int8",
    "int8_adapted": "student, int8, adapted",
}
WINDOW = 150  # frames that a point of the curve is the mean of


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contender.

    Attributes:
        recall_revisit: Recall@1 against the day's map, on the day's revisit.
        recall_night: The same on the night lap that nothing was learned from before it was embedded.
        size_bytes: On disk, of what is needed to embed.
        ms_per_frame: Median, one frame at a time, on this machine.
        peak_mb: Of the whole process.
    """

    name: str
    recall_revisit: float
    recall_night: float
    size_bytes: int
    ms_per_frame: float
    peak_mb: float

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def hits(
    found: Mapping[str, NDArray[Any]], places: dict[str, NDArray[np.float64]], lap: str, tolerance: float
) -> NDArray[np.bool_]:
    """For each frame of a lap, whether the day frame most like it was taken within `tolerance` of its place: `(n,)`."""
    return places_found(found[lap], places[lap], found["day"], places["day"], tolerance=tolerance)


def row(
    name: str,
    found: dict[str, NDArray[Any]],
    places: dict[str, NDArray[np.float64]],
    tolerance: float,
    size_bytes: int,
) -> Row:
    """What one contender reached."""
    return Row(
        name=name,
        recall_revisit=float(hits(found, places, "revisit", tolerance).mean()),
        recall_night=float(hits(found, places, "night_unseen", tolerance).mean()),
        size_bytes=size_bytes,
        ms_per_frame=float(found["ms_per_frame"]),
        peak_mb=float(found["peak_mb"]),
    )


def thumbnail(
    laps: dict[str, NDArray[np.uint8]], places: dict[str, NDArray[np.float64]], tolerance: float, side: int = 4
) -> dict[str, float]:
    """Recall of a `side` x `side` colour thumbnail: of the descriptors without a network, the strongest that we tried.

    Args:
        laps: Frames `(n, size, size, 3)` by lap.
        places: `(n, 3)` by lap.
        tolerance: As in `hits`.
        side: Pixels a side.
    """
    small = {}
    for lap, frames in laps.items():
        step = frames.shape[1] // side
        cells = frames.reshape(len(frames), side, step, side, step, 3).mean((2, 4), dtype=np.float32)
        small[lap] = cells.reshape(len(frames), -1)
    return {
        "side": side,
        "recall_revisit": float(hits(small, places, "revisit", tolerance).mean()),
        "recall_night": float(hits(small, places, "night_unseen", tolerance).mean()),
    }


def draw(
    path: Path,
    laps: dict[str, NDArray[np.uint8]],
    vectors: dict[str, dict[str, NDArray[Any]]],
    places: dict[str, NDArray[np.float64]],
    tolerance: float,
) -> None:
    """Recall as the night goes on, with and without adaptation, over a strip of what the camera saw."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 1, height_ratios=[1, 2.4])
    strip = figure.add_subplot(grid[0])
    chosen = np.linspace(0, len(laps["day"]) - 1, 14).round().astype(int)
    strip.imshow(np.vstack([np.hstack(list(laps[lap][chosen])) for lap in ("day", "revisit", "night")]))
    side = laps["day"].shape[1]
    strip.set_yticks([side * (line + 0.5) for line in range(3)], ["day", "revisit", "night"])
    strip.set_xticks([])
    axes = figure.add_subplot(grid[1])
    order = ("night", "night_unseen", "revisit")
    styles = {
        "int8_adapted": ("#1a7f5a", "adapting"),
        "int8": ("#b3541e", "as shipped"),
        "raw_pixels": ("#777777", "raw pixels"),
    }
    for name, (colour, label) in styles.items():
        curve = np.concatenate([_running(hits(vectors[name], places, lap, tolerance)) for lap in order])
        axes.plot(curve, color=colour, label=label, linewidth=2)
    first, second = len(laps["night"]), len(laps["night"]) + len(laps["night_unseen"])
    axes.axvspan(0, second, color="#20304a", alpha=0.10, linewidth=0)
    for at in (first, second):
        axes.axvline(at, color="#20304a", linewidth=0.8)
    for middle, text in (
        (first / 2, "night"),
        ((first + second) / 2, "night, another lap"),
        (second + first / 2, "day again"),
    ):
        axes.text(middle, 0.99, text, ha="center", va="top", transform=axes.get_xaxis_transform())
    events = json.loads(str(vectors["int8_adapted"]["events"]))
    for at in (event["frame"] for event in events if event["kind"] == "shift"):
        axes.axvline(min(at, second), color="#1a7f5a", linestyle=":", linewidth=1)
    axes.set(
        xlim=(0, second + len(laps["revisit"])), ylim=(0, 1), xlabel="frames", ylabel="recall@1 against the day's map"
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
    figure.savefig(path)


def _running(hit: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over `WINDOW` frames around each; fewer at the ends."""
    kernel = np.ones(min(WINDOW, len(hit)))
    return np.asarray(np.convolve(hit, kernel, "same") / np.convolve(np.ones(len(hit)), kernel, "same"))
