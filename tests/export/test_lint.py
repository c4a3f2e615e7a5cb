"""Each rule has a graph that breaks it and nothing else, and the same graph whole."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl.errors import InputError, UnknownNameError
from edgessl.export.lint import RULES, lint, lint_report
from edgessl.export.lint.limits import LIMITS
from edgessl.export.lint.target import parse_target, tensorrt_opsets, tensorrt_row, tensorrt_table

F, H, D, U8, I8, I32, I64, B = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
)


def node(op: str, inputs: str, outputs: str = "y", **attributes: object) -> onnx.NodeProto:
    """Names are parted by spaces; `-` is an input that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=f"the_{op}", **attributes)


def graph(
    *nodes: onnx.NodeProto,
    inputs: dict[str, tuple[int, list[int | str]]] | None = None,
    outputs: dict[str, int] | None = None,
    opset: int = 20,
    **constants: object,
) -> onnx.ModelProto:
    inputs = {"x": (F, [2, 4, 6, 6])} if inputs is None else inputs
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in (outputs or {"y": F}).items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    domains = {"": opset, **{entry.domain: 1 for entry in nodes if entry.domain}}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    model = helper.make_model(made, opset_imports=opsets, ir_version=10)
    shaped = onnx.shape_inference.infer_shapes(model, data_prop=True)  # the checker wants the outputs' shapes
    del shaped.graph.value_info[:]
    for entry in shaped.graph.output:
        if not entry.type.tensor_type.HasField("shape"):
            entry.type.tensor_type.shape.dim.add()
    return shaped


def f32(*values: float) -> np.ndarray:
    return np.asarray(values, np.float32)


ONE, ZERO8 = np.float32(0.1), np.int8(0)


def q_dq(**changes: object) -> onnx.ModelProto:
    """An activation and a weight through Q and DQ into a Conv: whole, until something is changed."""
    values: dict[str, object] = {
        "xs": ONE, "xz": ZERO8, "w": np.ones((8, 4, 3, 3), np.int8), "ws": f32(*[0.02] * 8), "wz": np.zeros(8, np.int8)
    } | changes  # fmt: skip
    axis = values.pop("axis", 0)
    nodes = (
        node("QuantizeLinear", "x xs xz", "xq"),
        node("DequantizeLinear", "xq xs xz", "xd"),
        node("DequantizeLinear", "w ws wz", "wd", axis=axis),
        node("Conv", "xd wd"),
    )
    return graph(*nodes, **values)


def two_types() -> onnx.ModelProto:
    kinds = {"x": (F, [2, 3]), "h": (H, [2, 3])}
    return graph(node("Add", "x h"), inputs=kinds)


def functions() -> onnx.ModelProto:
    model = graph(node("Relu", "x"))
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("own", "Mine", ["a"], ["b"], body, model.opset_import))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def external(place: str) -> onnx.ModelProto:
    model = graph(node("Add", "x w"), w=f32(*range(6)))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place
    return model


def attention() -> onnx.ModelProto:
    return graph(
        node("MatMul", "x k", "scores"),
        node("Mul", "scores s", "scaled"),
        node("Softmax", "scaled", "weights"),
        node("MatMul", "weights v"),
        inputs={"x": (F, [2, 5, 3]), "k": (F, [2, 3, 5]), "v": (F, [2, 5, 3])},
        s=f32(0.5),
    )


def branches(*, same: bool = False, flat: bool = False) -> onnx.ModelProto:
    def branch(name: str, op: str = "Relu", shape: tuple[int, ...] = (2, 3)) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node(op, ["x"], [name])], name, [], [helper.make_tensor_value_info(name, F, shape)]
        )

    one, two = branch("a"), branch("a" if same else "b", *(("ReduceSum", ()) if flat else ()))
    if flat:
        two.node[0].attribute.append(helper.make_attribute("keepdims", 0))
    return graph(
        node("If", "c", then_branch=one, else_branch=two), inputs={"x": (F, [2, 3]), "c": (B, [])}
    )  # fmt: skip


