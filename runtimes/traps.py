"""Known traps: combinations of hardware, libraries and encoder that others have fallen into, each with its source.

A trap is data: when it holds, what happens, what to do, and where that is written. Add a row; the tests run over the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgessl.runtimes.box import Box

WRONG, FAILS, SLOW, NOTE = "wrong vectors", "fails", "slow", "note"

_TRT_ISSUES = "https://github.com/NVIDIA/TensorRT/issues/"
_TO_11 = "https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/api/migration/tensorrt-10x-to-11x-jetson.html"


@dataclass(frozen=True, kw_only=True)
class Trap:
    """A row.

    Attributes:
        name: Short, for machines.
        kind: What it does to you.
        when: Whether it holds, of the machine and whether the encoder has attention (None where no bundle was named).
        says: What happens.
        do: What to do, or type.
        source: Where that is written.
    """

    name: str
    kind: str
    when: Callable[[Box, bool | None], bool]
    says: str
    do: str
    source: str


TRAPS = (
    Trap(
        name="tensorrt-vit",
        kind=WRONG,
        when=lambda box, attention: attention is not False and (10, 0) <= box.tensorrt < (10, 7),
        says="TensorRT 10.3 and 10.4 have built plans of vision transformers that give wrong vectors, without a warning",
        do="use plans of `edgessl build` only: it replays golden samples and refuses such a plan; then --engine onnxruntime",
        source=f"{_TRT_ISSUES}4742, {_TRT_ISSUES}4723, {_TRT_ISSUES}4558",
    ),
    Trap(
        name="tensorrt-attention-10.7",
        kind=WRONG,
        when=lambda box, attention: attention is not False and box.tensorrt[:2] == (10, 7),
        says="TensorRT 10.7 has compiled fused attention wrongly",
        do="use plans of `edgessl build` only: it replays golden samples and refuses such a plan",
        source=f"{_TRT_ISSUES}4333, {_TRT_ISSUES}4328",
    ),
    Trap(
        name="tensorrt-thor-batch-1",
        kind=WRONG,
        when=lambda box, attention: attention is not False and box.tensorrt[:2] == (10, 13) and box.jetson,
        says="TensorRT 10.13 on Thor has fused the projections of attention wrongly at batch 1",
        do='if `edgessl build` refuses the plan, type: export __LUNOWUD="-peep:fc_h_fusion=off", and build again',
        source="https://github.com/NVIDIA/TensorRT-Edge-LLM/issues/151",
    ),
    Trap(
        name="tensorrt-int8-vit",
        kind=SLOW,
        when=lambda box, attention: attention is True and bool(box.tensorrt),
        says="vision transformers are often no faster in int8 than in fp16 under TensorRT",
        do="let `edgessl build` choose: it times every precision that is right",
        source=f"{_TRT_ISSUES}4273, https://github.com/NVIDIA/Model-Optimizer/issues/167",
    ),
    Trap(
        name="tensorrt-not-in-venv",
        kind=FAILS,
        when=lambda box, attention: box.in_venv and bool(box.tensorrt_elsewhere) and not box.tensorrt_here,
        says="TensorRT's Python bindings are the system's, in dist-packages, and this virtual environment does not see them",
        do="make it with: python3 -m venv --system-site-packages ENV",
        source="https://docs.python.org/3/library/venv.html",
    ),
    Trap(
        name="tensorrt-other-python",
        kind=FAILS,
        when=lambda box, attention: not box.in_venv and bool(box.tensorrt_elsewhere) and not box.tensorrt_here,
        says="TensorRT's Python bindings belong to the system's Python, and this is another one",
        do="use the system's: /usr/bin/python3 -m venv --system-site-packages ENV",
        source="https://docs.python.org/3/library/venv.html",
    ),
    Trap(
        name="tensorrt-8",
        kind=FAILS,
        when=lambda box, attention: () < box.tensorrt < (10,) or box.l4t.startswith("35."),
        says="TensorRT before 10 is too old: JetPack 5 brings 8.5",
        do="install JetPack 6.1 or newer, or run with --engine onnxruntime",
        source=f"{_TRT_ISSUES}3385",
    ),
    Trap(
        name="tensorrt-11-jetpack-6",
        kind=FAILS,
        when=lambda box, attention: box.jetpack.startswith("6.") and box.tensorrt >= (11,),
        says="TensorRT 11 does not support JetPack 6, which stays on 10.x",
        do="go back to the TensorRT of JetPack: sudo apt install nvidia-jetpack",
        source=_TO_11,
    ),
    Trap(
        name="tensorrt-11-jetpack-7",
        kind=FAILS,
        when=lambda box, attention: box.jetpack.startswith("7.") and (11,) <= box.tensorrt < (11, 4, 1),
        says="on Jetson TensorRT 11 needs 11.4.1, and JetPack 7.2.2",
        do="install TensorRT 11.4.1 or newer, or that of JetPack",
        source=_TO_11,
    ),
    Trap(
        name="tensorrt-dla-compiler",
        kind=FAILS,
        when=lambda box, attention: box.l4t.startswith("36.") and bool(box.tensorrt) and not box.dla,
        says="TensorRT of JetPack 6 loads libnvdla_compiler.so even without DLA, and a thin system does not have it",
        do="sudo apt install nvidia-l4t-dla-compiler",
        source="https://github.com/dusty-nv/jetson-inference/issues/1920",
    ),
    Trap(
        name="tensorrt-l4t-container",
        kind=FAILS,
        when=lambda box, attention: (
            box.l4t.startswith("39.") and box.container and box.tensorrt[:1] == (10,) and not box.dla
        ),
        says="from JetPack 7.2 on libnvdla_compiler.so is gone, and containers with L4T's TensorRT cannot load it",
        do="use a container for SBSA, or the TensorRT of the host",
        source="https://github.com/roboflow/inference/pull/2531",
    ),
    Trap(
        name="tensorrt-build-memory",
        kind=FAILS,
        when=lambda box, attention: box.jetson and bool(box.tensorrt) and 0 < box.memory_gib <= 8.5,
        says="TensorRT's builder takes all the memory it gets, and the kernel kills it on small boards",
        do="`edgessl build` caps it on 8 GiB; if it still dies, type: edgessl build BUNDLE --workspace-mib 256",
        source="https://github.com/dusty-nv/jetson-containers/issues/598",
    ),
    Trap(
        name="onnxruntime-python-3.10",
        kind=NOTE,
        when=lambda box, attention: box.python == (3, 10) and box.has("onnxruntime") < (1, 24),
        says="onnxruntime has no wheels for Python 3.10 from 1.24 on: pip stays at 1.23",
        do="nothing: edgessl runs with 1.20 and newer",
        source="https://pypi.org/project/onnxruntime/#files",
    ),
    Trap(
        name="onnxruntime-gpu-arm",
        kind=NOTE,
        when=lambda box, attention: box.jetson and not box.tensorrt_here,
        says="onnxruntime-gpu has no wheel for ARM on PyPI",
        do="use TensorRT for the GPU: sudo apt install nvidia-jetpack",
        source="https://github.com/microsoft/onnxruntime/issues/27098",
    ),
    Trap(
        name="onnxruntime-int8-no-vnni",
        kind=WRONG,
        when=lambda box, attention: (
            box.machine in ("x86_64", "AMD64")
            and "AVX2" in box.int8
            and not box.fast_int8
            and bool(box.has("onnxruntime"))
        ),
        says="without VNNI onnxruntime's int8 products saturate, and int8 is seldom faster than fp32",
        do="compare with: edgessl verify BUNDLE, edgessl bench BUNDLE; or take --precision fp32",
        source="https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "
        "https://github.com/microsoft/onnxruntime/issues/14642",
    ),
    Trap(
        name="onnxruntime-int8-old-arm",
        kind=SLOW,
        when=lambda box, attention: box.arm and bool(box.int8) and not box.fast_int8,
        says="without dotprod or i8mm int8 gains little on ARM",
        do="compare with: edgessl bench BUNDLE; or take --precision fp32",
        source="https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html",
    ),
    Trap(
        name="onnxruntime-1.24-arm-memory",
        kind=SLOW,
        when=lambda box, attention: box.arm and box.has("onnxruntime")[:2] == (1, 24),
        says="onnxruntime 1.24 takes more memory in convolutions on ARM than the versions around it",
        do="pip install -U onnxruntime",
        source="https://github.com/microsoft/onnxruntime/issues/29538",
    ),
    Trap(
        name="onnxruntime-telemetry",
        kind=NOTE,
        when=lambda box, attention: box.has("onnxruntime") >= (1, 29),
        says="onnxruntime reports its usage from 1.29 on; edgessl switches that off for itself, and for no other program",
        do="for all of them, type: export ORT_DISABLE_TELEMETRY=1",
        source="https://github.com/microsoft/onnxruntime/pull/27379",
    ),
    Trap(
        name="openvino-int8-arm",
        kind=SLOW,
        when=lambda box, attention: box.arm and bool(box.has("openvino")),
        says="on ARM OpenVINO runs most int8 graphs in float, and says nothing",
        do="take --engine onnxruntime for int8",
        source="https://github.com/openvinotoolkit/openvino_build_deploy/issues/440",
    ),
)


def traps_of(box: Box, attention: bool | None = None) -> list[Trap]:
    """The traps of this combination, what gives wrong vectors first.

    Args:
        box: The machine.
        attention: The encoder is a transformer; None where it is not known.
    """
    order = (WRONG, FAILS, SLOW, NOTE)
    return sorted((trap for trap in TRAPS if trap.when(box, attention)), key=lambda trap: order.index(trap.kind))
