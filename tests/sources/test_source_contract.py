"""What every source promises, over one of each kind."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgessl.cli.options import parsed_series
from edgessl.sources import Source, Windowing, open_source

KINDS = ("folder", "npz", "recordings", "shards")


def _source(kind: str, folder: Path) -> Source:
    rng = np.random.default_rng(0)
    if kind == "npz":
        np.savez(folder / "a.npz", x=rng.standard_normal((7, 2, 5)))
        return open_source(str(folder / "a.npz"))
    if kind == "recordings":
        (folder / "a.csv").write_text("t,a,b\n" + "".join(f"{i / 100},{i},{-i}\n" for i in range(40)))
        return open_source(str(folder), windowing=Windowing(window=10))
    for index in range(7):
        Image.fromarray(rng.integers(0, 255, (6, 4, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    if kind == "folder":
        return open_source(str(folder))
    with tarfile.open(folder / "a.tar", "w") as file:
        for index in range(7):
            content = (folder / f"{index}.png").read_bytes()
            member = tarfile.TarInfo(f"{index}.png")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return open_source(str(folder / "a.tar"))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_hold_every_sample_once_in_order(kind: str, tmp_path: Path) -> None:
    source = _source(kind, tmp_path)
    batches = list(source.batches(3))
    assert len(source) == len(source.names) == len(set(source.names)) == 7
    assert [name for batch in batches for name in batch.names] == source.names
    assert np.concatenate([batch.indices for batch in batches]).tolist() == list(range(7))
    frames = np.concatenate([batch.frames for batch in batches])
    assert frames.shape == (7, *source.spec.shape)
    assert frames.dtype == source.spec.dtype
    indices, chosen = source.read([5, 1, 1])
    assert indices.tolist() == [5, 1, 1]
    assert np.array_equal(chosen, frames[[5, 1, 1]])
    assert source.labels is None
    assert source.classes == []
    assert source.skipped == []
    assert source.groups is None or source.groups.shape == (7,)
    assert source.digest() == source.digest()


def test_what_is_typed_becomes_how_recordings_are_cut() -> None:
    typed = ["window=2.56s", "hop=64", "rate_hz=50", "channels=ax,ay", "time=clock:ms", "label=7"]
    assert parsed_series(typed) == Windowing(
        window="2.56s", hop=64, rate_hz=50, channels=("ax", "ay"), time="clock:ms", label="7"
    )
    assert parsed_series([]) is None
