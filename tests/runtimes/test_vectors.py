"""What a file of vectors says of where they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgessl.runtimes.sinks import Space, writer_for
from edgessl.runtimes.sinks.offline import held_of
from edgessl.runtimes.sinks.whole import write_whole
from edgessl.runtimes.vectors import SourceVectors, vectors_of
from edgessl.signals import image_spec
from edgessl.sources.arrays import ArraySource


def halves(frames: np.ndarray) -> np.ndarray:
    return np.full((len(frames), 2), 0.5, np.float32)


def source(count: int) -> ArraySource:
    frames = np.zeros((count, 4, 5, 3), np.uint8)
    return ArraySource("zeros", frames, image_spec(4, 5), [f"{index}.png" for index in range(count)])


def write_vectors(path: Path, found: SourceVectors, revision: int) -> None:
    write_whole(path, writer_for(path), held_of(found, Space(space_id="a-2", revision=revision, dim=2)))


def test_without_a_learner_every_version_is_0(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v.npz", vectors_of(source(5), halves, batch=2), 0)
    with np.load(tmp_path / "v.npz") as held:
        assert sorted(held) == ["names", "space_id", "space_revision", "vectors", "version"]
        np.testing.assert_array_equal(held["version"], np.zeros(5, np.int64))
        assert held["version"].dtype == held["space_revision"].dtype == np.int64
        assert (held["space_id"], held["space_revision"]) == ("a-2", 0)


def test_each_vector_has_the_version_of_its_own_batch(tmp_path: Path) -> None:
    given: list[int] = []

    def embed(frames: np.ndarray) -> np.ndarray:
        given.append(len(frames))
        return halves(frames)

    found = vectors_of(source(5), embed, batch=2, versions=lambda: np.full(given[-1], len(given), np.int64))
    write_vectors(tmp_path / "v.npz", found, 3)
    with np.load(tmp_path / "v.npz") as held:
        assert held["version"].tolist() == [1, 1, 2, 2, 3]
        assert held["space_revision"] == 3
