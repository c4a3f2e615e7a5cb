"""Scores, streams, claims and options that the adaptation benchmarks share."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from baselines import Neo
from contenders import LEVELS, TORCH, Contender, Setting, baselines, learner, levels, linear_head, plain, unadapted
from harness import Bank, Leg, Report, Trial, chosen, gives_back, options, story, through
from sklearn.linear_model import LogisticRegression

import edgessl
from edgessl.checkpoint import read_checkpoint
from edgessl.metrics import knn_accuracy, unit

CLASSES = 3


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(3)
    coarse = rng.uniform(0, 255, (120, 8, 10, 3)).repeat(4, 1).repeat(4, 2)
    return np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def setting(frames, checkpoint, bundle):
    """An encoder with random weights for frames of 32x40, in int8."""
    encoder, _ = read_checkpoint(checkpoint)
    labels = np.arange(len(frames)) % CLASSES
    return Setting(bundle=bundle, encoder=encoder.eval(), source=frames[:30], labelled=(frames, labels), seed=0)


def clusters(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors about three overlapping centres, and whose each is."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    return unit(2 * np.eye(CLASSES, 7)[labels] + rng.normal(0, 1, (count, 7))).astype(np.float32), labels


def test_the_vote_is_that_of_the_library():
    bank, queries = clusters(311, seed=1), clusters(1100, seed=2)
    right = Bank(*bank).right(*queries)
    assert right.shape == (1100,)
    assert right.mean() == knn_accuracy(*queries, *bank, k=20, temperature=0.1)
    assert 0.5 < right.mean() < 1


def test_a_bank_smaller_than_the_neighbours_still_votes():
    vectors, labels = clusters(7, seed=1)
    assert Bank(vectors, labels).right(vectors[:2], labels[:2]).shape == (2,)


def test_a_row_of_nan_is_wrong():
    vectors, labels = clusters(60, seed=1)
    bank, damaged = Bank(vectors, labels), vectors.copy()
    damaged[::2] = np.nan
    right = bank.right(damaged, labels)
    assert not right[::2].any()
    assert (right[1::2] == bank.right(vectors, labels)[1::2]).all()


def test_frames_reach_an_observer_once_in_order_and_in_batches(frames):
    sizes = []

    def observe(batch):
        sizes.append(len(batch))
        return batch.reshape(len(batch), -1)

    served = through(SimpleNamespace(observe=observe), frames[:21], 8)
    assert sizes == [8, 8, 5]
    np.testing.assert_array_equal(served, frames[:21].reshape(21, -1))


def test_gives_back_is_the_share_of_what_was_lost():
    assert gives_back(0.6, 0.4, 0.8) == pytest.approx(0.5)
    assert gives_back(0.3, 0.4, 0.8) == pytest.approx(-0.25)
    assert math.isnan(gives_back(0.5, 0.5, 0.5))


@pytest.mark.slow
def test_the_head_is_the_logistic_regression_of_scikit_learn():
    vectors, labels = clusters(400, seed=4)
    decay = 1e-3
    weight, bias = linear_head(vectors, labels, decay=decay)
    # Theirs: |w|^2 / 2 + C * sum of losses; ours: mean of losses + decay * |w|^2.
    theirs = LogisticRegression(C=1 / (2 * decay * len(labels)), tol=1e-8, max_iter=1000).fit(vectors, labels)
    np.testing.assert_allclose(weight, theirs.coef_, atol=5e-3)
    ours, other = vectors @ weight.T + bias, theirs.decision_function(vectors)
    np.testing.assert_allclose(ours - ours.mean(1, keepdims=True), other - other.mean(1, keepdims=True), atol=1e-2)


def test_only_leaves_names_and_families():
    everyone = baselines("all")
    assert [each.name for each in chosen(everyone, ["neo", "tent, lr 1e-4"])] == [
        "neo",
        "neo, memory 500",
        "tent, lr 1e-4",
    ]
    assert chosen(everyone, None) == everyone
    assert not baselines("none")
    assert {each.family for each in everyone} - {each.family for each in baselines("fast")} == {"cotta"}


def test_variants_of_a_family_stand_together_and_names_are_unique():
    everyone = baselines("all")
    families = [each.family for each in everyone]
    changes = sum(a != b for a, b in pairwise(families))
    assert changes == len(set(families)) - 1
    assert len({each.name for each in everyone}) == len(everyone)


@pytest.mark.slow
def test_every_contender_serves_unit_vectors(setting, frames):
    served = 0
    for contender in [unadapted(TORCH), *baselines("all"), unadapted("onnxruntime"), *levels("onnxruntime")]:
        with contender.made(setting) as observer:
            vectors = through(observer, frames[:50], 20)
        assert vectors.shape == (50, setting.encoder.dim), contender.name
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5, err_msg=contender.name)
        served += 1
    assert served == 2 + len(baselines("all")) + len(LEVELS)


def test_the_plain_bundle_is_the_int8_encoder(setting, frames):
    with plain(setting.bundle, "onnxruntime") as observer:
        vectors = observer.observe(frames[:9])
    with edgessl.open(setting.bundle, engine="onnxruntime", precision="int8", threads=1) as encoder:
        np.testing.assert_array_equal(vectors, encoder.embed(frames[:9]))


def test_a_learner_starts_from_nothing_every_time(setting, frames):
    runs = []
    for _ in range(2):
        with learner(setting.bundle, "onnxruntime", "level0", 1) as observer:
            runs.append(through(observer, 255 - frames, 16))
            assert observer.level == "recenter"
            assert observer.frames == len(frames)
            assert story(observer)["events"]["open"] == 1
    np.testing.assert_array_equal(*runs)


@pytest.mark.slow
def test_a_baseline_leaves_the_encoder_as_it_is(setting, frames):
    before = {name: value.clone() for name, value in setting.encoder.state_dict().items()}
    for contender in baselines("fast"):
        with contender.made(setting) as observer:
            through(observer, frames[:40], 20)
    for name, value in setting.encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert Neo(setting.encoder, source=frames[:5]).logits is None


def trial_of(setting, frames, tmp_path) -> Trial:
    """A trial without CIFAR-10."""
    trial = Trial.__new__(Trial)
    labels = np.arange(len(frames)) % CLASSES
    trial.folder, trial.seed, trial.count, trial.bundle = tmp_path, 2, 30, setting.bundle
    trial.frames, trial.labels = frames[:30, :, :32], labels[:30]  # corruptions are for 32 pixels
    trial._test = trial._bank = (frames, labels)
    trial._banks = {}
    vars(trial)["setting"] = setting
    return trial


def test_a_stream_has_every_image_once_and_is_the_same_for_all(setting, frames, tmp_path):
    trial = trial_of(setting, frames, tmp_path)
    legs, again = (list(trial.legs(["saturate", "speckle_noise"])) for _ in range(2))
    other = next(trial.legs(["saturate"], around=1))
    assert [leg.name for leg in legs] == ["saturate", "speckle_noise"]
    for leg, same in zip(legs, again, strict=True):
        np.testing.assert_array_equal(leg.frames, same.frames)
        assert sorted(leg.frames.sum((1, 2, 3))) == sorted(trial.corrupted(leg.name).sum((1, 2, 3), dtype=np.uint64))
    assert (legs[0].labels != legs[1].labels).any()
    assert (legs[0].labels != other.labels).any()


def test_corrupted_frames_are_kept(setting, frames, tmp_path):
    trial = trial_of(setting, frames, tmp_path)
    made = trial.corrupted("gaussian_blur")
    (path,) = (tmp_path / "corrupted").iterdir()
    np.save(path, made + 1)
    np.testing.assert_array_equal(trial.corrupted("gaussian_blur"), made + 1)


def test_a_course_scores_each_leg_against_the_models_own_bank(setting, frames, tmp_path):
    trial = trial_of(setting, frames, tmp_path)
    legs = [Leg("first", frames[:20], trial._test[1][:20]), trial.held_out(15)]
    found, told = trial.course(unadapted("onnxruntime"), legs, 8)
    bank = trial.embed("onnxruntime", frames)
    for leg in legs:
        vectors = trial.embed("onnxruntime", leg.frames)
        expected = knn_accuracy(vectors, leg.labels, bank, trial._test[1], k=20, temperature=0.1)
        assert found[leg.name] == pytest.approx(expected)
    assert list(told) == ["seconds"]
    assert isinstance(unadapted(TORCH), Contender)


def given(tmp_path, **more) -> Namespace:
    return Namespace(**{"data": "d", "folder": "f", "seeds": [0], "result": tmp_path / "r.json", "merge": None, **more})


def test_a_report_says_what_was_claimed_what_was_had_and_where(tmp_path):
    report = Report("some", "What.", given(tmp_path))
    report.add(seed=0, level="level1", points=1.5, by_leg={"fog": 1})
    report.add(seed=1, level="level1", points=2.5)
    report.add(seed=0, level="level2", points=9.0)
    assert report.mean("points", level="level1") == 2
    assert math.isnan(report.mean("points", level="level3"))
    report.claim("enough", report.mean("points", level="level1"), least=2)
    report.claim("little", 0.7, most=0.5)
    report.claim("nothing was measured", float("nan"), most=1)
    report.write()
    written = json.loads((tmp_path / "r.json").read_text())
    assert [claim["ok"] for claim in written["claims"]] == [True, False, False]
    assert written["claims"][1] == {"claim": "little", "bound": "at most 0.5", "got": 0.7, "ok": False}
    assert not written["holds"]
    assert written["settings"] == {"seeds": [0], "merge": None}
    assert {"machine", "versions", "date", "rows", "what"} <= set(written)


def test_runs_side_by_side_are_merged_without_running_again(tmp_path):
    for seed in (0, 1):
        part = Report("some", "", given(tmp_path, result=tmp_path / f"{seed}.json"))
        part.add(seed=seed, level="level0", points=float(seed))
        part.write()
    whole = given(tmp_path, merge=[tmp_path / "0.json", tmp_path / "1.json"])
    report = Report("some", "", whole)
    assert report.mean("points", level="level0") == 0.5
    assert whole.seeds == []


def test_every_script_has_the_same_options(tmp_path):
    parsed = options("what", count=7).parse_args(["--data", "d", "--folder", str(tmp_path), "--engine", "openvino"])
    assert (parsed.count, parsed.seeds, parsed.engine, parsed.only) == (7, [0, 1, 2], ["openvino"], None)
