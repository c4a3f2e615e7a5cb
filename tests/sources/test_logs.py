"""CSV and Parquet logs: time, channels, labels, windows, groups, and what is said of logs that cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgessl.errors import InputError, MissingExtraError
from edgessl.signals import series_spec
from edgessl.sources import Windowing, open_source, recordings

SHORT = Windowing(window=20)


def _csv(path: Path, rows: int = 100, header: str = "t,ax,ay", step: float = 0.01) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{index * step:.6f},{index},{-2 * index}" for index in range(rows)]
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


def test_windows_are_cut_in_seconds_at_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    data = _csv(tmp_path / "log.csv", rows=201)
    source = open_source(data, windowing=Windowing(window="0.4s", hop="0.2s", rate_hz=50))
    assert source.spec == series_spec(("ax", "ay"), 20, rate_hz=50)
    assert len(source) == (101 - 20) // 10 + 1
    frames = source.read([3])[1]
    assert frames.dtype == np.float32
    assert np.allclose(frames[0, 0], 2 * (30 + np.arange(20)), atol=0.05)
    assert source.names[3] == "log.csv/000003"


def test_the_encoder_says_what_is_not_typed(tmp_path: Path) -> None:
    source = open_source(_csv(tmp_path / "log.csv"), spec=series_spec(("ay",), 10, rate_hz=50))
    assert source.spec == series_spec(("ay",), 10, rate_hz=50)
    assert len(source) == 9


def test_each_file_of_a_folder_is_a_group_and_the_first_says_the_rate(tmp_path: Path) -> None:
    for name, step in (("b/10.csv", 0.02), ("b/9.csv", 0.01), ("a.csv", 0.02)):
        _csv(tmp_path / name, step=step)
    source = open_source(str(tmp_path), windowing=SHORT)
    assert source.spec.rate_hz == 50
    assert source.groups is not None
    assert list(dict.fromkeys(source.groups.tolist())) == ["a.csv", "b/9.csv", "b/10.csv"]
    assert [int((source.groups == name).sum()) for name in ("a.csv", "b/9.csv", "b/10.csv")] == [9, 4, 9]


def test_a_label_fills_most_of_its_window(tmp_path: Path) -> None:
    lines = [f"{i / 100},{i},{'walk' if i < 50 else 'sit' if i < 150 else ''}" for i in range(200)]
    (tmp_path / "log.csv").write_text("time_s,ax,what\n" + "\n".join(lines))
    source = open_source(str(tmp_path / "log.csv"), windowing=Windowing(window=20, hop=20, label="what"))
    assert source.labels is not None
    assert [source.classes[label] for label in source.labels] == ["walk"] * 2 + ["sit"] * 4
    assert [name[-1] for name in source.names] == list("013456")
    assert "no label fills 60%" in source.skipped[0].reason


def test_where_labels_are_not_wanted_every_window_is_kept(tmp_path: Path) -> None:
    lines = [f"{i / 100},{i},{i // 50 if i % 7 else ''}" for i in range(200)]
    (tmp_path / "log.csv").write_text("time_s,ax,what\n" + "\n".join(lines))
    windowing = Windowing(window=20, hop=5, label="what")
    source = open_source(str(tmp_path), windowing=windowing, labelled=False)
    assert len(source) == (200 - 20) // 5 + 1
    assert source.spec.channels == ("ax",)  # labels that are numbers are no channel
    assert (source.labels, source.skipped) == (None, [])


def test_a_channel_without_values_is_named(tmp_path: Path) -> None:
    _csv(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("t,ax,ay\n" + "\n".join(f"{i / 100},{i},nan" for i in range(100)))
    (skipped,) = open_source(str(tmp_path), windowing=SHORT).skipped
    assert (skipped.name, skipped.reason) == ("b.csv", "channel 'ay' has no values")


def test_a_column_called_label_is_no_channel(tmp_path: Path) -> None:
    assert open_source(_csv(tmp_path / "a.csv", header="t,ax,label"), windowing=SHORT).spec.channels == ("ax",)


@pytest.mark.parametrize(
    ("header", "step", "time"),
    [
        ("t,a,b", 0.01, ""),
        ("Time (ms),a,b", 10, ""),
        ("timestamp_ns,a,b", 1e7, ""),
        ("time[us],a,b", 1e4, ""),
        ("clock,a,b", 10, "clock:ms"),
        ("clock_ms,a,b", 10, "clock_ms"),
        ("time,a,b", 10, "time:ms"),
    ],
)
def test_the_unit_of_time_stands_in_the_name_or_is_typed(tmp_path: Path, header: str, step: float, time: str) -> None:
    source = open_source(_csv(tmp_path / "a.csv", header=header, step=step), windowing=Windowing(window=20, time=time))
    assert source.spec.rate_hz == 100


def test_dates_need_no_unit(tmp_path: Path) -> None:
    lines = [f"2024-02-03T10:11:{i // 100:02d}.{i % 100:02d}Z;{i}" for i in range(120)]
    (tmp_path / "a.csv").write_text("time;ax\n" + "\n".join(lines))
    source = open_source(str(tmp_path / "a.csv"), windowing=SHORT)
    assert (source.spec.rate_hz, len(source)) == (100, 11)


@pytest.mark.parametrize(
    ("text", "windowing", "said"),
    [
        ("", SHORT, "is empty"),
        ("t,a\n", SHORT, "holds no rows"),
        ("0,1\n1,2\n", SHORT, "begins with numbers"),
        ("t,a,a\n0,1,1\n", SHORT, "two columns 'a'"),
        ("a,b\n0,1\n1,2\n", SHORT, "no time column"),
        ("t,time,a\n0,1,1\n", SHORT, "several time columns, t, time"),
        ("time,a\n0,1\n20,2\n40,3\n", SHORT, "steps of 20 and no unit.*time=time:ms"),
        ("t,a\n0,1\n.02,2\n.01,3\n", SHORT, "time falls in column 't'.*behind its row 2"),
        ("t,a\n0,1\n.02\n", SHORT, "1 cells in line 3"),
        ("t,a\n0,x\n.02,y\n", SHORT, "no column of numbers"),
        ("t,a,b\n0,1,2\n.02,err,2\n.04,3,2\n", SHORT, "column 'a' .*holds numbers and 'err'.*channels="),
        ("t,a\n0,1\n", SHORT, "a.csv: no channel has two values.*two rows"),
        ("t,a\n0,1\n.02,y\n", Windowing(window=2, channels="a"), "holds 'y', which is no number"),
        ("t,acc\n0,1\n.02,2\n", Windowing(window=2, channels="ac"), "did you mean 'acc'"),
        ("t,acc\n0,1\n.02,2\n", Windowing(window=2, label="act"), "no column 'act'"),
        ("t,a\n0,1\n.02,2\n", Windowing(window=2, time="t:min"), "no unit of time 'min'"),
        ("t,a\n0,1\n.02,2\n", Windowing(window=9), "fills a window of 9"),
        ("t,a\n0,1\n.02,2\n", None, "type --series window=2.56s"),
        ("t,a,b\n0,1,\n.02,2,nan\n.04,inf,\n", Windowing(window=2, channels="b"), "no channel has two values"),
        ("t,a\nnan,1\n,2\n", SHORT, "holds no time"),
        ("t,a\nsoon,1\nlater,2\n", SHORT, "no time in UTC"),
        ("t,a\0\n0,1\n", SHORT, "two values"),
    ],
)
def test_a_log_that_cannot_be_used_says_what_to_type(
    tmp_path: Path, text: str, windowing: Windowing | None, said: str
) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        open_source(str(tmp_path / "a.csv"), windowing=windowing)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"t,a\n\xff\xfe\x00,1\n")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        open_source(str(tmp_path / "a.csv"), windowing=SHORT)


def test_a_bad_file_of_a_folder_is_skipped_and_named_or_an_error_when_strict(tmp_path: Path) -> None:
    _csv(tmp_path / "a.csv")
    _csv(tmp_path / "b.csv", header="t,ax,az")
    (tmp_path / "c.csv").write_text("")
    source = open_source(str(tmp_path), windowing=SHORT)
    assert [skipped.name for skipped in source.skipped] == ["b.csv", "c.csv"]
    assert "did you mean" in source.skipped[0].reason
    with pytest.raises(InputError, match=r"b\.csv: no channel 'ay'"):
        open_source(str(tmp_path), windowing=SHORT, strict=True)


def test_too_much_is_refused_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "LIMIT_BYTES", 1000)
    _csv(tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"GiB of memory, .*hop=20"):
        open_source(str(tmp_path), windowing=SHORT)


def test_another_rate_or_order_of_channels_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2, 10)), rate_hz=100.0, channels=["a", "b"])
    with pytest.raises(InputError, match="has 100 Hz and this encoder takes 50"):
        open_source(str(tmp_path / "a.npz"), spec=series_spec(2, 10, rate_hz=50))
    with pytest.raises(InputError, match="in that order"):
        open_source(str(tmp_path / "a.npz"), spec=series_spec(("b", "a"), 10))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"windows": 2}, "did you mean 'window'"),
        ({"window": 2.56}, r"type window=128 \(time steps\)"),
        ({"window": "0s"}, "less than one time step"),
        ({"rate_hz": "fast"}, "must be a positive number"),
        ({"rate_hz": True}, "must be a positive number"),
        ({"channels": "a,a"}, "names one twice"),
    ],
)
def test_a_wrong_setting_says_what_is_known(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Windowing.from_settings(settings)


def test_images_are_not_cut_into_windows(frames_folder: Path) -> None:
    with pytest.raises(InputError, match="leave out --series"):
        open_source(str(frames_folder), windowing=SHORT)


def test_images_beside_a_table_are_images(tmp_path: Path, frames_folder: Path) -> None:
    image = next(frames_folder.rglob("*.*"))
    (tmp_path / image.name).write_bytes(image.read_bytes())
    _csv(tmp_path / "labels.csv")
    assert open_source(str(tmp_path)).spec.kind == "image"


def test_parquet_is_the_same_log(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pip install 'edgessl[logs]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "csv").mkdir()
    (tmp_path / "arrow").mkdir()
    expected = open_source(_csv(tmp_path / "csv" / "log.csv"), windowing=SHORT)
    stamps = arrow.array((np.arange(100) * 10_000_000).astype("datetime64[ns]"))
    table = {"time": stamps, "ax": arrow.array(range(100)), "ay": np.arange(100) * -2.0, "note": ["x"] * 100}
    parquet.write_table(arrow.table(table), tmp_path / "arrow" / "log.parquet")
    found = open_source(str(tmp_path / "arrow"), windowing=SHORT)
    assert found.spec == expected.spec
    everything = range(len(expected))
    assert np.allclose(found.read(everything)[1], expected.read(everything)[1], atol=1e-3)
    content = (tmp_path / "arrow" / "log.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        open_source(str(tmp_path / "cut.parquet"), windowing=SHORT)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtraError, match=r"edgessl\[logs\]"):
        open_source(str(tmp_path), windowing=SHORT)
