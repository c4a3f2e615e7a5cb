"""A camera that is slow, gone, damaged, hung, or beside a clock that jumps: what is given, and what is said."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from queue import Queue
from typing import Any

import numpy as np
import pytest

from edgessl.errors import EngineError, InputError, MissingExtraError
from edgessl.signals import image_spec, series_spec
from edgessl.sources import is_live, open_live, open_source
from edgessl.sources import live as live_module
from edgessl.sources.live import LiveSource, pause_s
from edgessl.sources.livebase import LiveFrame

SPEC = image_spec(4, 6)
WAIT_S = 5.0  # of real time, for what must happen; nothing waits so long in a test that passes


def frame(value: int, height: int = 4, width: int = 6) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


class Clock:
    """Time that goes on only when told to."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Camera:
    """Gives what is put: a frame, None, or an exception to raise. Without anything it waits, as a driver does."""

    def __init__(self) -> None:
        self.todo: Queue[Any] = Queue()
        self.captured_s: float | None = None
        self.opened = self.closed = 0
        self.refuses = 0
        self.asked = self.put_in = 0

    def open(self) -> Camera:
        self.opened += 1
        if self.opened > 1 and self.refuses:
            self.refuses -= 1
            raise OSError("no such device")
        return self

    def put(self, what: Any) -> None:
        self.put_in += 1
        self.todo.put(what)

    @property
    def idle(self) -> bool:
        """Whether all that was put is taken in: the thread asks for one more."""
        return self.asked == self.put_in + 1

    def grab(self) -> Any:
        self.asked += 1
        found = self.todo.get()
        if isinstance(found, BaseException):
            raise found
        if isinstance(found, tuple):
            found, self.captured_s = found
        return found

    def close(self) -> None:
        self.closed += 1


class Rig:
    """A camera, its stream, its clocks and what was told."""

    def __init__(self, **given: Any) -> None:
        self.camera, self.clock, self.wall, self.told = Camera(), Clock(100.0), Clock(1e9), list[dict[str, Any]]()
        known = {
            "spec": SPEC,
            "tell": self.told.append,
            "clock": self.clock,
            "wall": self.wall,
            "pause_s": (0.001, 0.004),
        }
        self.live = LiveSource("camera:0", self.camera.open, **{**known, **given})

    def put(self, *what: Any) -> None:
        """Let the driver give this, and wait until all of it was taken in."""
        for each in what:
            self.camera.put(each)
        until(lambda: self.camera.idle)

    def events(self) -> list[str]:
        return [each["event"] for each in self.told]

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.camera.put(OSError("the test is over"))
        self.live.close()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_the_newest_frame_wins_and_the_others_are_counted() -> None:
    with Rig() as rig:
        rig.put(frame(1), frame(2), frame(3))
        given = rig.live.read(WAIT_S)
        assert given is not None
        assert (given.name, given.age_s, given.frame[0, 0, 0]) == ("camera:0#000002", 0.0, 3)
        assert rig.live.read(0.0) is None
        assert rig.live.counts() == {"given": 1, "dropped": 2, "stale": 0, "damaged": 0, "reconnects": 0}


def test_an_old_frame_is_never_given_and_the_next_one_is_waited_for() -> None:
    with Rig(max_age_s=0.05) as rig:
        rig.put(frame(1))
        rig.clock.now += 0.0501
        assert rig.live.read(0.0) is None
        assert rig.live.counts()["stale"] == 1
        rig.put(frame(2))
        rig.clock.now += 0.0499
        given = rig.live.read(WAIT_S)
        assert given is not None
        assert given.frame[0, 0, 0] == 2
        assert given.age_s == pytest.approx(0.0499)
        assert given.stamp_s == 1e9


def test_whoever_waits_is_woken_by_the_next_frame() -> None:
    with Rig() as rig:
        found: list[LiveFrame | None] = []
        reader = threading.Thread(target=lambda: found.append(rig.live.read(WAIT_S)))
        reader.start()
        rig.camera.put(frame(7))
        reader.join(WAIT_S)
        assert found[0] is not None


def test_what_the_driver_says_of_the_capture_is_the_age() -> None:
    with Rig(max_age_s=0.05) as rig:
        rig.put((frame(1), rig.clock.now - 0.03))
        given = rig.live.read(WAIT_S)
        assert given is not None
        assert given.age_s == pytest.approx(0.03)
        assert given.stamp_s == pytest.approx(1e9 - 0.03)
        rig.put((frame(1), rig.clock.now - 0.06))
        assert rig.live.read(0.0) is None


