"""Outliers move into the weights by the formula of SmoothQuant, and the function stays what it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl.export.calibrate import Ranges, observe
from edgessl.export.placement import PLACEMENTS
from edgessl.export.quantize import quantized
from edgessl.export.smooth import smoothed
from edgessl.export.surgery import weights_of
from edgessl.metrics import cosines
from edgessl.runtimes.engines import open_engine
from tests.export.hand_graphs import conv_net, frames_of, inner, is_sorted, norm_net, tokens_of

PRODUCTS = {"n0": ["wq", "wk"], "n1": ["wm"]}  # norm -> the weights that read it


def ran(model: onnx.ModelProto, samples: np.ndarray) -> np.ndarray:
    engine = open_engine("onnxruntime", model.SerializeToString())
    try:
        return engine.run({"frames": samples})["vectors"]
    finally:
        engine.close()


def read(model: onnx.ModelProto, node: str, place: int) -> np.ndarray:
    """The constant that a node reads."""
    name = next(each for each in model.graph.node if each.name == node).input[place]
    return np.asarray(numpy_helper.to_array(weights_of(model)[name]))


def stored(model: onnx.ModelProto, name: str) -> np.ndarray:
    return np.asarray(numpy_helper.to_array(weights_of(model)[name]))


def divisors(model: onnx.ModelProto, value: str, samples: np.ndarray, alpha: float) -> np.ndarray:
    """Eq. 4: `max|x_j|^alpha / max|w_j|^(1 - alpha)`, over all samples, tokens and matrices that read it."""
    activations = np.abs(inner(model, [value], frames=samples)[value]).max((0, 1))
    rows = np.abs(np.concatenate([stored(model, name) for name in PRODUCTS[value]], axis=1)).max(1)
    return np.asarray(activations**alpha / rows ** (1 - alpha))


@pytest.mark.parametrize("outlier", [1.0, 40.0])
@pytest.mark.parametrize("alpha", [0.5, 0.75])
def test_gains_biases_and_rows_change_by_the_papers_formula(outlier: float, alpha: float) -> None:
    model, samples = norm_net(outlier=outlier), tokens_of(20)
    smooth, _, changed = smoothed(model, observe(model, samples), alpha)
    assert changed == ["a.q/MatMul", "a.k/MatMul", "b.m/MatMul"]
    for value, norm, nodes in (
        ("n0", "a.norm/LayerNormalization", {"a.q/MatMul": "wq", "a.k/MatMul": "wk"}),
        ("n1", "b.norm/LayerNormalization", {"b.m/MatMul": "wm"}),
    ):
        divisor = divisors(model, value, samples, alpha)
        np.testing.assert_allclose(read(smooth, norm, 1), stored(model, "gain") / divisor, rtol=1e-4)
        np.testing.assert_allclose(read(smooth, norm, 2), stored(model, "bias") / divisor, rtol=1e-4)
        for node, weight in nodes.items():
            np.testing.assert_allclose(read(smooth, node, 1), stored(model, weight) * divisor[:, None], rtol=1e-4)


def test_a_half_is_what_it_takes_by_default() -> None:
    model, samples = norm_net(outlier=9.0), tokens_of(20)
    smooth, _, _ = smoothed(model, observe(model, samples))
    divisor = divisors(model, "n1", samples, 0.5)
    np.testing.assert_allclose(read(smooth, "b.m/MatMul", 1), stored(model, "wm") * divisor[:, None], rtol=1e-4)


@pytest.mark.parametrize("outlier", [1.0, 40.0])
def test_the_function_stays(outlier: float) -> None:
    """On other samples than those that the ranges are of."""
    model, fresh = norm_net(outlier=outlier), tokens_of(9, seed=8)
    smooth, _, _ = smoothed(model, observe(model, tokens_of(20)))
    np.testing.assert_allclose(ran(smooth, fresh), ran(model, fresh), atol=2e-5)
    onnx.checker.check_model(smooth, full_check=True)
    assert is_sorted(smooth)


def test_it_costs_nothing_and_leaves_nothing_behind() -> None:
    model = norm_net()
    before = model.SerializeToString()
    smooth, _, _ = smoothed(model, observe(model, tokens_of(20)))
    assert [node.op_type for node in smooth.graph.node] == [node.op_type for node in model.graph.node]
    read_somewhere = {name for node in smooth.graph.node for name in node.input}
    assert set(weights_of(smooth)) <= read_somewhere
    assert model.SerializeToString() == before


def test_ranges_move_with_the_values() -> None:
    """What the smoothed graph's ranges say is what calibration would see in it; of the rest nothing changes."""
    model, samples = norm_net(outlier=40.0), tokens_of(20)
    seen = observe(model, samples)
    kept = (dict(seen.low), dict(seen.high))
    smooth, moved, _ = smoothed(model, seen)
    exact = observe(smooth, samples)
    assert set(moved.low) == set(exact.low)
    for name in exact.low:
        assert moved.low[name] == pytest.approx(exact.low[name], rel=1e-4, abs=1e-5), name
        assert moved.high[name] == pytest.approx(exact.high[name], rel=1e-4, abs=1e-5), name
    for name in exact.channel_low:
        np.testing.assert_allclose(moved.channel_low[name], exact.channel_low[name], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(moved.channel_high[name], exact.channel_high[name], rtol=1e-4, atol=1e-5)
    assert moved.high["n0"] < seen.high["n0"] / 4
    assert (seen.low, seen.high) == kept, "the given ranges were changed"


def test_smoothing_again_changes_nothing() -> None:
    """With alpha a half both sides are level then: the divisor is one."""
    model, samples = norm_net(outlier=40.0), tokens_of(20)
    once, moved, _ = smoothed(model, observe(model, samples))
    twice, _, _ = smoothed(once, moved)
    np.testing.assert_allclose(read(twice, "b.m/MatMul", 1), read(once, "b.m/MatMul", 1), rtol=1e-4)


@pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS)
def test_outliers_cost_less_in_int8(placement: object) -> None:
    model, samples = norm_net(outlier=80.0), tokens_of(40)
    fp32, seen = ran(model, samples), observe(model, samples)
    smooth, moved, _ = smoothed(model, seen)
    plain = cosines(fp32, ran(quantized(model, seen, placement), samples)).mean()  # type: ignore[arg-type]
    mended = cosines(fp32, ran(quantized(smooth, moved, placement), samples)).mean()  # type: ignore[arg-type]
    assert plain < 0.99
    assert mended > 0.995


