"""The index finds what exact search finds, and refuses what it cannot answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgessl.errors import InputError, IntegrityError, UnknownNameError
from edgessl.runtimes.sinks import InMemory, Rows, Space
from edgessl.runtimes.sinks import index as module
from edgessl.runtimes.sinks.index import Places, write_index

SPACE = Space(space_id="a-2", revision=1, dim=32)


def unit(count: int, seed: int) -> np.ndarray:
    """Vectors in 40 clusters, as frames of places are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(40, SPACE.dim))
    vectors = centres[rng.integers(40, size=count)] + 0.6 * rng.normal(size=(count, SPACE.dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def written(path: Path, vectors: np.ndarray, numbers: str = "f32") -> Places:
    held = InMemory(SPACE, Rows([f"{row}.png" for row in range(len(vectors))], None, vectors))
    write_index(path, held, numbers)
    return Places(path)


def exact(vectors: np.ndarray, queries: np.ndarray, count: int) -> list[list[str]]:
    order = np.argsort(-(queries.astype(np.float64) @ vectors.astype(np.float64).T), axis=1)[:, :count]
    return [[f"{row}.png" for row in found] for found in order]


def test_a_small_index_is_searched_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SEARCHED", 1)  # so that a search of the graph would miss something
    vectors, queries = unit(3000, 1), unit(30, 2)
    places = written(tmp_path / "p.index", vectors)
    for count in (1, 7):
        found = places.nearest(queries, count, "a-2")
        assert [[near.name for near in row] for row in found] == exact(vectors, queries, count)
        cosines = np.array([[near.cosine for near in row] for row in found])
        np.testing.assert_allclose(cosines, -np.sort(-(queries @ vectors.T), axis=1)[:, :count], atol=1e-6)


@pytest.mark.parametrize(("numbers", "least"), [("f32", 0.99), ("f16", 0.99), ("i8", 0.85)])
def test_a_large_index_misses_little(
    tmp_path: Path, numbers: str, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries = unit(4000, 1), unit(50, 2)
    monkeypatch.setattr(module, "EXACT", 100)
    places = written(tmp_path / "p.index", vectors, numbers)
    found = places.nearest(queries, 10, "a-2")
    true = exact(vectors, queries, 10)
    recall = np.mean(
        [len({near.name for near in row} & set(names)) / 10 for row, names in zip(found, true, strict=True)]
    )
    assert recall >= least
    size = (tmp_path / "p.index" / "vectors.usearch").stat().st_size
    assert size < 4000 * (SPACE.dim * {"f32": 4, "f16": 2, "i8": 1}[numbers] + 220)


def test_quarantined_vectors_are_left_out_and_names_stay_right(tmp_path: Path) -> None:
    vectors = unit(20, 1)
    vectors[[0, 7]] = np.nan
    places = written(tmp_path / "p.index", vectors)
    assert places.count == 18
    found = places.nearest(vectors[[3, 19]], 40, "a-2")
    assert [row[0].name for row in found] == ["3.png", "19.png"]
    assert {near.name for near in found[0]} == {f"{row}.png" for row in range(20)} - {"0.png", "7.png"}
    assert places.nearest(vectors[:1], 3, "a-2") == [[]], "nothing is near to what is not finite"


def test_an_index_of_nothing_but_quarantined_vectors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one vector"):
        written(tmp_path / "p.index", np.full((3, SPACE.dim), np.nan, np.float32))


def test_vectors_of_another_space_are_refused(tmp_path: Path) -> None:
    places = written(tmp_path / "p.index", unit(20, 1))
    with pytest.raises(InputError, match=r"space a-2 and this encoder's are of b-3"):
        places.nearest(unit(1, 2), 1, "b-3")
    with pytest.raises(InputError, match=r"vectors of 32 and these are \(1, 31\)"):
        places.nearest(unit(1, 2)[:, 1:], 1, "a-2")
    with pytest.raises(InputError, match="at least 1 nearest"):
        places.nearest(unit(1, 2), 0, "a-2")


@pytest.mark.parametrize("name", ["vectors.usearch", "names.npy"])
def test_a_changed_byte_is_found_before_it_is_believed(tmp_path: Path, name: str) -> None:
    written(tmp_path / "p.index", unit(20, 1))
    file = tmp_path / "p.index" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{name} is not what was written"):
        Places(tmp_path / "p.index")


def test_what_is_no_index_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="edgessl index build"):
        Places(tmp_path)
    written(tmp_path / "p.index", unit(20, 1))
    facts = json.loads((tmp_path / "p.index" / "index.json").read_text())
    (tmp_path / "p.index" / "index.json").write_text(json.dumps(facts | {"format": 2}))
    with pytest.raises(InputError, match="pip install -U edgessl"):
        Places(tmp_path / "p.index")
    (tmp_path / "p.index" / "index.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(IntegrityError, match="is damaged"):
        Places(tmp_path / "p.index")


def test_an_unknown_kind_of_numbers_lists_them(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="f16, f32, i8"):
        written(tmp_path / "p.index", unit(20, 1), "f31")


@pytest.mark.slow
def test_an_index_is_written_before_an_engine_is_opened_and_behind_it(tmp_path: Path) -> None:
    """Imported behind usearch, onnxruntime ends the process with a segmentation fault."""
    for first, second in (("index", "onnxruntime"), ("onnxruntime", "index")):
        steps = {
            "index": "from edgessl.runtimes.sinks.index import _index_class; _index_class()",
            "onnxruntime": "import edgessl.runtimes.engines.onnxrt",
        }
        done = subprocess.run([sys.executable, "-c", f"{steps[first]}\n{steps[second]}"], check=False)
        assert done.returncode == 0
