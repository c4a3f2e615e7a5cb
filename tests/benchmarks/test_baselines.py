"""Baselines follow the formulas of their papers, redone here in numpy."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from baselines import BatchNormStats, Neo, NoAdaptation, batch_norms
from numpy.testing import assert_allclose
from torch import nn
from trained_baselines import COTTA_VIEWS, CoTTA, TailFineTune, Tent, soft_entropy

from edgessl.blocks.image_views import ImageViewConfig, random_image_view
from edgessl.encoders import build_encoder
from edgessl.errors import InputError
from edgessl.signals import image_spec

VIEWS = ImageViewConfig(blur=0.0)
CLASSES = 5


@pytest.fixture(scope="module")
def encoder():
    """Random weights; statistics of its batch norms are those of some frames, its scales and shifts are not 1 and 0."""
    torch.manual_seed(0)
    made = build_encoder("conv_small", image_spec(24, 20), widths=(6, 10, 12), dim=7)
    for norm in batch_norms(made):
        nn.init.uniform_(norm.weight, 0.7, 1.3)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
        norm.momentum = None  # the plain average
    made.train()
    with torch.no_grad():
        made(torch.from_numpy(frames_of(64, seed=9)))
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def head():
    rng = np.random.default_rng(1)
    return rng.normal(0, 4, (CLASSES, 7)), rng.normal(0, 1, CLASSES)


@pytest.fixture(scope="module")
def source():
    return frames_of(40, seed=8)


def frames_of(count: int, *, seed: int, dark: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 6, 5, 3)).repeat(4, 1).repeat(4, 2)
    return (np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255) * dark).astype(np.uint8)


def all_of(encoder, head, source):
    return [
        NoAdaptation(encoder, head),
        BatchNormStats(encoder, head),
        BatchNormStats(encoder, head, prior=16, memory=100),
        Neo(encoder, head, source=source),
        Tent(encoder, head),
        CoTTA(encoder, head, source=source, seed=0, copies=3),
        TailFineTune(encoder, head, source=source, seed=0, views=VIEWS),
    ]


def features_of(encoder, frames) -> np.ndarray:
    with torch.no_grad():
        return encoder.features(encoder.prepare(torch.from_numpy(frames))).double().numpy()


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def weights_of(module) -> dict[str, np.ndarray]:
    return {name: weight.detach().numpy().copy() for name, weight in module.named_parameters()}


@pytest.mark.slow
def test_each_serves_unit_vectors_of_any_batch_and_leaves_the_encoder_alone(encoder, head, source):
    before = copy.deepcopy(encoder.state_dict())
    for baseline in all_of(encoder, head, source):
        for count in (37, 1, 3):
            frames = frames_of(count, seed=count, dark=0.4)
            vectors = baseline.observe(frames)
            assert vectors.shape == (count, 7), baseline.name
            assert vectors.dtype == baseline.logits.dtype == np.float32
            assert baseline.logits.shape == (count, CLASSES)
            assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
            assert_allclose(vectors, unit(vectors), atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert len({baseline.name for baseline in all_of(encoder, head, source)}) == 7


def test_the_same_stream_and_seed_give_the_same_vectors(encoder, head, source):
    streams = [frames_of(33, seed=seed, dark=0.5) for seed in range(3)]
    for first, again in zip(all_of(encoder, head, source), all_of(encoder, head, source), strict=True):
        assert all(np.array_equal(first.observe(frames), again.observe(frames)) for frames in streams), first.name


def test_heads_are_linear_on_the_unit_vectors(encoder, head, source):
    frames = frames_of(9, seed=2)
    for baseline in all_of(encoder, head, source)[:5]:
        assert_allclose(baseline.observe(frames) @ head[0].T + head[1], baseline.logits, atol=1e-4)
    bare = NoAdaptation(encoder)
    assert_allclose(bare.observe(frames), unit(features_of(encoder, frames)), atol=1e-5)
    assert bare.logits is None


def test_batch_norm_without_prior_is_pytorch_in_train_mode(encoder):
    baseline, trained = BatchNormStats(encoder), copy.deepcopy(encoder).train()
    for seed in range(3):
        frames = frames_of(11, seed=seed, dark=0.5)
        with torch.no_grad():
            assert_allclose(baseline.observe(frames), trained(torch.from_numpy(frames)), atol=2e-5)


def test_a_prior_counts_the_sources_statistics_as_frames(encoder):
    baseline, frames = BatchNormStats(encoder, prior=16), frames_of(11, seed=3, dark=0.3)
    baseline.observe(frames_of(5, seed=4))  # forgotten: each batch stands for itself
    baseline.observe(frames)
    found, norm = batch_norms(baseline._net)[0], batch_norms(encoder)[0]
    passed = first_convolution(encoder, frames)
    assert_allclose(found.running_mean, (16 * norm.running_mean.numpy() + 11 * passed.mean((0, 2, 3))) / 27, atol=1e-5)
    assert_allclose(found.running_var, (16 * norm.running_var.numpy() + 11 * passed.var((0, 2, 3))) / 27, atol=1e-5)


def test_running_statistics_are_those_of_all_frames_however_batched(encoder):
    baseline, norm = BatchNormStats(encoder, prior=8, memory=100), batch_norms(encoder)[0]
    stream = np.concatenate([frames_of(20, seed=seed, dark=dark) for seed, dark in ((0, 0.2), (1, 1.0))])
    for part in np.split(stream, [1, 4, 21]):
        baseline.observe(part)
    found, passed = batch_norms(baseline._net)[0], first_convolution(encoder, stream)
    assert_allclose(found.running_mean, (8 * norm.running_mean.numpy() + 40 * passed.mean((0, 2, 3))) / 48, atol=1e-5)
    assert_allclose(found.running_var, (8 * norm.running_var.numpy() + 40 * passed.var((0, 2, 3))) / 48, atol=1e-5)


def test_a_full_memory_forgets_at_a_steady_rate(encoder):
    baseline, first = BatchNormStats(encoder, memory=10), frames_of(10, seed=0)
    baseline.observe(first)
    later = frames_of(2, seed=1, dark=0.3)
    baseline.observe(later)
    wanted = 0.8 * first_convolution(encoder, first).mean((0, 2, 3))
    wanted += 0.2 * first_convolution(encoder, later).mean((0, 2, 3))
    assert_allclose(batch_norms(baseline._net)[0].running_mean, wanted, atol=1e-5)


def first_convolution(encoder, frames) -> np.ndarray:
    with torch.no_grad():
        images = encoder.normalize(encoder.prepare(torch.from_numpy(frames)))
        return encoder.stages[0][0](images).double().numpy()


def test_batch_norm_is_missed_where_there_is_none(head):
    transformer = build_encoder("vit_micro", image_spec(32, 32))
    with pytest.raises(InputError, match="no batch norm to adapt; choose one that has"):
        BatchNormStats(transformer)
    with pytest.raises(InputError, match="no batch norm"):
        Tent(transformer, (np.zeros((2, transformer.dim)), np.zeros(2)))


@pytest.mark.parametrize("memory", [math.inf, 6])
def test_neo_moves_the_mean_of_what_it_saw_to_the_sources(encoder, source, memory):
    neo, home = Neo(encoder, source=source, memory=memory), features_of(encoder, source).mean(0)
    parts = [frames_of(count, seed=count, dark=0.4) for count in (4, 1, 5)]
    running, seen = np.zeros(7), 0
    for frames in parts:
        features = features_of(encoder, frames)
        seen = min(seen + len(frames), max(memory, len(frames)))
        running += (features.mean(0) - running) * len(frames) / seen
        assert_allclose(neo.observe(frames), unit(features - running + home), atol=1e-4)
    if memory == math.inf:
        assert_allclose(running, features_of(encoder, np.concatenate(parts)).mean(0), atol=1e-6)


def test_soft_entropy_is_cross_entropy_of_softmaxes():
    a, b = np.random.default_rng(0).normal(0, 3, (2, 6, CLASSES))
    wanted = -(softmax(b) * np.log(softmax(a))).sum(1).mean()
    assert_allclose(soft_entropy(torch.tensor(a), torch.tensor(b)), wanted)
    flat = torch.zeros(2, CLASSES)
    assert_allclose(soft_entropy(flat, flat), math.log(CLASSES), rtol=1e-6)


def entropy_in_numpy(encoder, frames, head, place=None, moved=0.0) -> float:
    """Entropy of the head behind batch norms that normalise by the batch, one weight moved by `moved`."""
    net = copy.deepcopy(encoder).double().train()
    if place is not None:
        with torch.no_grad():
            getattr(batch_norms(net)[place[0]], place[1])[place[2]] += moved
    with torch.no_grad():
        images = net.prepare(torch.from_numpy(frames)).double()
        vectors = unit(net.features(images).numpy())
    shares = softmax(vectors @ head[0].T + head[1])
    return float(-(shares * np.log(shares)).sum(1).mean())


def test_tents_first_step_is_adams_along_the_entropys_slope(encoder, head):
    frames, lr, small = frames_of(12, seed=6, dark=0.5), 1e-3, 1e-4
    tent = Tent(encoder, head, lr=lr)
    before = weights_of(tent._net)
    tent.observe(frames)
    for place in [(0, "weight", 1), (0, "bias", 3), (1, "weight", 7), (2, "bias", 2)]:
        up, down = (entropy_in_numpy(encoder, frames, head, place, side * small) for side in (1, -1))
        slope = (up - down) / (2 * small)
        norms = batch_norms(tent._net)
        step = (
            getattr(norms[place[0]], place[1])[place[2]] - getattr(batch_norms(encoder)[place[0]], place[1])[place[2]]
        )
        assert_allclose(step.item(), -lr * slope / (abs(slope) + 1e-8), rtol=1e-2)
    affine = {id(weight) for norm in batch_norms(tent._net) for weight in norm.parameters()}
    for name, weight in tent._net.named_parameters():
        assert np.array_equal(weight.detach(), before[name]) == (id(weight) not in affine), name


def test_tent_serves_before_it_steps_and_its_entropy_falls(encoder, head):
    tent, frames = Tent(encoder, head), frames_of(20, seed=6, dark=0.5)
    entropies = []
    for _ in range(20):
        tent.observe(frames)
        shares = softmax(tent.logits.astype(float))
        entropies.append(-(shares * np.log(shares)).sum(1).mean())
    assert_allclose(entropies[0], entropy_in_numpy(encoder, frames, head), rtol=1e-4)
    assert np.all(np.diff(entropies) < 0)


def cotta_of(encoder, head, source, **options):
    return CoTTA(encoder, head, source=source, **({"seed": 3, "copies": 4} | options))


def test_cottas_threshold_is_a_quantile_of_the_sources_confidence(encoder, head, source):
    shares = softmax(unit(features_of(encoder, source)) @ head[0].T + head[1])
    assert_allclose(cotta_of(encoder, head, source).threshold, np.quantile(shares.max(1), 0.05), rtol=1e-4)


def test_a_sure_cotta_serves_its_teacher_and_an_unsure_one_the_mean_of_augmented_copies(encoder, head, source):
    frames, trained = frames_of(12, seed=6), copy.deepcopy(encoder).train()
    sure, unsure = (cotta_of(encoder, head, source) for _ in range(2))
    sure.threshold, unsure.threshold = 0.0, 1.1
    images, generator = encoder.prepare(torch.from_numpy(frames)), torch.Generator().manual_seed(3)
    with torch.no_grad():
        plain = unit(trained.features(images).numpy())
        copies = [trained.features(random_image_view(images, generator, COTTA_VIEWS)).numpy() for _ in range(4)]
    mean = np.mean([unit(each) for each in copies], 0)
    assert_allclose(sure.observe(frames), plain, atol=1e-4)
    assert_allclose(sure.logits, plain @ head[0].T + head[1], atol=1e-3)
    assert_allclose(unsure.observe(frames), unit(mean), atol=1e-4)
    assert_allclose(unsure.logits, mean @ head[0].T + head[1], atol=1e-3)


def test_cottas_student_steps_its_teacher_follows_and_some_weights_go_back(encoder, head, source):
    frames, lr, restore = frames_of(12, seed=6, dark=0.5), 1e-3, 0.3
    cotta = cotta_of(encoder, head, source, lr=lr, keep=0.9, restore=restore)
    cotta.threshold = 1.1  # else the first teacher is the student, and there is no slope
    before = weights_of(cotta._student)
    cotta.observe(frames)
    anchor, student, teacher = (weights_of(net) for net in (cotta._anchor, cotta._student, cotta._teacher))
    assert all(np.array_equal(anchor[name], before[name]) for name in before)
    steps = np.concatenate([(student[name] - before[name]).ravel() for name in before])
    followed = np.concatenate([(teacher[name] - before[name]).ravel() for name in before])
    moved = np.abs(followed) > 1e-9  # where the student had a slope
    assert moved.mean() > 0.7
    back = moved & (steps == 0)
    assert_allclose(back.sum() / moved.sum(), restore, atol=0.04)
    kept = moved & ~back
    assert_allclose(np.abs(steps[kept]).max(), lr, rtol=0.02)  # Adam's first step
    assert_allclose(followed[kept], 0.1 * steps[kept], atol=1e-6)  # the teacher had seen it before it went back
    assert any(np.any(student[name] != before[name]) for name in before if name.startswith("head"))


def test_cottas_student_goes_down_the_cross_entropy_to_its_teacher(encoder, head, source):
    frames = frames_of(30, seed=6, dark=0.5)
    cotta = cotta_of(encoder, head, source, restore=0.0, keep=1.0)
    cotta.threshold = 1.1
    losses = []
    for _ in range(12):
        cotta.observe(frames)
        with torch.no_grad():
            logits = cotta._student(encoder.prepare(torch.from_numpy(frames)))[1]
        losses.append(float(soft_entropy(logits, torch.from_numpy(cotta.logits))))
    assert losses[-1] < losses[0] - 0.01


def tail_of(encoder, source, **options):
    return TailFineTune(encoder, source=source, **({"seed": 5, "views": VIEWS} | options))


def test_fine_tuning_moves_the_tail_and_not_the_trunk(encoder, source):
    tuned = tail_of(encoder, source, batch=8)
    trunk, tail = (weights_of(part) for part in (tuned._encoder.stages[: encoder.cut], tuned._tail))
    frames = frames_of(8, seed=2)
    assert_allclose(tuned.observe(frames), unit(features_of(encoder, frames)), atol=1e-4)  # served before the step
    assert np.abs(tuned.observe(frames) - unit(features_of(encoder, frames))).max() > 1e-4
    after = weights_of(tuned._encoder.stages[: encoder.cut])
    assert all(np.array_equal(trunk[name], after[name]) for name in trunk)
    moved = weights_of(tuned._tail)
    assert all(np.any(tail[name] != moved[name]) for name in tail)
    assert {name.split(".")[0] for name in tail} == {"stages", "pool"}


def test_how_the_stream_is_batched_does_not_change_the_steps(encoder, source):
    stream = frames_of(40, seed=1, dark=0.5)
    whole, single = (tail_of(encoder, source, batch=16) for _ in range(2))
    whole.observe(stream)
    for frame in stream:
        single.observe(frame[None])
    first, second = weights_of(whole._tail), weights_of(single._tail)
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", ["vicreg", "align"])
def test_the_tails_loss_is_the_objective_and_the_distance_from_the_factory(encoder, source, name):
    tuned = tail_of(encoder, source, distill=2.0, loss=name)
    a, b, wanted = (unit(each) for each in np.random.default_rng(0).normal(size=(3, 9, 7)))
    clean = unit(features_of(encoder, source))
    mean, std = clean.mean(0), clean.std(0)
    if name == "vicreg":
        a_white, b_white = ((each - mean) / std for each in (a, b))
        loss = ((a_white - b_white) ** 2).mean()
        for each in (a_white, b_white):
            covariance = np.cov(each, rowvar=False)
            loss += np.maximum(0, 1 - np.sqrt(each.var(0, ddof=1) + 1e-4)).mean() / 2
            loss += (covariance[~np.eye(7, dtype=bool)] ** 2).sum() / 7 / 25
    else:
        both = np.concatenate([a, b])
        loss = 1 - (a * b).sum(1).mean()
        loss += (((both.mean(0) - mean) / std) ** 2).mean() + (((both.std(0) - std) / std) ** 2).mean()
    loss += 2.0 * (1 - ((a * wanted).sum(1).mean() + (b * wanted).sum(1).mean()) / 2)
    found = tuned._loss(*(torch.tensor(each, dtype=torch.float32) for each in (a, b, wanted)))
    assert_allclose(float(found), loss, rtol=1e-3)
    assert tuned.name == f"tail fine-tuning, {name}"


def test_the_tail_steps_by_sgd_with_momentum(encoder, source):
    lr, momentum, frames = 0.05, 0.9, frames_of(16, seed=2)
    tuned = tail_of(encoder, source, lr=lr, momentum=momentum, batch=8)
    weights = dict(tuned._tail.named_parameters())
    before, speed, slopes = weights_of(tuned._tail), 0.0, []
    step = tuned._step

    def watched(part):
        step(part)
        slopes.append(weights["pool.project.bias"].grad.numpy().copy())

    tuned._step = watched
    tuned.observe(frames)
    place = before["pool.project.bias"]
    for slope in slopes:
        speed = momentum * speed + slope
        place = place - lr * speed
    assert len(slopes) == 2
    assert_allclose(weights["pool.project.bias"].detach(), place, atol=1e-6)