def changed_by(*more: onnx.NodeProto, output: str = "") -> list[str]:
    """What is smoothed where the first norm has other readers as well."""
    model, samples = norm_net(), tokens_of(12)
    seen = observe(model, samples)
    place = [node.name for node in model.graph.node].index("a/Mul")
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:place], *more, *nodes[place:]])
    if output:
        model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    smooth, moved, changed = smoothed(model, seen)
    assert moved.high["n0"] == seen.high["n0"] or "a.q/MatMul" in changed
    fresh = tokens_of(5, seed=4)
    kept = [entry.name for entry in model.graph.output]
    before, after = (inner(each, kept, frames=fresh) for each in (model, smooth))
    for name in kept:
        np.testing.assert_allclose(after[name], before[name], atol=2e-5)
    return changed


def test_a_norm_that_something_else_reads_is_left_alone() -> None:
    """A sum, a second activation, an output of the graph: each would see the division."""
    assert changed_by() == ["a.q/MatMul", "a.k/MatMul", "b.m/MatMul"]
    assert changed_by(helper.make_node("Neg", ["n0"], ["neg"], name="Neg"), output="neg") == ["b.m/MatMul"]
    assert changed_by(output="n0") == ["b.m/MatMul"]
    turned = helper.make_node("Transpose", ["n0"], ["turned"], name="Transpose", perm=[0, 2, 1])
    scores = helper.make_node("MatMul", ["n0", "turned"], ["scores"], name="scores")
    assert changed_by(turned, scores, output="scores") == ["b.m/MatMul"]


def test_a_value_whose_channels_were_not_seen_is_left_alone() -> None:
    model = norm_net()
    seen = observe(model, tokens_of(12))
    del seen.channel_low["n1"]
    assert smoothed(model, seen)[2] == ["a.q/MatMul", "a.k/MatMul"]
    assert smoothed(model, Ranges())[2] == []


def test_a_net_without_norms_stays_as_it_is() -> None:
    model = conv_net()
    smooth, moved, changed = smoothed(model, seen := observe(model, frames_of(9)))
    assert changed == []
    assert moved == seen
    assert list(smooth.graph.node) == list(model.graph.node)


def test_a_channel_that_is_always_zero_divides_by_nothing_absurd() -> None:
    model, samples = norm_net(), tokens_of(12)
    for name in ("gain", "bias"):
        value = stored(model, name).copy()
        value[4] = 0
        weights_of(model)[name].CopyFrom(numpy_helper.from_array(value, name))
    smooth, moved, _ = smoothed(model, observe(model, samples))
    assert all(np.isfinite(numpy_helper.to_array(entry)).all() for entry in smooth.graph.initializer)
    assert np.isfinite([*moved.low.values(), *moved.high.values()]).all()
    np.testing.assert_allclose(ran(smooth, samples), ran(model, samples), atol=2e-5)
