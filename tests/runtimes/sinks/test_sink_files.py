"""What the forms of files hold, read by something else than what wrote them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgessl.errors import InputError, MissingExtraError
from edgessl.runtimes.sinks import FORMS, Held, InMemory, Rows, Space, writer_for
from edgessl.runtimes.sinks.npz import NpzVectors
from edgessl.runtimes.sinks.parquet import ParquetVectors

SPACE = Space(space_id="a-2", revision=3, dim=5)
NAMES = ["a.png", "bé/2.png", "c", "d\n"]
STAMPS = np.array([1.7e9, np.nan, 1.7e9 + 0.25, 0.0])


def rows() -> Rows:
    vectors = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    vectors[1] = np.nan
    vectors[2, 0] = 1e-30
    return Rows(NAMES, STAMPS, vectors, {"version": [0, 0, 2, 7]})


class InParts(InMemory):
    """The same rows, a few at a time."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__(SPACE, rows())
        self._cuts = np.cumsum([0, *sizes])

    def __iter__(self) -> Iterator[Rows]:
        whole = rows()
        for start, stop in zip(self._cuts[:-1], self._cuts[1:], strict=True):
            part = slice(int(start), int(stop))
            columns = {name: values[part] for name, values in whole.columns.items()}
            yield Rows(whole.names[part], STAMPS[part], whole.vectors[part], columns)


def content_of(path: Path) -> bytes:
    if path.is_dir():
        return b"".join(file.name.encode() + file.read_bytes() for file in sorted(path.iterdir()))
    return path.read_bytes()


@pytest.mark.parametrize("ending", FORMS)
def test_equal_rows_in_other_parts_give_equal_bytes(ending: str, tmp_path: Path) -> None:
    held: list[Held] = [InMemory(SPACE, rows()), InParts([1, 2, 1]), InParts([3, 1])]
    for number, each in enumerate(held):
        writer_for(Path(f"x{ending}"))(tmp_path / f"{number}{ending}", each)
    assert len({content_of(tmp_path / f"{number}{ending}") for number in range(3)}) == 1


def test_an_npz_file_is_what_numpy_would_write(tmp_path: Path) -> None:
    writer_for(Path("v.npz"))(tmp_path / "v.npz", InParts([2, 2]))
    whole = rows()
    np.savez(
        tmp_path / "numpy.npz",
        vectors=whole.vectors,
        names=np.array(NAMES),
        version=np.array([0, 0, 2, 7], np.int64),
        stamp=STAMPS,
        space_id=np.str_("a-2"),
        space_revision=np.int64(3),
    )
    with np.load(tmp_path / "v.npz") as held, np.load(tmp_path / "numpy.npz") as expected:
        assert list(held) == list(expected)
        for name in expected:
            assert held[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(held[name], expected[name])
    assert (tmp_path / "v.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()


def test_a_parquet_file_has_stamps_in_utc_and_vectors_of_one_size(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer_for(Path("v.parquet"))(tmp_path / "v.parquet", InParts([2, 2]))
    table = pq.ParquetFile(tmp_path / "v.parquet").read()
    assert table.column_names == ["name", "stamp", "seconds", "version", "vector"]
    assert table.schema.field("stamp").type == pa.timestamp("ns", tz="UTC")
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 5)
    assert table["name"].to_pylist() == NAMES
    times = [1_700_000_000 * 10**9, None, 1_700_000_000_250_000_000, None]  # the last counts from something else
    assert [stamp.value for stamp in table["stamp"]] == times
    assert table["seconds"].to_pylist() == [1.7e9, None, 1.7e9 + 0.25, 0.0]
    assert table["version"].to_pylist() == [0, 0, 2, 7]
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), rows().vectors)
    assert table.schema.metadata == {b"space_id": b"a-2", b"space_revision": b"3", b"dim": b"5"}


def test_row_groups_of_a_parquet_file_do_not_depend_on_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr("edgessl.runtimes.sinks.parquet._ROWS", 3)
    for number, sizes in enumerate(([1, 1, 1, 1], [4])):
        writer_for(Path("v.parquet"))(tmp_path / f"{number}.parquet", InParts(sizes))
    assert pq.ParquetFile(tmp_path / "0.parquet").num_row_groups == 2
    assert (tmp_path / "0.parquet").read_bytes() == (tmp_path / "1.parquet").read_bytes()


def test_json_lines_give_the_same_float32_back(tmp_path: Path) -> None:
    writer_for(Path("v.jsonl"))(tmp_path / "v.jsonl", InParts([2, 2]))
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_bytes().splitlines()]
    assert [line["name"] for line in lines] == NAMES
    assert [line["stamp"] for line in lines] == [1.7e9, None, 1.7e9 + 0.25, 0.0]
    assert [line["version"] for line in lines] == [0, 0, 2, 7]
    assert lines[1]["vector"] is None
    for row in (0, 2, 3):
        np.testing.assert_array_equal(np.array(lines[row]["vector"], np.float32), rows().vectors[row])


@pytest.mark.parametrize(("ending", "reader"), [(".npz", NpzVectors), (".parquet", ParquetVectors)])
def test_a_file_of_vectors_is_read_a_part_at_a_time(
    ending: str, reader: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"v{ending}"
    writer_for(path)(path, InMemory(SPACE, rows()))
    monkeypatch.setattr(f"{reader.__module__}._ROWS", 3)
    held = reader(path)
    assert (held.space, held.count, held.name_width) == (SPACE, 4, max(map(len, NAMES)))
    parts = list(held)
    assert [len(part.names) for part in parts] == [3, 1]
    assert [name for part in parts for name in part.names] == NAMES
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in parts]), rows().vectors)


@pytest.mark.parametrize(("ending", "reader"), [(".npz", NpzVectors), (".parquet", ParquetVectors)])
def test_a_file_that_holds_no_vectors_is_refused(ending: str, reader: type, tmp_path: Path) -> None:
    path = tmp_path / f"v{ending}"
    with pytest.raises(InputError, match="cannot be read as vectors"):
        reader(path)
    path.write_bytes(b"PK not really")
    with pytest.raises(InputError, match="cannot be read as vectors"):
        reader(path)
    writer_for(path)(tmp_path / f"whole{ending}", InMemory(SPACE, rows()))
    path.write_bytes((tmp_path / f"whole{ending}").read_bytes()[:300])
    with pytest.raises(InputError, match="cannot be read as vectors"):
        list(reader(path))


def test_an_npz_file_of_pickles_is_refused(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "v.npz",
        vectors=np.array([{}, {}], object),
        names=np.array(["a", "b"]),
        space_id="s",
        space_revision=0,
    )
    with pytest.raises(InputError, match="cannot be read as vectors"):
        NpzVectors(tmp_path / "v.npz")


def test_an_unknown_ending_lists_the_endings() -> None:
    with pytest.raises(InputError, match=r"'.csv'.*\.npz, \.parquet, \.jsonl, \.index, or -"):
        writer_for(Path("v.csv"))


def test_a_package_that_is_missing_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch", None)
    with pytest.raises(MissingExtraError, match=r"edgessl\[index\]"):
        writer_for(Path("v.index"))
