"""Recordings on their own clock -> a uniform one, against scipy and sinusoids in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from edgessl.sources.clock import Recording, own_rate, pieces_of, resampled


@pytest.mark.parametrize(("up", "down"), [(1, 2), (3, 10), (7, 3)])
def test_a_rational_ratio_is_what_scipys_polyphase_filter_gives(up: int, down: int) -> None:
    values = np.random.default_rng(0).standard_normal((2, 1500))
    reach = 16 * max(up, down)
    taps = up / max(up, down) * np.sinc(np.arange(-reach, reach + 1) / max(up, down)) * np.kaiser(2 * reach + 1, 8.0)
    expected = signal.resample_poly(values, up, down, axis=1, window=taps / up)
    found = resampled(values, 100.0, 100.0 * up / down)
    inner = slice(60, min(found.shape[1], expected.shape[1]) - 60)
    assert np.abs(found[:, inner] - expected[:, inner]).max() < 2e-3


@pytest.mark.parametrize(("tone_hz", "rate_hz"), [(3.0, 50.0), (7.0, 31.7), (20.0, 50.0), (35.0, 217.0)])
def test_a_tone_that_both_rates_hold_stays_that_tone(tone_hz: float, rate_hz: float) -> None:
    found = resampled(np.sin(2 * np.pi * tone_hz * np.arange(3000) / 100)[None], 100.0, rate_hz)[0]
    expected = np.sin(2 * np.pi * tone_hz * np.arange(len(found)) / rate_hz)
    assert np.abs(found - expected)[40:-40].max() < 0.005


def test_a_tone_over_half_the_new_rate_is_filtered_out_and_not_folded_down() -> None:
    found = resampled(np.sin(2 * np.pi * 35 * np.arange(3000) / 100)[None], 100.0, 50.0)[0]
    assert np.abs(found)[20:-20].max() < 1e-3


def test_a_constant_stays_to_the_ends() -> None:
    assert np.allclose(resampled(np.full((3, 100), 9.81), 100.0, 37.0), 9.81)


def test_an_equal_rate_changes_nothing() -> None:
    values = np.random.default_rng(0).standard_normal((2, 50))
    pieces = pieces_of(Recording(np.arange(50) / 50, values, ("a", "b")), 50.0)
    assert np.array_equal(pieces[0].values, values.astype(np.float32))


def test_a_clock_that_jitters_is_interpolated() -> None:
    rng = np.random.default_rng(0)
    time = np.cumsum(rng.uniform(0.5, 1.5, 2000)) / 100
    recording = Recording(time - time[0], np.sin(2 * np.pi * (time - time[0]))[None], ("a",))
    (piece,) = pieces_of(recording, 50.0)
    expected = np.sin(2 * np.pi * np.arange(piece.values.shape[1]) / 50)
    assert np.abs(piece.values[0] - expected)[20:-20].max() < 0.01


def test_a_gap_ends_a_piece_and_labels_keep_their_times() -> None:
    time = np.concatenate([np.arange(100), 400 + np.arange(70)]) / 100
    labels = np.where(time < 0.5, "sit", "walk")
    pieces = pieces_of(Recording(time, time[None], ("a",), labels=labels), 50.0)
    assert [piece.values.shape for piece in pieces] == [(1, 50), (1, 35)]
    assert np.abs(pieces[1].values[0] - (4 + np.arange(35) / 50)).max() < 0.02
    assert pieces[0].labels is not None
    assert pieces[0].labels.tolist() == ["sit"] * 25 + ["walk"] * 25
    assert [piece.values.shape for piece in pieces_of(Recording(time, time[None], ("a",)), 100.0, 10.0)] == [(1, 470)]


def test_sensors_that_write_by_turns_are_brought_to_one_clock() -> None:
    time = np.arange(600) / 200
    values = np.full((2, 600), np.nan)
    values[0, ::2], values[1, 1::2] = time[::2], -time[1::2]
    recording = Recording(time, values, ("acc", "gyro"))
    assert own_rate(recording) == 100
    (piece,) = pieces_of(recording, 100.0)
    assert np.allclose(piece.values[0], -piece.values[1], atol=1e-6)
    assert piece.values.shape == (2, 299)


def test_a_gap_in_one_channel_is_a_gap() -> None:
    time = np.arange(300) / 100
    values = np.stack([time, time])
    values[1, 100:150] = np.nan
    values[0, 20:22] = np.nan  # short enough to be filled
    pieces = pieces_of(Recording(time, values, ("a", "b")), 100.0)
    assert [piece.values.shape[1] for piece in pieces] == [100, 150]
    assert np.allclose(pieces[0].values[0], time[:100])


def test_a_stamp_that_is_far_away_costs_no_memory() -> None:
    time = np.concatenate([np.arange(50) / 100, [1e15, 1e15 + 1]])
    assert len(pieces_of(Recording(time, np.ones((1, 52)), ("a",)), 100.0)) == 1
