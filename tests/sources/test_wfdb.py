"""WFDB records against bytes made by hand from the specification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgessl.errors import InputError
from edgessl.sources import Windowing, open_source
from edgessl.sources.wfdb import read_wfdb


def _record(folder: Path, header: str, content: bytes) -> Path:
    (folder / "r.dat").write_bytes(content)
    (folder / "r.hea").write_text(header)
    return folder / "r.hea"


def test_format_212_holds_two_numbers_in_three_bytes(tmp_path: Path) -> None:
    # 1, -1 -> 01 F0 FF; 2047, -2048 (missing) -> FF 87 00; 1000 = 3E8, -1000 = C18 -> E8 C3 18
    header = "r 2 360 3\nr.dat 212 200 11 0 1 3048 0 MLII\nr.dat 212 100(10)/uV 11 0 -1 62487 0 V5\n"
    path = _record(tmp_path, header, bytes.fromhex("01F0FF FF8700 E8C318"))
    found = read_wfdb(path, Windowing())
    assert found.channels == ("MLII", "V5")
    assert found.units == "mV, uV"
    assert np.allclose(found.values[0], [1 / 200, 2047 / 200, 5.0])
    assert np.allclose(found.values[1], [-11 / 100, np.nan, -1010 / 100], equal_nan=True)
    assert np.allclose(found.time_s, np.arange(3) / 360)


def test_an_odd_count_of_twelve_bit_numbers_ends_in_two_bytes(tmp_path: Path) -> None:
    path = _record(tmp_path, "r 1 100 3\nr.dat 212 1\n", bytes.fromhex("01F0FF FF07"))
    assert read_wfdb(path, Windowing()).values.tolist() == [[1, -1, 2047]]


def test_format_16_is_cut_into_windows(tmp_path: Path) -> None:
    digital = np.random.default_rng(0).integers(-3000, 3000, (60, 2)).astype("<i2")
    path = _record(tmp_path, "r 2 50 60\nr.dat 16 1000/g\nr.dat 16 1000/g\n# a comment\n", digital.tobytes())
    source = open_source(str(path), windowing=Windowing(window="0.4s"))
    assert (source.spec.rate_hz, source.spec.units, source.spec.shape) == (50, "g", (2, 20))
    assert source.spec.channels == ("signal 0", "signal 1")
    assert np.allclose(source.read([1])[1][0], digital[10:30].T / 1000)
    assert len(open_source(str(tmp_path), windowing=Windowing(window=20))) == 5


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "is empty"),
        ("r/3 1 100 9\nr 3\n", "one segment"),
        ("r 99999999 100 3\nr.dat 16\n", "says 99999999 signals"),
        ("r 1 100 999999999999\nr.dat 16\n", "cut off"),
        ("r 1 100 -3\nr.dat 16\n", "cut off"),
        ("r 1 0 3\nr.dat 16\n", "0 Hz"),
        ("r 1 100 3\n../r.dat 16\n", "none beside the header"),
        ("r 1 100 3\ngone.dat 16\n", "cannot be read"),
        ("r 1 100 3\nr.dat 80\n", "formats 16 and 212"),
        ("r 1 100 3\nr.dat 16x4\n", "formats 16 and 212"),
        ("r 1 100 3\nr.dat 16 200 16 0 1 77 0 I\n", "checksum of 'I'"),
        ("r 1 100 3\nr.dat\n", "cannot be read"),
        ("r one 100 3\nr.dat 16\n", "cannot be read"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, header: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_wfdb(_record(tmp_path, header, b"\1\0\2\0\3\0"), Windowing())
