"""Metrics that Prometheus reads, and a recording that Rerun reads."""

from __future__ import annotations

import math
import subprocess
import sys
from urllib.request import urlopen

import numpy as np
import pytest

from edgessl.errors import InputError, MissingExtraError
from edgessl.runtimes.robot import opening
from edgessl.runtimes.robot.learning import Learning
from edgessl.runtimes.robot.metrics import Metrics
from edgessl.runtimes.robot.service import Service

prometheus_parser = pytest.importorskip("prometheus_client.parser", reason="pip install 'edgessl[metrics]'")
rerun = pytest.importorskip("rerun", reason="pip install 'edgessl[rerun]'")


def read(port: int) -> dict[tuple[str, str], float]:
    """What a Prometheus server would read: (name, value of the only label) -> number."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    families = prometheus_parser.text_string_to_metric_families(text)
    return {
        (
            sample.name,
            next((value for key, value in sample.labels.items() if key != "le"), sample.labels.get("le", "")),
        ): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def metrics():
    made = Metrics("127.0.0.1", 0)
    yield made
    made.close()


def test_prometheus_reads_what_the_service_did(hand_encoder, pupil, picture, clock, metrics) -> None:
    service = Service(
        hand_encoder,
        Learning(lambda budget: pupil, level="ports"),
        max_age=1.0,
        temperature=lambda: 61.5,
        observers=[metrics],
        wall=clock,
        clock=clock,
    )
    for stamp_s in (clock.now, clock.now - 0.03, clock.now - 5):
        service.embed(picture, stamp_s)
    service.embed(np.zeros(3))
    service.look()
    service.status()
    found = read(metrics.port)
    counts = {label: value for (name, label), value in found.items() if name == "edgessl_frames_total"}
    assert counts == {"embedded": 2, "stale": 1, "skipped": 0, "unusable": 1, "failed": 0}
    assert found["edgessl_embed_seconds_count", ""] == 2
    assert found["edgessl_age_seconds_sum", ""] == pytest.approx(0.03)
    assert found["edgessl_version", ""] == pupil.version
    assert found["edgessl_drift", ""] == pytest.approx(3.0)
    assert found["edgessl_level", "ports"] == 1
    assert found["edgessl_shed", "nothing"] == 1
    assert found["edgessl_temperature_celsius", ""] == 61.5
    assert found["edgessl_healthy", ""] == found["edgessl_learning", ""] == 1
    assert found["edgessl_engine_restarts", ""] == 0


def test_what_is_not_known_is_not_a_number(hand_encoder, picture, metrics) -> None:
    service = Service(hand_encoder, observers=[metrics])
    service.embed(picture)
    service.status()
    found = read(metrics.port)
    assert math.isnan(found["edgessl_drift", ""])
    assert math.isnan(found["edgessl_temperature_celsius", ""])


def test_a_port_that_is_taken_is_named(metrics) -> None:
    with pytest.raises(InputError, match=str(metrics.port)):
        Metrics("127.0.0.1", metrics.port)


def test_two_services_in_one_process_count_apart(metrics) -> None:
    other = Metrics("127.0.0.1", 0)
    other.close()
    assert other.registry is not metrics.registry


@pytest.mark.parametrize(
    ("name", "package"), [("metrics", "prometheus_client"), ("rerun", "rerun"), ("zenoh", "zenoh")]
)
def test_a_package_that_is_missing_is_named_with_its_line(name: str, package: str, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, f"edgessl.runtimes.robot.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)

    def missing(module: str):
        raise ModuleNotFoundError(name=package)

    monkeypatch.setattr(opening, "import_module", missing)
    with pytest.raises(MissingExtraError, match=rf"edgessl\[{name}\]"):
        opening.part(name, package=package)


def test_another_module_that_is_missing_is_not_taken_for_the_package(monkeypatch) -> None:
    def missing(module: str):
        raise ModuleNotFoundError(name="numpy")

    monkeypatch.setattr(opening, "import_module", missing)
    with pytest.raises(ModuleNotFoundError):
        opening.part("metrics", package="prometheus_client")


RECORD = """
import sys
from pathlib import Path
import numpy as np
from edgessl.runtimes.robot.answer import Answer
from edgessl.runtimes.robot.rerun import Recording
recording = Recording(Path(sys.argv[1]), dim=5, every=3, wall=lambda: 1.7e9)
for number in range(7):
    recording.frame(np.full((12, 10, 3), 20 * number, np.uint8), Answer(
        outcome="embedded", vector=np.eye(5, dtype=np.float32)[number % 5], version=number // 4, space_id="s",
        drift=0.25 * number, health="ok", age_s=0.01, took_s=0.002))
recording.frame(None, Answer(outcome="stale", vector=None, version=0, space_id="s", drift=0.0, health="ok", age_s=9.0,
                             took_s=0.0))
status = {"level": "ports", "learning": "learning", "shed": "nothing", "health": "ok"}
for _ in range(3):
    recording.status(status)
recording.status(status | {"health": "fallback"})
recording.close()
recording.close()
again = Recording(Path(sys.argv[1]), dim=5)
again.close()
print(again.path.name)
"""


@pytest.fixture
def recording(tmp_path, environment):
    """A recording of seven frames, written in a process with a home of its own."""
    file = tmp_path / "out.rrd"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RECORD, str(file)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["out-2.rrd"]  # what is there is kept
    return file


def rows(file, entity: str) -> int:
    """Rows of an entity, by the SDK's own reader."""
    chunks = rerun.chunk.RrdReader(file).stream().to_chunks()
    return sum(chunk.num_rows for chunk in chunks if str(chunk.entity_path) == f"/{entity}")


@pytest.mark.slow
def test_reruns_reader_finds_frames_drift_map_and_state_and_no_viewer_was_started(recording, tmp_path) -> None:
    found = {entity: rows(recording, entity) for entity in ("drift", "version", "embed_ms", "camera", "map", "state")}
    assert found == {"drift": 7, "version": 7, "embed_ms": 7, "camera": 3, "map": 3, "state": 2}
    assert [file for file in (tmp_path / "home").rglob("*") if "rerun" in file.name.lower()] == []
