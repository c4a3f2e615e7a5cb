from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from edgessl.checkpoint import read_checkpoint
from edgessl.errors import InputError
from edgessl.evaluate import evaluate, module_embed, raw_pixels
from edgessl.evaluation.probes import linear_probe
from edgessl.metrics import rankme
from edgessl.signals import image_spec
from edgessl.sources import open_source
from edgessl.sources.arrays import ArraySource

SPEC = image_spec(32, 40)


def _labelled(count: int, seed: int, classes: int = 3) -> ArraySource:
    """Frames whose class is the side that is bright."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    array = rng.integers(0, 120, (count, *SPEC.shape))
    for index, label in enumerate(labels):
        array[index, :, label * 13 : label * 13 + 13] += 60
    names = [f"x/{index:03d}" for index in range(count)]
    return ArraySource(f"bright {seed}", array.astype(np.uint8), SPEC, names, labels=labels)


def test_figures_agree_with_scikit_learn(checkpoint: Path) -> None:
    train, test = _labelled(61, 0), _labelled(31, 1)
    assert train.labels is not None
    assert test.labels is not None
    found = evaluate([checkpoint], train, test)
    embed = module_embed(read_checkpoint(checkpoint)[0])
    bank, queries = (embed(source.read(range(len(source)))[1]) for source in (train, test))
    judge = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    row = found.rows[0]
    assert row.knn == pytest.approx(judge.fit(bank, train.labels).score(queries, test.labels), abs=1e-6)
    assert row.linear == linear_probe(queries, test.labels, bank, train.labels)
    assert row.rankme == pytest.approx(rankme(queries))
    assert (found.bank, found.queries) == (61, 31)


def test_untrained_and_pixels_stand_beside(checkpoint: Path) -> None:
    found = evaluate([checkpoint], _labelled(40, 0), _labelled(20, 1))
    names = [row.name for row in found.rows]
    assert names[0] == str(checkpoint)
    assert names[1].startswith("untrained conv_small")
    assert names[2] == "raw pixels"
    assert found.rows[2].knn == 1.0  # the bright side is plain to see
    assert [row.dim for row in found.rows[:2]] == [7, 7]
    assert json.loads(json.dumps(found.to_json()))["rows"][2]["name"] == "raw pixels"


def test_a_bundle_is_measured_like_its_checkpoint(checkpoint: Path, bundle: Path) -> None:
    found = evaluate([checkpoint, bundle], _labelled(40, 0), _labelled(20, 1), linear=False)
    names = [row.name for row in found.rows]
    assert names[:2] == [str(checkpoint), str(bundle)]
    assert len(names) == 4  # one untrained row for both
    assert found.rows[0].rankme == pytest.approx(found.rows[1].rankme, rel=0.1)
    assert all(row.linear is None for row in found.rows)


def test_without_labels_only_rankme_is_told(checkpoint: Path) -> None:
    labelled = _labelled(30, 0)
    plain = ArraySource("plain", labelled.read(range(30))[1], SPEC, labelled.names)
    found = evaluate([checkpoint], plain)
    assert all(row.knn is None and row.linear is None and row.rankme > 0 for row in found.rows)
    assert any("no labels" in note for note in found.notes)
    assert (found.bank, found.queries) == (24, 6)


def test_unreadable_samples_are_told(checkpoint: Path, frames_folder: Path) -> None:
    found = evaluate([checkpoint], open_source(str(frames_folder), spec=SPEC))
    assert found.bank + found.queries == 39
    assert any(note.startswith("1 samples of") for note in found.notes)


def test_strange_classes_are_refused(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="classes that bright 0 lacks: 3"):
        evaluate([checkpoint], _labelled(30, 0), _labelled(30, 1, classes=4))


def test_labels_on_one_side_only_are_refused(checkpoint: Path) -> None:
    labelled = _labelled(30, 0)
    plain = ArraySource("plain", labelled.read(range(30))[1], SPEC, labelled.names)
    for sides in ((labelled, plain), (plain, labelled)):
        with pytest.raises(InputError, match="bright 0 has labels and plain has none"):
            evaluate([checkpoint], *sides)


def test_a_report_says_on_what_it_was_measured(checkpoint: Path) -> None:
    train, test = _labelled(40, 0), _labelled(20, 1)
    about = evaluate([checkpoint], train, test, seed=3).to_json()["about"]
    assert about["data"] == {"name": "bright 0", "digest": train.digest(), "samples": 40}
    assert about["test"]["digest"] == test.digest()
    assert (about["seeds"], about["seed"], about["by_group"]) == (1, 3, False)
    assert evaluate([checkpoint], train).about["test"] is None


def test_accuracies_stand_beside_one_answer_for_all(checkpoint: Path) -> None:
    notes = evaluate([checkpoint], _labelled(40, 0), _labelled(25, 1, classes=2), linear=False).notes
    assert any("'0', is right for 0.520 of the 25 test samples" in note and "up to 0.100" in note for note in notes)


def test_large_frames_are_averaged() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 16, 3), dtype=np.uint8)
    wanted = frames.reshape(3, 32, 2, 16, 3).mean(2).transpose(0, 3, 1, 2).reshape(3, -1) / 255
    np.testing.assert_allclose(raw_pixels(frames), wanted, atol=1e-6)
