"""Frames of a stream go to a sink until it is told to stop."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgessl.errors import InputError
from edgessl.runtimes.sinks import Space, writer_for
from edgessl.runtimes.sinks.journal import Journal
from edgessl.runtimes.sinks.live import embed_live
from edgessl.runtimes.sinks.stop import Stop
from edgessl.signals import image_spec
from edgessl.sources.livebase import LiveFrame

SPEC = image_spec(4, 5)


class Stream:
    """Frames that a test gives; the time passes as it says. A number of seconds stands for no frame in that time."""

    def __init__(self, *given: LiveFrame | float) -> None:
        self.name, self.spec = "camera:0", SPEC
        self.now_s = 100.0
        self._given = list(given)

    @property
    def ended(self) -> bool:
        return not self._given

    def read(self, timeout_s: float) -> LiveFrame | None:
        first = self._given.pop(0)
        if isinstance(first, LiveFrame):
            return first
        self.now_s += first
        return None

    def counts(self) -> dict[str, int]:
        return {"given": 2, "dropped": 1, "stale": 0, "damaged": 0, "reconnects": 3}

    def close(self) -> None:
        pass

    def __iter__(self) -> Iterator[LiveFrame]:
        return iter(())

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def frame(number: int, age_s: float = 0.01) -> LiveFrame:
    return LiveFrame(f"camera:0#{number:06d}", 1.7e9 + number, age_s, np.full(SPEC.shape, number, np.uint8))


class Given:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, float, dict[str, Any]]] = []

    def write(self, names: Any, stamps: Any, vectors: Any, facts: Any) -> None:
        assert len(names) == len(stamps) == len(vectors) == 1
        self.rows.append((names[0], float(stamps[0]), float(vectors[0, 0]), dict(facts)))


def run(stream: Stream, **options: Any) -> Given:
    def embed(frames: np.ndarray) -> np.ndarray:
        stream.now_s += 0.020  # a forward pass
        return frames[:, 0, 0, :2].astype(np.float32)

    sink = Given()
    options = {"stopped": lambda: False, **options}
    embed_live(stream, embed, sink, clock_s=lambda: stream.now_s, **options)  # type: ignore[arg-type]
    return sink


def test_each_frame_comes_with_its_stamp_and_its_age_when_its_vector_is_there() -> None:
    sink = run(Stream(frame(3), 0.5, frame(9, age_s=0.004)))
    assert [row[:3] for row in sink.rows] == [("camera:0#000003", 1.7e9 + 3, 3), ("camera:0#000009", 1.7e9 + 9, 9)]
    assert [row[3]["age_ms"] for row in sink.rows] == [[30.0], [24.0]]


def test_it_ends_after_a_count_or_a_time_even_where_no_frame_comes() -> None:
    assert len(run(Stream(*map(frame, range(9))), count=4).rows) == 4
    assert len(run(Stream(frame(0), 5.0, frame(1), 6.0, frame(2)), seconds=10).rows) == 2
    asked = iter([False, False, True])
    assert len(run(Stream(*map(frame, range(9))), stopped=lambda: next(asked)).rows) == 2


def test_names_of_a_stream_that_was_gone_on_with_stay_apart() -> None:
    assert run(Stream(frame(0)), session=2).rows[0][0] == "camera:0#000000@2"
    assert run(Stream(frame(0)), session=2).rows[0][3]["done"] == 2


def test_a_live_journal_that_was_killed_keeps_every_frame(tmp_path: Path) -> None:
    output = tmp_path / "v.parquet"
    space = Space(space_id="a", revision=0, dim=2)

    def session(number: int) -> Journal:
        journal = Journal(output, {"source": "camera:0"}, space, writer_for(output))
        stream = Stream(frame(0), frame(1))
        embed = lambda frames: frames[:, 0, 0, :2].astype(np.float32)  # noqa: E731
        embed_live(stream, embed, journal, stopped=lambda: False, session=number)
        return journal

    first = session(0)
    killed = shutil.copytree(tmp_path / "v.parquet.embedding", tmp_path / "as a kill leaves it")
    first.close()
    shutil.rmtree(tmp_path / "v.parquet.embedding")
    killed.rename(tmp_path / "v.parquet.embedding")
    second = session(1)
    second.finish()
    second.close()
    import pyarrow.parquet as pq

    table = pq.ParquetFile(output).read()
    assert table["name"].to_pylist() == ["camera:0#000000", "camera:0#000001", "camera:0#000000@1", "camera:0#000001@1"]
    assert [stamp.value for stamp in table["stamp"]] == [(1_700_000_000 + row) * 10**9 for row in (0, 1, 0, 1)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_raises(number: int) -> None:
    before = signal.getsignal(number)
    with Stop(at_once=False) as stop:
        os.kill(os.getpid(), number)
        assert (stop.signal, stop.exit_code) == (number, 128 + number)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_offline_the_first_signal_raises() -> None:
    with Stop(at_once=True) as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.exit_code == 143


def test_a_sink_that_is_full_ends_the_stream() -> None:
    class Full(Given):
        def write(self, names: Any, stamps: Any, vectors: Any, facts: Any) -> None:
            raise InputError("full")

    with pytest.raises(InputError, match="full"):
        embed_live(Stream(frame(0)), lambda f: np.zeros((1, 2), np.float32), Full(), stopped=lambda: False)  # type: ignore[arg-type]
