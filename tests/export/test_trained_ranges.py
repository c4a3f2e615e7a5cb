"""Trained ranges stand where they were trained: at the inputs of layers, and behind a ReLU that alone reads one."""

from __future__ import annotations

import onnx
import pytest

from edgessl.errors import GateError
from edgessl.export.calibrate import Ranges, observe
from edgessl.export.placement import PLACEMENTS
from edgessl.export.quantize import quantized
from edgessl.export.surgery import weights_of, with_outputs
from edgessl.export.trained_ranges import with_trained
from tests.export.hand_graphs import conv_net, frames_of, norm_net, places_of_pairs, tokens_of

TRAINED = {
    "input.stages.0": (0.0, 0.75),
    "output.stages.0": (0.0, 3.5),
    "input.stages.1.1": (0.0, 3.5),
    "output.stages.1.1": (0.0, 2.25),
    "input.stages.2.0": (0.0, 2.25),
    "output.stages.2.0": (-1.5, 1.25),
    "input.pool.project": (-0.5, 1.75),
}


@pytest.fixture(scope="module")
def seen() -> Ranges:
    return observe(conv_net(), frames_of(9))


def changed(before: Ranges, after: Ranges) -> dict[str, tuple[float, float]]:
    """What differs from what calibration saw."""
    assert set(before.low) == set(after.low)
    assert set(before.high) == set(after.high)
    return {
        name: (after.low[name], after.high[name])
        for name in before.low
        if (after.low[name], after.high[name]) != (before.low[name], before.high[name])
    }


def test_each_range_comes_to_the_value_that_it_was_trained_at(seen: Ranges) -> None:
    """Behind the ReLU where one alone reads the convolution; the convolution's own range stays as it was seen."""
    assert changed(seen, with_trained(seen, conv_net(), TRAINED)) == {
        "image": (0.0, 0.75),
        "r0out": (0.0, 3.5),
        "r1out": (0.0, 2.25),
        "c2": (-1.5, 1.25),
        "mean": (-0.5, 1.75),
    }


def test_what_was_seen_of_the_rest_stays(seen: Ranges) -> None:
    low, high = dict(seen.low), dict(seen.high)
    given = with_trained(seen, conv_net(), {"output.stages.2.0": (-9.0, 9.0)})
    assert changed(seen, given) == {"c2": (-9.0, 9.0)}
    assert given.channel_low is seen.channel_low
    assert (seen.low, seen.high) == (low, high), "the given ranges were changed"


def test_scales_of_the_int8_graph_are_the_trained_ones(seen: Ranges) -> None:
    model = quantized(conv_net(), with_trained(seen, conv_net(), TRAINED), PLACEMENTS["onnxruntime"])
    stored, pairs = weights_of(model), places_of_pairs(model)
    for name, (low, high) in {"image": (0, 0.75), "r0out": (0, 3.5), "r1out": (0, 2.25), "c2": (-1.5, 1.25)}.items():
        scale, zero = (onnx.numpy_helper.to_array(stored[each]) for each in pairs[name].input[1:])
        assert scale == pytest.approx((high - low) / 255, rel=1e-6)
        assert zero == round(-low / ((high - low) / 255))


def test_where_a_port_stands_between_layer_and_relu_a_range_from_zero_is_not_the_layers() -> None:
    """What a trunk reads in front of its port goes below zero."""
    net = conv_net(ports=True)
    seen = observe(conv_net(), frames_of(9))
    given = with_trained(seen, net, {"output.stages.0": (0.0, 3.5), "input.stages.1.1": (0.0, 3.25)})
    assert changed(seen, given) == {"r0out": (0.0, 3.25)}


@pytest.mark.parametrize("reader", ["output of the graph", "second node"])
def test_a_relu_that_is_not_the_only_reader_does_not_take_the_range(seen: Ranges, reader: str) -> None:
    net = conv_net()
    if reader == "second node":
        net.graph.node.append(onnx.helper.make_node("Neg", ["c1"], ["neg"], name="Neg"))
    else:
        net = with_outputs(net, ["c1"])
    assert changed(seen, with_trained(seen, net, {"output.stages.1.1": (-1.0, 2.0)})) == {"c1": (-1.0, 2.0)}


def test_modules_that_the_graph_does_not_have_are_passed_over(seen: Ranges) -> None:
    given = with_trained(seen, conv_net(), {"input.stages.9": (0.0, 1.0), "output.stages.2.0": (-1.0, 2.0)})
    assert changed(seen, given) == {"c2": (-1.0, 2.0)}


def test_ranges_of_another_net_are_refused(seen: Ranges) -> None:
    with pytest.raises(GateError, match=r"none of the 7 trained ranges belongs .* distil it again"):
        with_trained(seen, norm_net(), TRAINED)


def test_without_trained_ranges_nothing_changes(seen: Ranges) -> None:
    assert changed(seen, with_trained(seen, conv_net(), {})) == {}


def test_matrices_of_a_transformer_have_theirs() -> None:
    seen = observe(norm_net(), tokens_of(9))
    given = with_trained(seen, norm_net(), {"input.a.o": (0.0, 0.5), "output.a.o": (-3.0, 3.0)})
    assert (given.low["soft"], given.high["soft"]) == (0.0, 0.5)
    assert (given.low["o"], given.high["o"]) == (-3.0, 3.0)