def test_a_camera_that_is_always_late_is_told_once() -> None:
    with Rig(max_age_s=0.05, silent_s=2.0) as rig:
        for _ in range(5):
            rig.clock.now += 1
            rig.put((frame(1), rig.clock.now - 0.2))
            assert rig.live.read(0.0) is None
        assert rig.events() == ["stale"]
        assert rig.told[0]["age_s"] == pytest.approx(0.2)
        assert rig.live.counts()["stale"] == 5


@pytest.mark.parametrize("jump_s", [86400.0, -86400.0])
def test_a_jump_of_the_wall_clock_makes_no_frame_old_or_eternal(jump_s: float) -> None:
    with Rig(max_age_s=0.05) as rig:
        rig.put(frame(1))
        rig.wall.now += jump_s
        rig.clock.now += 0.01
        given = rig.live.read(WAIT_S)
        assert given is not None
        assert given.age_s == pytest.approx(0.01)
        rig.put(frame(2))
        after = rig.live.read(WAIT_S)
        assert after is not None
        assert after.stamp_s - given.stamp_s == pytest.approx(jump_s)
        rig.put(frame(3))
        rig.wall.now -= jump_s
        rig.clock.now += 0.06
        assert rig.live.read(0.0) is None
        assert rig.live.counts() == {"given": 2, "dropped": 0, "stale": 1, "damaged": 0, "reconnects": 0}


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        frame(1, height=3),
        frame(1)[..., :2],
        frame(1)[..., 0],
        frame(1).astype(np.float32),
        frame(1)[:0],
        np.zeros(50, np.uint8),  # a buffer that was cut off
        b"\0" * 72,
    ],
)
def test_a_damaged_frame_is_counted_and_not_given(damaged: Any) -> None:
    with Rig() as rig:
        rig.put(frame(1))
        assert rig.live.read(WAIT_S) is not None
        rig.put(damaged)
        assert rig.live.read(0.0) is None
        rig.put(frame(2))
        given = rig.live.read(WAIT_S)
        assert given is not None
        assert given.frame[0, 0, 0] == 2
        assert rig.live.counts() == {"given": 2, "dropped": 0, "stale": 0, "damaged": 1, "reconnects": 0}


def test_a_camera_that_is_unplugged_and_plugged_in_again_goes_on() -> None:
    with Rig() as rig:
        rig.put(frame(1))
        assert rig.live.read(WAIT_S) is not None
        rig.camera.refuses = 3
        rig.camera.put(OSError("gone"))
        until(lambda: rig.live.counts()["reconnects"] == 1)
        rig.put(frame(9, height=8, width=12))  # it came back with another size, and is resized
        given = rig.live.read(WAIT_S)
        assert given is not None
        assert given.frame.shape == SPEC.shape
        assert rig.events() == ["disconnected"] * 4 + ["reconnected"]
        assert "OSError: gone" in rig.told[0]["error"]
        assert rig.told[-1]["tries"] == 4
        assert rig.camera.opened == 5
        assert rig.camera.closed == 1


def test_a_camera_that_gave_frames_in_between_is_a_new_loss() -> None:
    with Rig() as rig:
        for losses in (1, 2):
            rig.camera.put(OSError("gone"))
            until(lambda losses=losses: rig.events().count("reconnected") == losses)
            rig.put(frame(losses))
            assert rig.live.read(WAIT_S) is not None
        assert [each["tries"] for each in rig.told if each["event"] == "reconnected"] == [1, 1]


def test_a_camera_that_gives_nothing_good_is_opened_again() -> None:
    with Rig(silent_s=2.0) as rig:
        rig.put(frame(1), None, None)
        assert rig.camera.opened == 1
        rig.clock.now += 2.5
        rig.camera.put(None)
        until(lambda: rig.live.counts()["reconnects"] == 1)
        assert "no good frame for 2.5 s" in rig.told[0]["error"]


def test_the_device_is_given_back_before_the_pause() -> None:
    with Rig(pause_s=(60.0, 60.0)) as rig:
        rig.camera.put(OSError("gone"))
        until(lambda: bool(rig.told))
        assert rig.camera.closed == 1
        rig.live.close()  # does not wait for the pause
        assert "abandoned" not in rig.events()


def test_pauses_grow_to_their_limit_and_are_spread() -> None:
    rng = random.Random(0)
    for tries in range(200):
        whole = min(30.0, 0.5 * 2.0**tries)
        pauses = [pause_s(tries, 0.5, 30.0, rng) for _ in range(50)]
        assert whole / 2 <= min(pauses) < 0.6 * whole
        assert 0.9 * whole < max(pauses) <= whole


