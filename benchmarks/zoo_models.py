"""The encoders of `export_zoo.py`, one line each, and the real recordings that they are exported with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cifar import cifar10
from imu import IMU, imu

from edgessl.signals import InputSpec, image_spec
from edgessl.sources.arrays import ArraySource

TRAIN, SPARE, BANK, QUERIES = 20_000, 700, 4_000, 5_000


@dataclass(frozen=True, kw_only=True)
class Model:
    """An encoder of the zoo.

    Attributes:
        name: A key of `edgessl.encoders.ENCODERS`, or a timm model.
        family: As its authors call it.
        size: Pixels a side; 0 for series.
        lr: Of the short run that trains it; 0 where it stays untrained.
    """

    name: str
    family: str
    size: int
    lr: float = 0.0

    @property
    def spec(self) -> InputSpec:
        """What it takes."""
        return image_spec(self.size, self.size) if self.size else IMU


def _model(name: str, family: str, size: int, lr: float = 0.0) -> Model:
    return Model(name=name, family=family, size=size, lr=lr)


ZOO = (
    _model("conv_small", "ours, convolutional", 64, lr=2e-3),
    _model("resnet18", "ResNet", 64, lr=1e-3),
    _model("mobilenetv3_small_100", "MobileNetV3", 64, lr=2e-3),
    _model("mobilenetv4_conv_small", "MobileNetV4", 64, lr=2e-3),
    _model("efficientnet_lite0", "EfficientNet-lite", 64, lr=2e-3),
    _model("convnext_atto", "ConvNeXt", 64, lr=1e-3),
    _model("repvit_m0_9", "RepViT", 64, lr=1e-3),
    _model("vit_tiny_patch16_224", "ViT", 64, lr=5e-4),
    _model("res_small", "ours, residual", 64),
    _model("vit_micro", "ours, ViT", 64),
    _model("regnety_002", "RegNet", 96),
    _model("ghostnet_100", "GhostNet", 96),
    _model("mobileone_s0", "MobileOne", 96),
    _model("fastvit_t8", "FastViT", 96),
    _model("edgenext_xx_small", "EdgeNeXt", 96),
    _model("mobilevit_xxs", "MobileViT", 96),
    _model("tiny_vit_5m_224", "TinyViT", 96),
    _model("levit_128s", "LeViT", 224),
    _model("vit_small_patch16_224", "ViT", 112),
    _model("vit_small_patch14_reg4_dinov2", "DINOv2", 126),
    _model("vit_small_patch16_dinov3", "DINOv3", 112),
    _model("conv_series", "ours, series", 0),
    _model("tcn_small", "TCN", 0),
    _model("vit_series", "ours, series ViT", 0),
)
QUICK = ("conv_small", "vit_micro", "tcn_small")


def training(data: Path, model: Model) -> ArraySource:
    """What the short run looks at."""
    return cifar10(data, "train", slice(TRAIN), size=(model.size, model.size))


def calibration(data: Path, model: Model) -> ArraySource:
    """What the export looks at: frames that no run was trained on, or windows of inertial sensors."""
    if model.size:
        return cifar10(data, "train", slice(TRAIN, TRAIN + SPARE), size=(model.size, model.size))
    windows = imu(data, "train")
    chosen, series = windows.read(np.linspace(0, len(windows) - 1, SPARE).round().astype(int))
    return ArraySource(windows.name, series, IMU, [windows.names[index] for index in chosen])


def neighbours(data: Path, model: Model) -> tuple[ArraySource, ArraySource]:
    """Bank and queries with their labels; the queries are nobody's training or calibration."""
    return cifar10(data, "train", slice(BANK), size=(model.size, model.size)), cifar10(
        data, "test", slice(QUERIES), size=(model.size, model.size)
    )
