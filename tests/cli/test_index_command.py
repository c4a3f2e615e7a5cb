"""`edgessl index`: from vectors to the nearest names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def places(edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path) -> Path:
    assert edgessl("embed", bundle, frames_folder, "-o", tmp_path / "places.index").code == 0
    return tmp_path / "places.index"


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_an_index_of_a_file_is_the_index_of_its_source(
    edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path, places: Path, ending: str
) -> None:
    assert edgessl("embed", bundle, frames_folder, "-o", tmp_path / f"v{ending}").code == 0
    done = edgessl("index", "build", tmp_path / f"v{ending}", "-o", tmp_path / "other.index", "--json")
    assert done.code == 0, done.talk
    assert (done.json["count"], done.json["dim"]) == (39, 7)
    for file in places.iterdir():
        assert (tmp_path / "other.index" / file.name).read_bytes() == file.read_bytes()
    done = edgessl("index", "build", tmp_path / f"v{ending}", "-o", tmp_path / "other.index")
    assert done.code == 1
    assert "--overwrite" in done.talk
    words = ["-o", tmp_path / "other.index", "--overwrite", "--numbers", "f16"]
    assert edgessl("index", "build", tmp_path / f"v{ending}", *words).code == 0


def test_an_image_finds_itself_and_what_is_exactly_nearest(
    edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path, places: Path
) -> None:
    done = edgessl("index", "query", places, bundle, frames_folder / "b" / "007.png", "-k", 4, "--json")
    assert done.code == 0, done.talk
    (row,) = done.json
    assert edgessl("embed", bundle, frames_folder, "-o", tmp_path / "v.npz").code == 0
    with np.load(tmp_path / "v.npz") as held:
        vectors, names = held["vectors"], held["names"].tolist()
    cosines = vectors @ vectors[names.index("b/007.png")]
    order = np.argsort(-cosines)[:4]
    assert [near["name"] for near in row["nearest"]] == [names[place] for place in order]
    np.testing.assert_allclose([near["cosine"] for near in row["nearest"]], cosines[order], atol=1e-5)


def test_every_sample_of_a_source_is_looked_for(edgessl: Any, bundle: Path, frames_folder: Path, places: Path) -> None:
    done = edgessl("index", "query", places, bundle, frames_folder, "-k", 1, "--json")
    assert done.code == 0, done.talk
    assert len(done.json) == 39
    assert all(row["nearest"][0]["name"] == row["name"] for row in done.json)
    assert "a/broken.png" in done.talk


def test_vectors_of_another_space_are_refused(edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path) -> None:
    vectors = np.eye(7, dtype=np.float32)
    names = np.array(list("abcdefg"))
    np.savez(tmp_path / "v.npz", vectors=vectors, names=names, space_id=np.str_("other-1"), space_revision=np.int64(0))
    assert edgessl("index", "build", tmp_path / "v.npz", "-o", tmp_path / "other.index").code == 0
    done = edgessl("index", "query", tmp_path / "other.index", bundle, frames_folder)
    assert done.code == 1
    assert "space other-1" in done.talk


def test_what_cannot_be_indexed_is_named(edgessl: Any, bundle: Path, tmp_path: Path, places: Path) -> None:
    (tmp_path / "v.txt").write_text("")
    done = edgessl("index", "build", tmp_path / "v.txt", "-o", tmp_path / "o.index")
    assert (done.code, ".npz or .parquet" in done.talk) == (1, True)
    done = edgessl("index", "build", tmp_path / "v.npz", "-o", tmp_path / "o")
    assert (done.code, "ends in .index" in done.talk) == (1, True)
    (tmp_path / "bad.png").write_text("no image")
    done = edgessl("index", "query", places, bundle, tmp_path / "bad.png")
    assert (done.code, "cannot be read as an image" in done.talk) == (1, True)
    done = edgessl("index", "query", tmp_path, bundle, tmp_path / "bad.png")
    assert (done.code, "edgessl index build" in done.talk) == (1, True)


def test_adapt_writes_every_form(edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path) -> None:
    for ending in (".parquet", ".index", ".jsonl"):
        state, output = tmp_path / f"state{ending}", tmp_path / f"v{ending}"
        done = edgessl("adapt", bundle, frames_folder, "--state", state, "-o", output, "--level", "recenter")
        assert done.code == 0, done.talk
        assert output.exists()