def test_a_camera_that_hangs_is_told_and_does_not_hold_up_its_reader() -> None:
    with Rig(hung_s=5.0) as rig:
        rig.put(frame(1))
        assert rig.live.read(WAIT_S) is not None
        rig.clock.now += 5.5  # it has been in the driver all the while
        for _ in range(3):
            assert rig.live.read(0.01) is None
        assert rig.events() == ["hung"]
        rig.put(frame(2))
        assert rig.live.read(WAIT_S) is not None
        assert rig.events() == ["hung", "answered"]
        assert rig.told[1]["after_s"] == pytest.approx(5.5)


def test_close_returns_while_the_driver_hangs_and_the_device_is_given_back_later() -> None:
    rig = Rig(close_s=0.01)
    rig.put(frame(1))
    rig.live.close()
    rig.live.close()
    assert rig.events() == ["abandoned"]
    assert rig.live.read(WAIT_S) is None
    assert rig.live.ended
    assert rig.live._thread.daemon
    rig.camera.put(frame(2))
    rig.live._thread.join(WAIT_S)
    assert not rig.live._thread.is_alive()
    assert rig.camera.closed == 1


def test_an_iteration_ends_when_it_is_closed_from_elsewhere() -> None:
    with Rig() as rig:
        rig.put(frame(1))
        seen = []
        for given in rig.live:
            seen.append(given.name)
            rig.camera.put(frame(2))
            if len(seen) == 2:
                rig.live.close()
        assert seen == ["camera:0#000000", "camera:0#000001"]


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (InputError("there is no camera"), InputError, "there is no camera"),
        (MissingExtraError("opencv-python-headless", "camera"), MissingExtraError, r"edgessl\[camera\]"),
        (RuntimeError("boom"), InputError, "camera:0 cannot be opened: boom"),
    ],
)
def test_what_cannot_be_opened_at_first_is_an_error(error: Exception, kind: type[Exception], said: str) -> None:
    def opened() -> Any:
        raise error

    with pytest.raises(kind, match=said):
        LiveSource("camera:0", opened, spec=SPEC)


def test_a_driver_that_hangs_while_it_opens_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "_OPEN_S", 0.02)
    hold = threading.Event()
    camera = Camera()
    told: list[dict[str, Any]] = []

    def opened() -> Camera:
        hold.wait(WAIT_S)
        return camera

    with pytest.raises(InputError, match=r"did not open within 0\.02 s"):
        LiveSource("camera:0", opened, spec=SPEC, tell=told.append, close_s=0.02)
    assert [each["event"] for each in told] == ["abandoned"]
    hold.set()
    until(lambda: camera.closed == 1)  # when it answers after all, it is given back
    assert camera.asked == 0


def test_whoever_reads_is_told_when_the_thread_died() -> None:
    def refused(event: dict[str, Any]) -> None:
        raise ValueError("nobody listens")

    rig = Rig(tell=refused)
    rig.camera.put(OSError("gone"))
    with pytest.raises(EngineError, match="nobody listens"):
        rig.live.read(WAIT_S)
    rig.live.close()


def test_frames_are_resized_as_images_are() -> None:
    from edgessl.sources.images import resized

    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    with Rig() as rig:
        rig.put(pixels)
        given = rig.live.read(WAIT_S)
        assert given is not None
        assert np.array_equal(given.frame, resized(pixels, (4, 6)))


def test_a_series_takes_no_camera_and_an_age_is_positive() -> None:
    with pytest.raises(InputError, match="takes series"):
        LiveSource("camera:0", Camera().open, spec=series_spec(3, 10))
    with pytest.raises(InputError, match=r"max_age_s=0.*type 0\.05"):
        LiveSource("camera:0", Camera().open, spec=SPEC, max_age_s=0)


def test_what_is_live_and_what_is_not() -> None:
    assert [is_live(data) for data in ("-", "camera:0", "camera:/dev/video2?fps=30")] == [True] * 3
    assert [is_live(data) for data in ("frames/", "camera.mp4", "bag:drive", "demo:day", "-.npz")] == [False] * 5
    with pytest.raises(InputError, match=r"no live stream; type one of: camera:0.*- for standard input"):
        open_live("frames/", spec=SPEC)
    with pytest.raises(InputError, match=r"is a live stream.*record it"):
        open_source("camera:0")
    with pytest.raises(InputError, match=r"data is one of: .*A live stream is camera:0"):
        open_source("camra:0")
