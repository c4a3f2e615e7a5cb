"""Ranges are those of the reference evaluator; samples to take them from are far from one another."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgessl.export.calibrate import observe, spread
from tests.export.hand_graphs import attention_net, conv_net, frames_of, inner, model_of, norm_net, tokens_of


@pytest.mark.parametrize(
    ("model", "samples", "names"),
    [
        (conv_net(), frames_of(19), {"image", "c0", "r0out", "c1", "r1out", "c2", "sum", "mean"}),
        (norm_net(), tokens_of(11), {"n0", "soft", "n1"}),  # what its products read; the stream stays in float
    ],
)
def test_ranges_are_those_of_the_reference(model: onnx.ModelProto, samples: np.ndarray, names: set[str]) -> None:
    """More samples than fit one run, and not a multiple: none is lost."""
    seen = observe(model, samples)
    exact = inner(model, [name for name in names if name != "frames"], frames=samples) | {"frames": samples}
    assert set(names) == set(seen.low) == set(seen.high)
    for name in names:
        assert seen.low[name] == pytest.approx(exact[name].min(), abs=1e-5), name
        assert seen.high[name] == pytest.approx(exact[name].max(), abs=1e-5), name


def test_channels_are_known_of_what_a_matrix_reads() -> None:
    model, samples = norm_net(), tokens_of(11)
    seen = observe(model, samples)
    exact = inner(model, ["n0", "n1", "soft"], frames=samples)
    assert set(seen.channel_low) == set(exact)
    for name, value in exact.items():
        np.testing.assert_allclose(seen.channel_low[name], value.min((0, 1)), atol=1e-5)
        np.testing.assert_allclose(seen.channel_high[name], value.max((0, 1)), atol=1e-5)
        assert seen.low[name] == seen.channel_low[name].min()


def test_a_matrix_that_reads_what_a_sum_gives_knows_its_channels() -> None:
    """Whichever of the two readers comes first."""
    node, weight = helper.make_node, np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    both = [node("MatMul", ["x", "w"], ["p"]), node("Add", ["x", "x"], ["s"])]
    for nodes in (both, both[::-1]):
        model = model_of(
            [
                node("Neg", ["frames"], ["x"]),
                *nodes,
                node("MatMul", ["s", "w"], ["y0"]),
                node("Add", ["p", "y0"], ["y"]),
            ],
            {"frames": (TensorProto.FLOAT, ["n", 4])},
            {"y": ["n", 3]},
            {"w": weight},
        )
        seen = observe(model, np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32))
        assert set(seen.channel_low) == {"x", "s"}


def test_shares_of_attention_are_seen_from_zero_to_the_largest() -> None:
    model, points = attention_net(), tokens_of(11)
    seen = observe(model, points)
    soft = inner(model, ["soft"], frames=points)["soft"]
    assert seen.low["soft"] == 0
    assert seen.high["soft"] == pytest.approx(float(soft.max()), rel=1e-5)


def test_progress_adds_up_to_the_samples() -> None:
    steps: list[int] = []
    observe(conv_net(), frames_of(19), advance=steps.append)
    assert sum(steps) == 19
    assert len(steps) > 1


def test_the_graph_stays_as_it_is() -> None:
    model = conv_net()
    before = model.SerializeToString()
    observe(model, frames_of(2))
    assert model.SerializeToString() == before


def three_scenes(count: int = 30) -> np.ndarray:
    """Two common scenes in turn, and a third that is seen once."""
    rng = np.random.default_rng(0)
    scenes = rng.uniform(0, 255, (3, 16, 20, 3))
    which = np.arange(count) % 2
    which[count // 2] = 2
    return np.clip(scenes[which] + rng.normal(0, 4, (count, 16, 20, 3)), 0, 255).astype(np.uint8)


def test_a_scene_that_is_seen_once_is_among_the_first() -> None:
    chosen = spread(three_scenes(), 3)
    assert 15 in chosen
    assert sorted({int(index) % 2 for index in chosen if index != 15}) == [0, 1]


def test_they_are_in_order_each_once_and_the_same_every_time() -> None:
    samples = np.random.default_rng(2).integers(0, 255, (40, 9, 11, 3)).astype(np.uint8)
    for count in (1, 2, 17, 39):
        chosen = spread(samples, count)
        assert len(chosen) == count
        assert list(chosen) == sorted(set(chosen.tolist()))
        np.testing.assert_array_equal(spread(samples, count), chosen)


@pytest.mark.parametrize("count", [40, 41, 300])
def test_all_are_taken_where_there_are_not_more(count: int) -> None:
    samples = np.random.default_rng(2).integers(0, 255, (40, 9, 11, 3)).astype(np.uint8)
    np.testing.assert_array_equal(spread(samples, count), np.arange(40))


def test_copies_are_taken_once() -> None:
    """A robot that stands still costs no time and no accuracy."""
    scenes = np.random.default_rng(3).integers(0, 255, (5, 12, 12, 3)).astype(np.uint8)
    chosen = spread(scenes.repeat(20, axis=0), 50)
    assert sorted(index // 20 for index in chosen) == [0, 1, 2, 3, 4]


def test_the_farthest_sample_is_at_most_twice_as_far_as_it_could_be() -> None:
    """Gonzalez 1985, theorem 2.2, against every choice of four of twelve."""
    samples = np.random.default_rng(4).normal(size=(12, 3, 2)).astype(np.float32) ** 3
    flat = samples.reshape(12, -1).astype(np.float64)
    flat = (flat - flat.mean(0)) / (flat.std(0) + 1e-6)
    apart = np.linalg.norm(flat[:, None] - flat[None], axis=2)

    def radius(chosen: object) -> float:
        return float(apart[:, list(chosen)].min(1).max())  # type: ignore[call-overload]

    best = min(radius(choice) for choice in combinations(range(12), 4))
    assert radius(spread(samples, 4)) <= 2 * best + 1e-9
    assert radius(spread(samples, 4)) < np.mean([radius(choice) for choice in combinations(range(12), 4)])


def test_a_series_is_spread_as_well() -> None:
    time = np.linspace(0, 1, 50)
    slow, fast = np.sin(2 * np.pi * time), np.sin(16 * np.pi * time)
    series = np.stack([[slow * gain, fast] for gain in (1.0, 1.01, 1.02, -3.0)]).astype(np.float32)
    assert 3 in spread(series, 2)
