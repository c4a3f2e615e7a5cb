"""A recipe passes its check on a little real data; `benchmarks/recipes.py` measures the whole table on more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cifar import cifar10
from imu import imu

from edgessl.check import check
from edgessl.trainer import Run


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def recordings(name: str) -> Path:
    """The data folder, if it has this file."""
    folder = os.environ.get("EDGESSL_DATA", "")
    if not folder:
        pytest.skip("EDGESSL_DATA is not set: it names a folder with real recordings")
    if not (Path(folder) / name).exists():
        pytest.skip(f"EDGESSL_DATA has no {name}")
    return Path(folder)


@pytest.mark.slow
def test_simclr_passes_on_photographs_and_its_control_does_not() -> None:
    data = recordings("cifar10/cifar10.npz")
    run = Run(steps=120, batch=64, progress=False, accelerator="cpu", devices=1)
    found = check(
        "simclr",
        cifar10(data, "train", slice(4000)),
        cifar10(data, "test", slice(2000)),
        seeds=[0],
        margin=0.02,
        run=run,
    )
    assert found.reasons == (), found


@pytest.mark.slow
def test_simclr_passes_on_movements_of_other_people_and_its_control_does_not() -> None:
    data = recordings("imu_sp_sw_har/imu_100hz_w128.npz")
    run = Run(steps=120, batch=64, progress=False, accelerator="cpu", devices=1)
    found = check("simclr", imu(data, "train"), imu(data, "test"), seeds=[0], margin=0.02, run=run)
    assert found.reasons == (), found
