"""The drawing of a history: what stands where, and that nothing in a log can break it."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest

from edgessl.errors import InputError, OutputExistsError
from edgessl.runtimes.adapt.drawing import drawn, refuse_plot, write_plot
from edgessl.runtimes.adapt.history import LANES, history_of
from edgessl.runtimes.adapt.svg import LEFT, RIGHT, WIDE, Scale, nice

NS = "{http://www.w3.org/2000/svg}"


def event(kind, frame, **numbers):
    return {"kind": kind, "frame": frame, **numbers}


def night(count=100, start=0):
    """`watch` events, ten frames apart; the second half is shifted."""
    return [
        event(
            "watch",
            start + 10 * index,
            score=0.5 if index < count // 2 else 8.0,
            threshold=2.0,
            shifted=index >= count // 2,
            level="ports",
            spread=0.3,
            rank=5 + index / count,
            version=f"v{index}",
        )
        for index in range(count)
    ]


def parsed(events, title="robot.edgessl"):
    return ET.fromstring(drawn(history_of(events), title=title))


def heads(root):
    return [node.text for node in root.iter(f"{NS}text") if node.get("class") == "head"]


def curves(root):
    """Points of every curve, from the top of the page to its bottom."""
    return [
        [tuple(map(float, point.split(","))) for point in node.get("points").split()]
        for node in root.iter(f"{NS}polyline")
    ]


def test_every_panel_is_there_with_its_curve():
    root = parsed(night())
    assert heads(root) == [
        "Drift score, in thresholds",
        "What served",
        "Decisions",
        "Spread of the embedding",
        "Effective rank of the embedding",
    ]
    assert [len(curve) for curve in curves(root)] == [100, 100, 100]
    assert "version v99 at the end" in "".join(root.itertext())


def test_the_drift_lies_on_the_right_side_of_its_threshold_by_the_logarithm():
    root = parsed(night())
    limit = next(node for node in root.iter(f"{NS}path") if node.get("class") == "limit")
    y = float(re.match(r"M\d+,([\d.]+)H", limit.get("d"))[1])
    points = curves(root)[0]
    below, above = points[0][1] - y, y - points[-1][1]
    assert below == pytest.approx(above, abs=0.2)  # a quarter of it, and four times it


def test_frames_are_drawn_from_edge_to_edge_in_proportion():
    points = curves(parsed(night(start=5000)))[0]
    wide = WIDE - LEFT - RIGHT
    for index, (x, _) in enumerate(points):
        assert x == pytest.approx(LEFT + wide * index / 99, abs=0.06)


def test_a_shift_is_shaded_in_every_panel_where_it_is():
    root = parsed(night())
    bands = [node for node in root.iter(f"{NS}rect") if node.get("class") == "night"][1:]  # the first is the legend's
    assert len(bands) == len(heads(root))
    scale = Scale(0, 990)
    for band in bands:
        assert float(band.get("x")) == pytest.approx(scale.x(500), abs=0.06)
        assert float(band.get("x")) + float(band.get("width")) == pytest.approx(scale.x(990), abs=0.11)


def test_what_served_is_a_bar_with_its_frames():
    told = [node.text for node in parsed(night()).iter(f"{NS}title")]
    assert "factory: frames 0 to 500" in told
    assert "ports: frames 500 to 990" in told


def test_every_decision_tells_its_numbers_where_it_stands():
    events = [event("open", 0), event("rollback", 250, reason="the spread fell", snapshot=3), event("snapshot", 1000)]
    root = parsed(events)
    marks = [node for node in root.iter(f"{NS}g") if (node.find(f"{NS}title")) is not None]
    assert [mark.find(f"{NS}title").text for mark in marks] == [
        "frame 1,000, snapshot",
        "frame 250, rollback; reason: the spread fell; snapshot: 3",
    ]
    x = float(re.match(r"translate\(([\d.]+),", marks[1].get("transform"))[1])
    assert x == pytest.approx(Scale(0, 1000).x(250), abs=0.06)


def test_decisions_that_lie_on_each_other_become_one_that_counts_them():
    root = parsed([event("open", 0), *(event("quarantined", 500, frames=1) for _ in range(4000)), event("watch", 9999)])
    told = [node.text for node in root.iter(f"{NS}title")]
    assert "frame 500, quarantined; frames: 1, and 3,999 more until frame 500" in told
    assert "4,000" in [node.text for node in root.iter(f"{NS}text")]


def test_a_log_without_watch_events_says_what_is_missing():
    events = [event("open", 0), event("shift", 40, score=6.0, threshold=2.0), event("snapshot", 90)]
    root = parsed(events)
    assert heads(root) == ["Drift score, in thresholds", "What served", "Decisions"]
    assert curves(root) == []
    text = " ".join(root.itertext())
    assert "known only where a shift began or ended" in text
    assert "quality is not drawn" in text


def test_a_life_of_nothing_can_be_drawn():
    assert "not in these events" in " ".join(parsed([event("open", 0)]).itertext())


def test_a_curve_is_broken_where_it_is_not_known():
    events = [event("watch", frame, spread=math.nan if frame == 5 else 1.0) for frame in range(9)]
    assert [len(curve) for curve in curves(parsed(events))] == [5, 3]


def test_a_curve_is_broken_where_the_frames_go_back():
    events = [event("watch", frame, spread=1.0) for frame in (0, 10, 20, 5, 15)]
    assert [[x for x, _ in curve] for curve in curves(parsed(events))] == [
        pytest.approx([Scale(0, 20).x(frame) for frame in run], abs=0.06) for run in ((0, 10, 20), (5, 15))
    ]


def test_a_long_life_is_a_small_file_that_keeps_its_peaks():
    events = night(10_000)
    events[1234]["score"] = 24.6
    drawing = drawn(history_of(events), title="x")
    assert len(drawing) < 150_000
    highest = min(y for _, y in curves(ET.fromstring(drawing))[0])
    only = curves(parsed([*night(100), event("watch", 1000, score=24.6, threshold=2.0)]))[0][-1][1]
    assert highest == pytest.approx(only, abs=0.1)


def test_nothing_in_a_log_can_break_the_drawing():
    events = [event("open", 0), event("<script>", 5, reason="a \x00 & < \ud800 'x' \"y\"", deep={"a": [1]})]
    root = parsed(events, title='<b>"\x07&')
    assert root[0].text == 'Adaptation: <b>" &'
    assert not list(root.iter("script"))
    assert all(lane in {"other", *LANES} for lane in history_of(events).marks)


@pytest.mark.parametrize(
    ("scores", "threshold"), [([1e-300, 1e299], 1.0), ([0.0, 0.0], 1.0), ([-1.0, 2.0], 1.0), ([1e290, 1.0], 1e-9)]
)
def test_figures_beyond_reason_stay_inside_the_page(scores, threshold):
    events = [event("watch", f, score=s, threshold=threshold, spread=s, rank=-s) for f, s in enumerate(scores)]
    root = parsed(events)
    high = float(root.get("height"))
    assert all(0 <= y <= high for curve in curves(root) for _, y in curve)
    assert len(drawn(history_of(events), title="x")) < 100_000


@pytest.mark.parametrize(("least", "expected"), [(0.03, 0.05), (1, 1), (1.01, 2), (23, 50), (70, 100), (200, 200)])
def test_steps_are_round(least, expected):
    assert nice(least) == pytest.approx(expected)


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 3), (17, 993), (10**9, 10**9 + 7), (0, 0)])
def test_ticks_are_few_and_inside(start, end):
    scale = Scale(start, end)
    assert 1 <= len(scale.ticks()) <= 10
    assert all(scale.start <= tick <= scale.end for tick in scale.ticks())


def test_a_drawing_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    history = history_of(night())
    write_plot(tmp_path / "new" / "a.svg", history, title="x")
    assert (tmp_path / "new" / "a.svg").read_text() == drawn(history, title="x")
    monkeypatch.setattr("os.fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_plot(tmp_path / "b.svg", history, title="x")
    assert not list(tmp_path.glob("*b.svg*"))


def test_a_name_that_is_no_svg_is_refused_before_any_work(tmp_path):
    with pytest.raises(InputError, match=r"--plot .*a\.svg"):
        refuse_plot(tmp_path / "a.png", overwrite=True, option="--plot")
    (tmp_path / "a.svg").write_text("")
    with pytest.raises(OutputExistsError):
        refuse_plot(tmp_path / "a.svg", overwrite=False, option="--plot")
    refuse_plot(tmp_path / "a.svg", overwrite=True, option="--plot")
