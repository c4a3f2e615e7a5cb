"""Phone and watch while people sit, stand up, walk and turn: `imu_sp_sw_har/imu_100hz_w128.npz` in the data folder.

Windows float16 `(n, 128, 12)`; the people of `x_test` are none of those of `x_train`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgessl.signals import InputSpec
from edgessl.sources.arrays import ArraySource

IMU = InputSpec(kind="series", shape=(12, 128), dtype="float32", units="m/s2 and rad/s", rate_hz=100.0)


def imu(data: Path, split: str) -> ArraySource:
    """The windows of `train` or `test`, float32 `(n, 12, 128)`, with their labels."""
    with np.load(data / "imu_sp_sw_har" / "imu_100hz_w128.npz", allow_pickle=False) as file:
        windows, labels = file[f"x_{split}"], file[f"y_{split}"]
    series = np.ascontiguousarray(windows.transpose(0, 2, 1).astype(np.float32))
    names = [f"{split}/{index:05d}" for index in range(len(series))]
    return ArraySource(f"imu_sp_sw_har {split}", series, IMU, names, labels=labels.astype(np.int64))