def loop(*, trips: bool, grows: bool) -> onnx.ModelProto:
    """A loop that carries `x`, and gives each round's value where its trip count is an input."""
    infos = [("i", I64, []), ("keep", B, []), ("v", F, [2, 3])]
    nodes = [helper.make_node("Identity", ["keep"], ["on"])]
    nodes += [
        helper.make_node("Concat", ["v", "v"], ["w"], axis=0) if grows else helper.make_node("Relu", ["v"], ["w"])
    ]
    ends = [helper.make_tensor_value_info("on", B, []), helper.make_tensor_value_info("w", F, [4 if grows else 2, 3])]
    if trips:
        nodes.append(helper.make_node("Identity", ["v"], ["seen"]))
        ends.append(helper.make_tensor_value_info("seen", F, [2, 3]))
    body = helper.make_graph(nodes, "body", [helper.make_tensor_value_info(*info) for info in infos], ends)
    outputs = {"y": F, "all": F} if trips else {"y": F}
    inputs = {"x": (F, [2, 3]), "n": (I64, [])} if trips else {"x": (F, [2, 3])}
    constants = {"c": np.bool_(True)} | ({} if trips else {"n": np.int64(3)})
    return graph(node("Loop", "n c x", " ".join(outputs), body=body), inputs=inputs, outputs=outputs, **constants)


TRT = "tensorrt:10.3"
#: what -> (graph, target, rule, level, word of the message): each breaks that rule, and no other
BROKEN = {
    "operator no version has": (
        graph(node("BitShift", "x n", direction="LEFT"), inputs={"x": (U8, [2]), "n": (U8, [2])}, outputs={"y": U8}),
        TRT, "operator", "error", "BitShift",
    ),
    "operator of a later version": (
        graph(node("HannWindow", "n"), n=np.int64(8), inputs={}), TRT, "operator", "error", "before TensorRT 10.4"
    ),
    "operator of another domain": (graph(node("Gelu", "x", domain="com.microsoft")), TRT, "operator", "error", "plugin"),
    "a type it does not take": (
        graph(node("Floor", "x", "f"), node("MaxPool", "i", "p", kernel_shape=[1, 1]), node("Cast", "p", "y", to=F),
              inputs={"x": (F, [2]), "i": (I8, [1, 1, 4, 4])}), TRT, "type", "error", "int8",
    ),
    "float64": (graph(node("Relu", "x"), inputs={"x": (D, [2])}, outputs={"y": D}), TRT, "double", "warning", "float32"),
    "uint8 moved before its cast": (
        graph(node("Transpose", "x", "t"), node("Relu", "z"), node("Identity", "t", "u"),
              inputs={"x": (U8, [2, 3]), "z": (F, [2])}, outputs={"y": F}), TRT, "uint8", "error", "right behind",
    ),
    "uint8 in the middle": (
        graph(node("Cast", "x", "b", to=U8), node("Cast", "b", "y", to=F)), TRT, "uint8", "error", "middle"
    ),
    "mixed types": (two_types(), TRT, "mixed-types", "error", "cast one"),
    "a power of another type": (
        graph(node("Pow", "x e"), e=np.int64(2)), TRT, "mixed-types", "warning", "exponent"
    ),
    "opset too new": (graph(node("Relu", "x"), opset=21), TRT, "opset", "error", "9 to 20"),
    "opset too old": (graph(node("Relu", "x"), opset=8), TRT, "opset", "error", "9 to 20"),
    "newer than the tables": (graph(node("Relu", "x")), "tensorrt:12.0", "version", "warning", "11.4"),
    "local functions": (functions(), TRT, "local-functions", "error", "inline"),
    "weights outside": (external("../w.bin"), TRT, "external-data", "error", "do not use"),
    "weights beside": (external("w.bin"), TRT, "external-data", "warning", "travel"),
    "not a graph": (graph(node("Relu", "nowhere")), TRT, "invalid", "error", "nowhere"),
    "attention where it was wrong": (attention(), TRT, "risk-attention", "warning", "edgessl build"),
    "attention on Thor": (attention(), "jetpack:7.1", "risk-attention", "warning", "edgessl build"),
    "grid sample": (
        graph(node("GridSample", "x g"), inputs={"x": (F, [1, 2, 4, 4]), "g": (F, [1, 3, 3, 2])}),
        TRT, "risk-gridsample", "warning", "edgessl build",
    ),
    "scatter before its fix": (
        graph(node("ScatterND", "x i u"), i=np.zeros((1, 1), np.int64), inputs={"x": (F, [4]), "u": (F, [1])}),
        TRT, "risk-scatter", "warning", "10.9",
    ),
    "noise": (graph(node("RandomNormalLike", "x")), TRT, "risk-seed", "warning", "noise"),
    "q uint8": (q_dq(xz=np.uint8(0)), TRT, "qdq-type", "error", "uint8"),
    "zero point": (q_dq(wz=np.ones(8, np.int8)), TRT, "qdq-zero-point", "error", "not 0"),
    "zero points too few": (
        graph(node("DequantizeLinear", "w s z"), inputs={}, w=np.ones((8, 4), np.int8), s=f32(*[1] * 4),
              z=np.zeros((), np.int8)), TRT, "qdq-zero-point", "error", "1 zero points",
    ),
    "dead channel": (q_dq(ws=f32(*[0.02] * 7, 0)), TRT, "qdq-scale", "error", "positive"),
    "scale that is computed": (
        graph(node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q t z"), z=ZERO8, t=ONE,
              inputs={"x": (F, [2, 3]), "s": (F, [])}), TRT, "qdq-scale", "error", "constant",
    ),
    "activation per channel": (
        graph(node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q t u"), s=f32(1, 1, 1, 1),
              z=np.zeros(4, np.int8), t=ONE, u=ZERO8), TRT, "qdq-activation", "error", "4 scales",
    ),
    "channel axis": (
        q_dq(axis=1, ws=f32(*[0.02] * 4), wz=np.zeros(4, np.int8)), TRT, "qdq-channel", "error", "axis 0, not 1"
    ),
    "channel count": (q_dq(ws=f32(*[0.02] * 7), wz=np.zeros(7, np.int8)), TRT, "qdq-channel", "error", "7 scales"),
    "q of a scalar": (
        graph(node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z"), s=ONE, z=ZERO8,
              inputs={"x": (F, [])}), TRT, "qdq-input", "error", "scalar",
    ),
    "q without a pair": (
        graph(node("QuantizeLinear", "x s z"), outputs={"y": I8}, s=ONE, z=ZERO8), TRT, "qdq-pair", "error", "goes to y"
    ),
    "scale of another type": (
        graph(node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z"), s=ONE, z=ZERO8,
              inputs={"x": (H, [2, 3])}), TRT, "qdq-scale-type", "error", "float16",
    ),
    "bias": (
        graph(node("DequantizeLinear", "b s", "bias"), node("Add", "x bias"), b=np.int32(7), s=ONE),
        TRT, "qdq-bias", "error", "QuantizeBias",
    ),
    "onnxruntime's opset": (graph(node("Relu", "x"), opset=22), "onnxruntime:1.20", "opset", "error", "up to 21"),
    "another domain": (graph(node("Mine", "x", domain="own")), "openvino", "domain", "error", "own.Mine"),
    "unpooling": (
        graph(node("MaxUnpool", "x i", kernel_shape=[2, 2], strides=[2, 2]),
              inputs={"x": (F, [1, 1, 2, 2]), "i": (I64, [1, 1, 2, 2])}), "openvino", "operator", "error", "MaxUnpool",
    ),
}  # fmt: skip

