"""What to export, and the plan that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgessl.errors import InputError, UnknownNameError
from edgessl.export.targets import TARGETS
from edgessl.export.train_step import StepConfig

_STATISTICS_BYTES = 256 * 224 * 224 * 3
_REHEARSAL_BYTES, _FEWEST_REHEARSED = 4 * 2**20, 64
PRECISIONS = ("auto", "fp32", "fp16", "int8")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to write. All defaults are ours.

    Attributes:
        targets: Keys of `TARGETS`.
        precision: `fp32`, `fp16` or `int8` must pass their gate; `auto` keeps what passes and is faster here.
        calibration: Samples that the ranges for int8 are taken from, chosen for spread from twice as many.
        statistics: Samples that source statistics are taken from, evenly over the source. `None`: 256, and up to 2048 where
            samples are small, so that many dimensions have a covariance.
        golden: Samples stored with their fp32 vectors: what every graph is compared on, here and on the device. They are
            not among the others, at most a third of all, or half where there are few.
        anchors: Samples stored as latents, which a candidate on the device is judged by.
        rehearsal: Frames stored as they are, which the device disturbs as its own are and learns from at level `tail`; as many
            as 4 MiB hold, and none where that is fewer than 64, or where the camera is of another size than the encoder. 0 keeps
            the source's frames out of the bundle, but for the golden ones.
        license: Of the weights, an SPDX expression where there is one.
        lint_for: What the graphs are linted for.
        strict: Make a sample with NaN or infinity an error.
        step: The tail's training step.
    """

    targets: tuple[str, ...] = ("onnx",)
    precision: str = "auto"
    calibration: int = 300
    statistics: int | None = None
    golden: int = 48
    anchors: int = 64
    rehearsal: int = 512
    license: str = ""
    lint_for: tuple[str, ...] = ("tensorrt:10.3", "onnxruntime:1.20")
    strict: bool = False
    step: StepConfig = field(default_factory=StepConfig)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UnknownNameError("precision", self.precision, PRECISIONS)
        for target in self.targets:
            if target not in TARGETS:
                raise UnknownNameError("target", target, TARGETS)
        if not self.targets:
            raise InputError(f"no target; type --to {','.join(TARGETS)}, or some of them")
        if self.precision not in ("auto", "fp32") and not any(
            self.precision in TARGETS[name].precisions for name in self.targets
        ):
            raise InputError(
                f"{self.precision} pays on none of {', '.join(self.targets)}; type --precision auto, or --to "
                f"{','.join(name for name, target in TARGETS.items() if self.precision in target.precisions)}"
            )
        counts = (self.calibration, self.golden, self.anchors, 1 if self.statistics is None else self.statistics)
        if min(counts) < 1:
            raise InputError("calibration, statistics, golden and anchors are numbers of samples, 1 or more")
        if self.rehearsal < 0:
            raise InputError(f"rehearsal is a number of frames, 0 or more, not {self.rehearsal}")

    def statistics_of(self, sample_bytes: int) -> int:
        """How many samples of this size the statistics are taken from."""
        if self.statistics is not None:
            return self.statistics
        return min(max(_STATISTICS_BYTES // sample_bytes, 256), 2048)

    def rehearsed(self, sample_bytes: int) -> int:
        """How many frames of this size are stored to rehearse with."""
        count = min(self.rehearsal, _REHEARSAL_BYTES // sample_bytes)
        return count if count >= min(self.rehearsal, _FEWEST_REHEARSED) else 0

    def wanted(self, name: str) -> tuple[str, ...]:
        """Precisions to try for a target, besides the fp32 graph that every bundle has."""
        precisions = TARGETS[name].precisions
        if self.precision == "auto":
            return tuple(each for each in precisions if each in TARGETS[name].automatic)
        return tuple(each for each in precisions if each in ("fp32", self.precision))

    def plan(self) -> list[dict[str, Any]]:
        """What would be written, a row per target and precision."""
        rows: list[dict[str, Any]] = [
            {"target": "every engine", "precision": "fp32", "files": "encoder.onnx encoder.b1.onnx trunk.fp32.onnx"},
            {"target": "every engine", "precision": "fp32", "files": "tail.onnx step.onnx"},
        ]
        for name in self.targets:
            target = TARGETS[name]
            rows += [
                {
                    "target": name,
                    "precision": precision,
                    "files": " ".join(target.path(role, precision) for role in ("encoder", "trunk")),
                }
                for precision in self.wanted(name)
            ]
        return rows
