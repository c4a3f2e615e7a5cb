"""Events sorted into what is drawn: drift, what served, decisions, quality."""

from __future__ import annotations

import json
import math

import pytest

from edgessl.errors import InputError
from edgessl.runtimes.adapt.history import LANES, OTHER, history_of, read_events


def event(kind, frame, **numbers):
    return {"kind": kind, "frame": frame, **numbers}


def spans(history):
    return [(stretch.start, stretch.end, stretch.serving, stretch.shifted) for stretch in history.stretches]


def test_a_shift_is_served_by_the_level_and_the_rest_by_the_factory():
    events = [
        event("open", 0, level="ports"),
        event("shift", 40, score=5.0, threshold=2.0),
        event("return", 90, score=1.0, threshold=2.0),
        event("snapshot", 120, number=1),
    ]
    history = history_of(events)
    assert spans(history) == [(0, 40, "factory", False), (40, 90, "ports", True), (90, 120, "factory", False)]
    assert history.drift == [(40, 2.5), (90, 0.5)]
    assert not history.watched


def test_a_log_that_begins_in_a_shift_is_known_by_its_end():
    history = history_of([event("open", 7, level="tail"), event("return", 30), event("snapshot", 50, number=4)])
    assert spans(history) == [(7, 30, "tail", True), (30, 50, "factory", False)]


def test_watch_events_tell_level_and_shift_where_nothing_else_does():
    levels = ["recenter", "recenter", "ports", "ports"]
    events = [
        event("watch", 10 * index, shifted=index > 0, level=level, score=index, threshold=2)
        for index, level in enumerate(levels)
    ]
    history = history_of(events)
    assert spans(history) == [(0, 10, "factory", False), (10, 20, "recenter", True), (20, 30, "ports", True)]
    assert history.watched
    assert history.drift == [(0, 0.0), (10, 0.5), (20, 1.0), (30, 1.5)]


@pytest.mark.parametrize("kind", ["frozen", "failed"])
def test_what_is_frozen_is_served_by_the_factory_until_a_learner_opens_thawed(kind):
    events = [
        event("open", 0, level="ports"),
        event("shift", 10),
        event(kind, 20),
        event("watch", 30, shifted=False, level="ports"),
        event("open", 40, level="ports"),
        event("watch", 60, shifted=True, level="ports"),
    ]
    assert spans(history_of(events)) == [
        (0, 10, "factory", False),
        (10, 20, "ports", True),
        (20, 40, "factory", True),
        (40, 60, "ports", True),
    ]


def test_a_learner_that_opens_frozen_stays_with_the_factory():
    events = [event("frozen", 10), event("open", 10, level="ports"), event("shift", 20), event("snapshot", 30)]
    assert {stretch.serving for stretch in history_of(events).stretches} == {"factory"}


def test_every_kind_of_decision_stands_in_its_lane_with_its_numbers():
    kinds = [kind for kinds in LANES.values() for kind in kinds]
    events = [event("open", 0), *(event(kind, 5, cosine=0.123456, why="so") for kind in kinds), event("novel", 6)]
    history = history_of(events)
    assert {lane: tuple(mark.kind for mark in marks) for lane, marks in history.marks.items()} == {
        **LANES,
        OTHER: ("novel",),
    }
    assert history.marks["rolled back"][0].text == "frame 5, rollback; cosine: 0.1235; why: so"
    assert history.counts == {"open": 2, "novel": 1} | {kind: 1 for kind in kinds if kind != "open"}


def test_a_restart_is_marked_and_the_first_opening_is_not():
    history = history_of([event("open", 0), event("watch", 5), event("open", 9)])
    assert [(mark.frame, mark.kind) for mark in history.marks["restart"]] == [(9, "open")]


def test_quality_is_there_where_events_have_it():
    events = [event("watch", 0, spread=0.5), event("watch", 8, spread=math.nan), event("watch", 16, spread=0.25)]
    history = history_of(events)
    assert list(history.quality) == ["spread"]
    frames, values = zip(*history.quality["spread"], strict=True)
    assert frames == (0, 8, 16)
    assert (values[0], values[2]) == (0.5, 0.25)
    assert math.isnan(values[1])


@pytest.mark.parametrize("odd", ["high", True, None, [1.0]])
def test_what_is_no_number_is_left_out(odd):
    history = history_of([event("watch", 3, score=odd, threshold=2.0, spread=odd, shifted="maybe", level=7)])
    assert (history.drift, history.quality) == ([], {})
    assert spans(history) == [(3, 3, "factory", False)]


def test_a_threshold_of_nothing_and_numbers_beyond_floats_break_the_curve():
    events = [event("watch", 1, score=1.0, threshold=0), event("watch", 2, score=10**400, threshold=1.0)]
    assert [math.isnan(value) for _, value in history_of(events).drift] == [True, True]


def test_a_learners_own_events_are_read(encoder, tmp_path, scenes):
    with encoder.learner(tmp_path / "state") as learner:
        learner.observe(scenes(120, 6))
        learner.observe(scenes(200, 6, (40, 35, 30)))
    history = history_of(learner.events)
    assert (history.start, history.end) == (0, 320)
    assert [stretch.serving for stretch in history.stretches[:2]] == ["factory", "ports"]
    assert sum(history.counts.values()) == len(learner.events)
    assert OTHER not in history.marks


def test_a_log_is_read_line_by_line(tmp_path):
    file = tmp_path / "events.jsonl"
    events = [event("open", 0), event("watch", 5, score=math.nan)]
    file.write_text("\n".join(json.dumps(each) for each in events) + "\n\n")
    assert [each["kind"] for each in read_events(file)] == ["open", "watch"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2 is no JSON"),
        ("[1]", "line 2 is no event"),
        ('{"kind": "open"}', "line 2 is no event"),
        ('{"kind": "open", "frame": -1}', "line 2 is no event"),
        ('{"kind": "open", "frame": 1.5}', "line 2 is no event"),
        ('{"kind": 3, "frame": 1}', "line 2 is no event"),
    ],
)
def test_a_line_that_is_no_event_is_named(tmp_path, line, told):
    (tmp_path / "log").write_text(f'{{"kind": "open", "frame": 0}}\n{line}\n')
    with pytest.raises(InputError, match=told):
        read_events(tmp_path / "log")


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_file_that_is_no_log_says_what_to_give(tmp_path, content):
    if content is not None:
        (tmp_path / "log").write_bytes(content)
    with pytest.raises(InputError, match="--log"):
        read_events(tmp_path / "log")
