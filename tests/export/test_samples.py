"""Golden samples and others come evenly over the source, never the same one twice, and named for what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgessl.errors import InputError
from edgessl.export import samples as module
from edgessl.export.config import ExportConfig
from edgessl.export.samples import embedded, read_samples
from edgessl.signals import image_spec, series_spec
from edgessl.sources.arrays import ArraySource

SPEC = image_spec(6, 5)


class Broken(ArraySource):
    """Every seventh sample cannot be read."""

    def read(self, indices: Any) -> tuple[Any, Any]:
        return super().read([index for index in indices if index % 7])


def source_of(count: int, kind: type[ArraySource] = ArraySource) -> ArraySource:
    """Samples that say their place in all of their pixels."""
    frames = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 6, 5, 3)).copy()
    return kind("laps", frames, SPEC, [f"{index:03d}.png" for index in range(count)])


def encoder(sizes: list[int] | None = None) -> Any:
    """Gives each sample's first pixel and its double."""

    def call(frames: torch.Tensor) -> torch.Tensor:
        if sizes is not None:
            sizes.append(len(frames))
        return frames[:, 0, 0, :1].float() * torch.tensor([[1.0, 2.0]])

    call.input = SPEC  # type: ignore[attr-defined]
    return call


def places(frames: np.ndarray) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in frames]


@pytest.mark.parametrize("kind", [ArraySource, Broken])
@pytest.mark.parametrize("count", [48, 200])
def test_names_vectors_and_frames_belong_together(count: int, kind: type[ArraySource]) -> None:
    """Also where some cannot be read."""
    taken = read_samples(source_of(count, kind), encoder(), ExportConfig(golden=12, calibration=60, statistics=80))
    golden, others = places(taken.golden.samples), places(taken.frames)
    assert list(taken.golden.names) == [f"{place:03d}.png" for place in golden]
    assert taken.names == [f"{place:03d}.png" for place in others]
    np.testing.assert_array_equal(taken.golden.vectors, [[place, 2 * place] for place in golden])
    assert not set(golden) & set(others)
    assert golden == sorted(set(golden))
    assert others == sorted(set(others))
    assert len(golden) == 12
    if kind is Broken:
        assert not [place for place in golden + others if place % 7 == 0]
    else:
        assert len(others) == min(count, 2 * 60 + 12) - 12


def test_both_are_spread_over_the_whole_source() -> None:
    taken = read_samples(source_of(250), encoder(), ExportConfig(golden=20, calibration=60, statistics=40))
    golden, everything = places(taken.golden.samples), sorted(places(taken.golden.samples) + places(taken.frames))
    assert everything == sorted(set(np.linspace(0, 249, 2 * 60 + 20).round().astype(int)))
    assert (golden[0], golden[-1]) == (0, 249)
    assert np.diff(golden).max() <= 16


@pytest.mark.parametrize(("count", "golden"), [(32, 16), (47, 23), (250, 48)])
def test_golden_samples_are_at_most_a_third(count: int, golden: int) -> None:
    taken = read_samples(source_of(count), encoder(), ExportConfig())
    assert len(taken.golden.samples) == golden
    assert len(taken.frames) == count - golden


def test_large_frames_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame has 90 bytes here."""
    monkeypatch.setattr(module, "_GOLDEN_BYTES", 90 * 40)
    assert len(read_samples(source_of(250), encoder(), ExportConfig()).golden.samples) == 40
    monkeypatch.setattr(module, "_GOLDEN_BYTES", 90)
    monkeypatch.setattr(module, "_FRAME_BYTES", 90 * 100)
    taken = read_samples(source_of(250), encoder(), ExportConfig())
    assert (len(taken.golden.samples), len(taken.frames)) == (24, 76)
    monkeypatch.setattr(module, "_FRAME_BYTES", 90)
    taken = read_samples(source_of(250), encoder(), ExportConfig())
    assert len(taken.golden.samples) + len(taken.frames) == module.LEAST


@pytest.mark.parametrize(("count", "kind", "have"), [(31, ArraySource, 31), (37, Broken, 31), (0, ArraySource, 0)])
def test_too_few_are_refused_with_how_many_there_are(count: int, kind: type[ArraySource], have: int) -> None:
    with pytest.raises(InputError, match=f"laps has {have} readable samples; export takes at least 32"):
        read_samples(source_of(count, kind), encoder(), ExportConfig())


def test_vectors_are_made_in_small_parts() -> None:
    sizes: list[int] = []
    frames = np.asarray(source_of(50)._frames)
    vectors = embedded(encoder(sizes), frames)
    assert sum(sizes) == 50
    assert max(sizes) <= 16
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[:, 0], np.arange(50))


def test_what_is_not_finite_is_neither_golden_nor_calibrated_on() -> None:
    series = np.arange(60, dtype=np.float32)[:, None, None].repeat(2, 1).repeat(8, 2)
    series[3, 1, 2], series[59] = np.nan, np.inf
    spec, names = series_spec(2, 8), [f"{index}" for index in range(60)]

    def model(samples: torch.Tensor) -> torch.Tensor:
        return samples[:, :, 0]

    model.input = spec  # type: ignore[attr-defined]
    whole: Any = model
    taken = read_samples(ArraySource("log", series, spec, names), whole, ExportConfig())
    assert taken.quarantined == ["3", "59"]
    assert not {"3", "59"} & {*taken.names, *taken.golden.names}
    assert np.isfinite(taken.frames).all()
    assert np.isfinite(taken.golden.samples).all()
    with pytest.raises(InputError, match="log: 3 holds NaN or infinity"):
        read_samples(ArraySource("log", series, spec, names), whole, ExportConfig(strict=True))
    series[10:] = np.nan
    with pytest.raises(InputError, match="has 9 readable samples \\(51 more hold NaN or infinity\\)"):
        read_samples(ArraySource("log", series, spec, names), whole, ExportConfig())


def test_copies_of_one_sample_are_refused() -> None:
    frames = np.full((40, 6, 5, 3), 7, np.uint8)
    with pytest.raises(InputError, match="laps: all 40 samples are the same"):
        read_samples(ArraySource("laps", frames, SPEC, [str(index) for index in range(40)]), encoder(), ExportConfig())