C, S1 = np.zeros((), np.int64), np.asarray([1], np.int64)
AXES = {"x": (F, [2, 3]), "a": (I64, [1])}
#: limit -> (graph that breaks it, word of the message)
LIMITED = {
    "attr_must_be": (graph(node("TopK", "x k", "y i", sorted=0), k=S1), "sorted"),
    "attr_in": (graph(node("Resize", "x - s", mode="cubic"), s=f32(1, 1, 2, 2)), "cubic"),
    "attr_all_ones": (graph(node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 1])), "all ones"),
    "initializer_inputs": (graph(node("ReduceSum", "x a"), inputs=AXES), "input axes"),
    "build_time_constant_inputs": (graph(node("Unsqueeze", "x a"), inputs=AXES), "input axes"),
    "unsupported_outputs": (
        graph(node("MaxPool", "x", "y i", kernel_shape=[2, 2]), outputs={"y": F, "i": I64}), "Indices",
    ),
    "input_rank": (
        graph(node("GridSample", "x g"), inputs={"x": (F, [1, 2, 4, 4, 4]), "g": (F, [1, 3, 3, 3, 3])}), "5 axes",
    ),
    "spatial_dims": (graph(node("MaxPool", "x", kernel_shape=[2]), inputs={"x": (F, [1, 2, 8])}), "1 spatial"),
    "max_outputs": (
        graph(node("LayerNormalization", "x s", "y m"), s=f32(*[1] * 6), outputs={"y": F, "m": F}), "only 1 output",
    ),
    "k_less_than": (graph(node("TopK", "x k", "y i"), k=np.asarray([3840], np.int64), inputs={"x": (F, [4000])}), "3840"),
    "symmetric_pads": (
        graph(node("DeformConv", "x w o", pads=[1, 0, 0, 0]),
              inputs={"x": (F, [1, 1, 4, 4]), "w": (F, [1, 1, 2, 2]), "o": (F, [1, 8, 4, 3])}), "both ends",
    ),
    "training_mode_must_be": (graph(node("Dropout", "x r t"), r=np.float32(0.5), t=np.bool_(True)), "eval mode"),
    "static_input_shape": (graph(node("EyeLike", "x"), inputs={"x": (F, ["n", 3])}), "fixed shape"),
    "bidirectional_same_activations": (
        graph(node("RNN", "x w r", direction="bidirectional", hidden_size=2, activations=["Tanh", "Relu"]),
              inputs={"x": (F, [3, 1, 2]), "w": (F, [2, 2, 2]), "r": (F, [2, 2, 2])}), "both directions",
    ),
    "build_time_constant_axis_dim": (graph(node("Hardmax", "x"), inputs={"x": (F, [2, "n"])}), "fixed length"),
    "branches_distinct_names": (branches(same=True), "own names"),
    "branches_same_rank": (branches(flat=True), "agree"),
    "scan_output_length_static": (loop(trips=True, grows=False), "trip count"),
    "carried_shape_invariant": (loop(trips=False, grows=True), "keep its shape"),
    "axes_must_be_iota_if_scales_is_tensor": (graph(node("Resize", "x - s", axes=[2, 3]), s=f32(2, 2)), "0, 1, 2"),
}  # fmt: skip
#: limit that only a later TensorRT has -> the same
LATER = {
    "rank": (
        graph(node("Attention", "q q q", q_num_heads=1, kv_num_heads=1), inputs={"q": (F, [1, 3, 4])}, opset=23),
        "3 axes",
    ),
    "unsupported_inputs": (
        graph(node("Attention", "q q q - q q", "y k v"), inputs={"q": (F, [1, 1, 3, 4])}, outputs={"y": F}, opset=23),
        "past_key",
    ),
    "unsupported_attributes": (
        graph(node("Attention", "q q q", softcap=2.0), inputs={"q": (F, [1, 1, 3, 4])}, opset=23), "softcap",
    ),
    "real_input": (
        graph(node("STFT", "x f w"), inputs={"x": (F, [1, 16, 2])}, f=np.int64(4), w=f32(*[1] * 4)), "real",
    ),
}  # fmt: skip
CLEAN = {
    "q dq": q_dq(),
    "relu": graph(node("Relu", "x")),
    "uint8 in": graph(node("Cast", "x", "f", to=F), node("Relu", "f"), inputs={"x": (U8, [2, 3])}),
    "branches": branches(same=False),
    "loop": loop(trips=False, grows=False),
    "shape": graph(node("Shape", "x", "s"), node("Expand", "c s"), c=np.float32(1)),
    "axes of a constant": graph(node("Unsqueeze", "x a"), a=S1),
    "batch norm": graph(node("BatchNormalization", "x a a a a"), a=f32(1, 1, 1, 1)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_graph_that_breaks_one_rule_is_told_that_rule_alone(what: str) -> None:
    model, target, rule, level, word = BROKEN[what]
    findings = lint(model, target)
    assert {(finding.rule, finding.level) for finding in findings} == {(rule, level)}
    assert word in " ".join(finding.message for finding in findings)


def test_every_rule_has_a_graph_that_breaks_it() -> None:
    tested = {(parse_target(case[1]).engine, case[2]) for case in BROKEN.values()} | {("tensorrt", "limit")}
    assert {rule for engine, rule in tested if engine == "tensorrt"} >= set(RULES["tensorrt"]) - {
        "ir-version",
        "types-known",
    }
    assert len(RULES["tensorrt"]) == 26


@pytest.mark.parametrize("limit", {**LIMITED, **LATER})
def test_a_limit_of_the_table_is_honoured(limit: str) -> None:
    model, word = {**LIMITED, **LATER}[limit]
    findings = lint(model, "tensorrt:11.1" if limit in LATER else TRT)
    wrong = [finding for finding in findings if finding.level == "error"]
    assert {finding.rule for finding in wrong} == {"limit"}
    assert word in wrong[0].message


def test_every_limit_of_the_data_has_a_check() -> None:
    used = {
        key
        for row in tensorrt_table()["ops"].values()
        if row
        for limits in (row.get("limits", {}), row.get("before", {}).get("limits", {}))
        for key in limits
    }
    assert used == set(LIMITS)
    assert len(used) == 27


@pytest.mark.parametrize("what", CLEAN)
@pytest.mark.parametrize("target", [TRT, "tensorrt:10.16", "tensorrt:11.1", "onnxruntime:1.20", "openvino"])
def test_a_whole_graph_is_clean_and_says_how_much_was_checked(what: str, target: str) -> None:
    report = lint_report(CLEAN[what], target)
    assert report.findings == ()
    assert report.nodes >= len(CLEAN[what].graph.node)
    assert report.rules == len(RULES[report.target.engine]) >= 8


def test_nodes_inside_branches_are_counted_and_judged() -> None:
    model = branches(same=False)
    assert lint_report(model, TRT).nodes == 3
    model.graph.node[0].attribute[0].g.node[0].op_type = "Det"
    assert [finding.rule for finding in lint(model, TRT)] == ["operator"]


def test_an_older_row_holds_until_the_version_that_changed_it() -> None:
    assert tensorrt_row("CumSum", (10, 7)).limits == {"initializer_inputs": ["axis"]}
    assert tensorrt_row("CumSum", (10, 8)).limits == {"build_time_constant_inputs": ["axis"]}
    assert [tensorrt_row("Attention", (10, minor)).supported for minor in (13, 14)] == [False, True]
    assert tensorrt_row("Frobnicate", (10, 3)) is None
    assert [tensorrt_opsets((10, minor))[1] for minor in (0, 3, 12, 13, 15, 16)] == [20, 20, 20, 22, 24, 24]
    assert tensorrt_opsets((12, 0)) == (9, 24)


def test_jetpack_stands_for_its_tensorrt() -> None:
    assert parse_target("jetpack:6.2").version == (10, 3)
    assert parse_target("tensorrt:10.3.0.30").version == (10, 3)


@pytest.mark.parametrize(
    "target", ["tensorrt", "tensorrt:8.6", "tensorrt:x", "jetpack:5.1", "onnxruntime:1.2", "npu", "", "openvino:x"]
)
def test_a_target_that_is_not_known_names_those_that_are(target: str) -> None:
    with pytest.raises(UnknownNameError, match=r"jetpack:6\.2"):
        lint(graph(node("Relu", "x")), target)


def test_the_ir_version_is_judged() -> None:
    model = graph(node("Relu", "x"))
    model.ir_version = 11
    assert [finding.rule for finding in lint(model, "onnxruntime:1.20")] == ["ir-version"]
    assert lint(model, "onnxruntime:1.30") == []


def test_data_beside_the_file_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(external("w.bin").SerializeToString())
    assert [finding.level for finding in lint(path, TRT)] == ["error"]
    (tmp_path / "w.bin").write_bytes(bytes(24))
    assert [finding.level for finding in lint(path, TRT)] == ["warning"]


def test_what_is_no_onnx_file_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(InputError, match="no file"):
        lint(path, TRT)
    for content in (b"", b"\x08", b"not onnx at all", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"m\.onnx"):
            lint(path, TRT)


def test_a_damaged_file_is_an_input_error_or_a_finding(tmp_path: Path) -> None:
    path, rng = tmp_path / "m.onnx", np.random.default_rng(0)
    whole = q_dq().SerializeToString()
    seen = {"refused": 0, "judged": 0}
    for trial in range(300):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if trial % 2 else whole)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            lint(path, TRT)
            seen["judged"] += 1
        except InputError:
            seen["refused"] += 1
    assert min(seen.values()) > 20
    assert sum(seen.values()) == 300


def test_the_data_file_is_in_the_package_and_names_its_sources() -> None:
    text = resources.files("edgessl.export").joinpath("data/tensorrt_ops.json").read_text(encoding="utf-8")
    table = json.loads(text)
    assert len(table["source"]) == 5
    assert len(table["ops"]) == 201
    assert sum(row is not None for row in table["ops"].values()) == 159
