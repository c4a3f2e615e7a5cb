"""What a file of vectors says of where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgessl.runtimes.sinks import Space, writer_for
from edgessl.runtimes.sinks.offline import embed_source
from edgessl.runtimes.sinks.whole import Whole
from edgessl.signals import image_spec
from edgessl.sources.arrays import ArraySource


def write_vectors(path: Path, revision: int, given: list[int], **options: Any) -> None:
    def embed(frames: np.ndarray) -> np.ndarray:
        given.append(len(frames))
        return np.full((len(frames), 2), 0.5, np.float32)

    frames = np.zeros((5, 4, 5, 3), np.uint8)
    source = ArraySource("zeros", frames, image_spec(4, 5), [f"{index}.png" for index in range(5)])
    sink = Whole(path, Space(space_id="a-2", revision=revision, dim=2), writer_for(path))
    embed_source(source, embed, sink, batch=2, **options)
    assert not path.exists()
    sink.finish()


def test_without_a_learner_every_version_is_0(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v.npz", 0, [])
    with np.load(tmp_path / "v.npz") as held:
        assert sorted(held) == ["names", "space_id", "space_revision", "vectors", "version"]
        np.testing.assert_array_equal(held["version"], np.zeros(5, np.int64))
        assert held["version"].dtype == held["space_revision"].dtype == np.int64
        assert (held["space_id"], held["space_revision"]) == ("a-2", 0)


def test_each_vector_has_the_version_of_its_own_batch(tmp_path: Path) -> None:
    given: list[int] = []
    versions = lambda: np.full(given[-1], len(given), np.int64)  # noqa: E731
    write_vectors(tmp_path / "v.npz", 3, given, versions=versions)
    with np.load(tmp_path / "v.npz") as held:
        assert held["version"].tolist() == [1, 1, 2, 2, 3]
        assert held["space_revision"] == 3
