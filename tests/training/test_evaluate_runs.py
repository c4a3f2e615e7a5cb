"""Several seeds, several subjects, groups and the report, on small labelled sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgessl.checkpoint import write_checkpoint
from edgessl.encoders import build_encoder
from edgessl.errors import InputError
from edgessl.evaluate import evaluate
from edgessl.evaluation.contenders import raw_series
from edgessl.evaluation.probes import standardised
from edgessl.evaluation.report import write_report
from edgessl.evaluation.results import difference_of, row_of
from edgessl.metrics import knn_accuracy, rankme
from edgessl.signals import series_spec
from edgessl.sources.arrays import ArraySource

SPEC = series_spec(3, 40)
OPTIONS = {"widths": [4, 6], "dim": 5}
NAME = "none conv_series widths=[4,6] dim=5"


def _waves(count: int, seed: int) -> ArraySource:
    """Windows whose class is their frequency; ten windows of each person."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    time = np.linspace(0, 1, SPEC.shape[1])
    phase = rng.uniform(0, 2 * np.pi, (count, 3, 1))
    series = np.sin(2 * np.pi * (2 + 3 * labels)[:, None, None] * time + phase) + 0.3 * rng.normal(size=(count, 3, 40))
    source = ArraySource(
        f"waves {seed}", series.astype(np.float32), SPEC, [f"x/{i}" for i in range(count)], labels=labels
    )
    source.groups = np.array([f"p{seed}-{place // 10}" for place in range(count)])
    return source


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoints of one recipe, seeds 4 and 5, that trained for no steps."""
    folders = []
    for seed in (4, 5):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder = build_encoder("conv_series", SPEC, **OPTIONS)
        folder = tmp_path_factory.mktemp("runs") / f"s{seed}"
        folder.mkdir()
        write_checkpoint(folder, encoder.eval(), {"recipe": "none", "seed": seed})
        folders.append(folder)
    return folders


def test_the_rival_of_a_subject_has_its_initial_weights(runs: list[Path]) -> None:
    found = evaluate(runs, _waves(60, 0), _waves(30, 1))
    one, other, untrained, raw = found.rows
    assert [one.name, other.name] == [str(run) for run in runs]
    assert (untrained.runs, raw.name) == (2, "raw series")
    (difference,) = found.differences
    assert (difference.name, difference.runs) == (NAME, 2)
    # A training of no steps is the untrained encoder, to the last digit.
    assert set(difference.mean.values()) | set(difference.sd.values()) | set(difference.least.values()) == {0.0}
    (mean,) = found.means
    assert mean.knn == pytest.approx(((one.knn or 0) + (other.knn or 0)) / 2)
    assert mean.sd["knn"] == pytest.approx(abs((one.knn or 0) - (other.knn or 0)) / np.sqrt(2))
    assert untrained.knn == pytest.approx(mean.knn)


@pytest.mark.slow
def test_repeats_draw_again_what_is_random(runs: list[Path]) -> None:
    found = evaluate(runs[:1], _waves(60, 0), _waves(30, 1), seeds=3, few_labels=True)
    subject, untrained, raw = found.rows
    assert [row.runs for row in found.rows] == [3, 3, 3]
    assert max(subject.sd["knn"], raw.sd["knn"]) < 1e-12  # nothing is drawn for them: there is a test set
    assert subject.sd["alignment"] > 0
    assert untrained.sd["rankme"] > 0
    assert found.differences[0].runs == 3
    assert set(subject.few_labels) == {1, 5, 10}
    again = evaluate(runs[:1], _waves(60, 0), _waves(30, 1), seeds=3, few_labels=True)
    assert again.to_json() == found.to_json()


def test_people_are_on_one_side_only(runs: list[Path]) -> None:
    source = _waves(100, 0)
    found = evaluate(runs[:1], source)
    assert (found.bank, found.queries) == (80, 20)
    assert any("whole groups of 10" in note for note in found.notes)
    free = evaluate(runs[:1], source, by_group=False)
    assert any("both sides" in note for note in free.notes)
    assert any("10 groups have samples on both sides" in note for note in evaluate(runs[:1], source, source).notes)


def test_a_class_of_held_out_people_only_is_told(runs: list[Path]) -> None:
    source = _waves(100, 0)
    source.labels = np.arange(100) // 10 % 3  # each person does one thing
    source.groups = np.array([f"p{label}" for label in source.labels])
    notes = evaluate(runs[:1], source, linear=False).notes
    assert any("no sample to learn from is of class" in note and "--no-by-group" in note for note in notes)
    assert not any("no sample to learn from" in note for note in evaluate(runs[:1], source, by_group=False).notes)


def test_encoders_of_another_scale_are_told_apart_and_the_scale_is_not_printed(
    runs: list[Path], tmp_path: Path
) -> None:
    for name, std in (("a", 1.0), ("b", 9.0)):
        with torch.random.fork_rng():
            torch.manual_seed(4)
            encoder = build_encoder("conv_series", SPEC, **OPTIONS, mean=[0.0] * 3, std=[std] * 3)
        (tmp_path / name).mkdir()
        write_checkpoint(tmp_path / name, encoder.eval(), {"recipe": "none", "seed": 4})
    found = evaluate([tmp_path / "a", tmp_path / "b"], _waves(60, 0), _waves(30, 1))
    names = [row.name for row in found.rows]
    assert names[2:4] == [
        "untrained" + NAME.removeprefix("none"),
        f"untrained{NAME.removeprefix('none')} of {tmp_path / 'b'}",
    ]
    assert [each.runs for each in found.differences] == [1, 1]
    assert all(set(each.mean.values()) == {0.0} for each in found.differences)  # each beside its own


def test_samples_with_nan_are_left_out_and_told(runs: list[Path]) -> None:
    train, test = _waves(60, 0), _waves(30, 1)
    series = train.read(range(60))[1]
    series[[3, 44], 0, 0] = np.nan
    holed = ArraySource("holed", series, SPEC, train.names, labels=train.labels)
    found = evaluate(runs[:1], holed, test, linear=False)
    assert (found.bank, found.queries) == (58, 30)
    assert "2 samples of holed are left out" in found.notes
    assert all(row.knn is not None and np.isfinite(row.knn) for row in found.rows)


def test_raw_series_are_standardised_by_the_bank(runs: list[Path]) -> None:
    train, test = _waves(60, 0), _waves(31, 1)
    assert train.labels is not None
    assert test.labels is not None
    row = evaluate(runs[:1], train, test).rows[-1]
    bank, queries = (source.read(range(len(source)))[1].reshape(len(source), -1) for source in (train, test))
    bank, queries = standardised(bank, bank, queries)
    assert row.dim == 120
    assert row.knn == knn_accuracy(queries, test.labels, bank, train.labels)
    assert row.rankme == pytest.approx(rankme(queries))
    long = np.random.default_rng(0).normal(size=(2, 3, 512)).astype(np.float32)
    np.testing.assert_allclose(raw_series(long), long.reshape(2, 3, 256, 2).mean(3).reshape(2, -1), atol=1e-6)


@pytest.mark.slow
def test_everything_is_written_and_drawn(runs: list[Path], tmp_path: Path) -> None:
    asked = {"few_labels": True, "layers": True, "corruptions": True, "maps": True}
    found = evaluate(runs, _waves(60, 0), _waves(30, 1), **asked)
    assert list(found.rows[0].corruptions) == ["noise", "drop", "gain", "shift", "mean"]
    *each, mean = found.rows[0].corruptions.values()
    assert mean == pytest.approx(np.mean(each))
    assert found.rows[0].layers is not None
    assert found.rows[-1].layers is None
    assert [drawn.name for drawn in found.maps] == [row.name for row in found.rows]
    assert found.maps[0].points.shape == (30, 2)
    write_report(tmp_path / "report", found)
    assert sorted(file.name for file in (tmp_path / "report").iterdir()) == [
        "curves.png",
        "evaluation.json",
        "maps.png",
    ]
    assert json.loads((tmp_path / "report/evaluation.json").read_text()) == json.loads(json.dumps(found.to_json()))
    for name in ("curves.png", "maps.png"):
        assert np.asarray(Image.open(tmp_path / "report" / name).convert("L")).std() > 5  # not blank
    with pytest.raises(InputError):
        write_report(tmp_path / "report", found)
    titles = [title for title, _ in found.tables()]
    assert titles[0] == "30 samples to tell, 60 to learn from"
    assert "20-NN accuracy, corrupted" in titles
    assert sum("best at" in title for title in titles) == 3
    assert titles[-1].startswith("above the same encoder untrained")


def test_what_was_not_asked_for_has_no_column(runs: list[Path]) -> None:
    (_, rows), _ = evaluate(runs[:1], _waves(60, 0), _waves(30, 1), linear=False).tables()
    assert list(rows[0]) == ["name", "dim", "knn", "rankme", "lidar", "alignment", "uniformity"]


def test_no_repeat_is_refused(runs: list[Path]) -> None:
    with pytest.raises(InputError, match="not 0"):
        evaluate(runs, _waves(60, 0), seeds=0)


def test_means_spreads_and_differences_are_those_of_numpy() -> None:
    trained = [{"knn": 0.5, "rankme": 3.0, "few 5": 0.3}, {"knn": 0.7, "rankme": 5.0, "few 5": 0.2}]
    untrained = [{"knn": 0.1, "rankme": 9.0, "few 5": 0.0}, {"knn": 0.5, "rankme": 9.0, "few 5": 0.0}]
    row = row_of("a", 7, [each | {"alignment": 0.0, "uniformity": 0.0} for each in trained])
    assert (row.knn, row.rankme, row.few_labels) == (pytest.approx(0.6), 4, {5: 0.25})
    assert row.sd["knn"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    difference = difference_of("a", list(zip(trained, untrained, strict=True)))
    assert difference.mean == {"knn": pytest.approx(0.3)}
    assert difference.least == {"knn": pytest.approx(0.2)}
    assert difference.sd == {"knn": pytest.approx(np.std([0.4, 0.2], ddof=1))}
