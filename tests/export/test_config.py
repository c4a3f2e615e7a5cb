"""What is asked for is checked before any work, and the plan lists what will be written."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from edgessl.bundle import Kind
from edgessl.errors import InputError, UnknownNameError
from edgessl.export.config import PRECISIONS, ExportConfig
from edgessl.export.targets import TARGETS
from edgessl.runtimes.engines import ENGINES

ALL = ("onnx", "openvino", "tensorrt")


@pytest.mark.parametrize(
    ("precision", "onnx", "openvino", "tensorrt"),
    [
        ("auto", ("int8",), ("fp32", "int8"), ("fp16", "int8")),
        ("int8", ("int8",), ("fp32", "int8"), ("int8",)),
        ("fp16", (), ("fp32", "fp16"), ("fp16",)),
        ("fp32", (), ("fp32",), ()),
    ],
)
def test_what_is_tried_for_each_target(
    precision: str, onnx: tuple[str, ...], openvino: tuple[str, ...], tensorrt: tuple[str, ...]
) -> None:
    """auto leaves out what cannot pay: OpenVINO computes fp16 in fp32, onnxruntime is ten times slower in it."""
    config = ExportConfig(targets=ALL, precision=precision)
    assert [config.wanted(name) for name in ALL] == [onnx, openvino, tensorrt]


def test_the_plan_of_the_default() -> None:
    assert ExportConfig().plan() == [
        {"target": "every engine", "precision": "fp32", "files": "encoder.onnx encoder.b1.onnx trunk.fp32.onnx"},
        {"target": "every engine", "precision": "fp32", "files": "tail.onnx step.onnx"},
        {"target": "onnx", "precision": "int8", "files": "encoder.int8.onnx trunk.int8.onnx"},
    ]


def test_the_plan_has_a_row_per_target_and_precision_in_the_order_asked_for() -> None:
    rows = ExportConfig(targets=("tensorrt", "openvino"), precision="int8").plan()
    assert [(row["target"], row["precision"], row["files"]) for row in rows[2:]] == [
        ("tensorrt", "int8", "tensorrt/encoder.int8.onnx tensorrt/trunk.int8.onnx"),
        ("openvino", "fp32", "openvino/encoder.fp32.xml openvino/trunk.fp32.xml"),
        ("openvino", "int8", "openvino/encoder.int8.xml openvino/trunk.int8.xml"),
    ]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_file_is_planned_twice(precision: str) -> None:
    files = [file for row in ExportConfig(targets=ALL, precision=precision).plan() for file in row["files"].split()]
    assert len(files) == len(set(files))


def test_what_a_target_leaves_for_a_graph() -> None:
    assert TARGETS["openvino"].files("trunk", "fp16") == {
        "openvino/trunk.fp16.xml": Kind("trunk", "fp16", "openvino"),
        "openvino/trunk.fp16.bin": Kind("data", "fp16", "openvino"),
    }
    assert TARGETS["onnx"].files("encoder", "int8") == {"encoder.int8.onnx": Kind("encoder", "int8", "onnxruntime")}


@pytest.mark.parametrize("name", TARGETS)
def test_targets_are_whole(name: str) -> None:
    target = TARGETS[name]
    assert target.engine in ENGINES
    assert set(target.automatic) <= set(target.precisions) <= set(PRECISIONS) - {"auto"}
    assert target.here == (name != "tensorrt")
    for precision in target.precisions:
        path = PurePosixPath(target.path("encoder", precision))
        assert path.as_posix() in target.files("encoder", precision)
        assert not path.is_absolute()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"precision": "int9"}, r"no precision 'int9'.*did you mean 'int8'"),
        ({"precision": ""}, r"no precision ''"),
        ({"targets": ("onx",)}, r"no target 'onx'.*did you mean 'onnx'"),
        ({"targets": ("onnx", "coreml")}, r"no target 'coreml'"),
    ],
)
def test_unknown_names_come_with_the_near_one(words: dict[str, object], told: str) -> None:
    with pytest.raises(UnknownNameError, match=told):
        ExportConfig(**words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"targets": ()}, "type --to onnx,openvino,tensorrt"),
        ({"precision": "fp16"}, "fp16 pays on none of onnx; type --precision auto, or --to openvino,tensorrt"),
        ({"calibration": 0}, "1 or more"),
        ({"statistics": -3}, "1 or more"),
        ({"golden": 0}, "1 or more"),
        ({"anchors": 0}, "1 or more"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_type(words: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        ExportConfig(**words)  # type: ignore[arg-type]


def test_a_precision_that_one_of_the_targets_has_is_enough() -> None:
    config = ExportConfig(targets=("onnx", "tensorrt"), precision="fp16")
    assert [row["target"] for row in config.plan()] == ["every engine", "every engine", "tensorrt"]
