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

KINDS = ("folder", "npz", "recordings", "shards", "video", "bag")


def _source(kind: str, folder: Path) -> Source:
    rng = np.random.default_rng(0)
    if kind == "npz":
        np.savez(folder / "a.npz", x=rng.standard_normal((7, 2, 5)))
        return open_source(str(folder / "a.npz"))
    if kind == "recordings":
        (folder / "a.csv").write_text("t,a,b\n" + "".join(f"{i / 100},{i},{-i}\n" for i in range(40)))
        return open_source(str(folder), windowing=Windowing(window=10))
    if kind == "video":
        return open_source(_video(folder / "a.avi", rng.integers(0, 255, (7, 16, 24, 3), dtype=np.uint8)))
    if kind == "bag":
        return open_source(_bag(folder / "a", rng.integers(0, 255, (7, 6, 4, 3), dtype=np.uint8)))
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


def _video(path: Path, frames: np.ndarray) -> str:
    cv2 = pytest.importorskip("cv2", reason="pip install 'edgessl[camera]'")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 25, frames.shape[2:0:-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return str(path)


def _bag(path: Path, frames: np.ndarray) -> str:
    rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="pip install 'edgessl[bags]'")
    typesys = pytest.importorskip("rosbags.typesys")
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    make, kind = store.types, "sensor_msgs/msg/Image"
    header = make["std_msgs/msg/Header"](stamp=make["builtin_interfaces/msg/Time"](sec=1, nanosec=0), frame_id="")
    with rosbag2.Writer(path, version=9) as writer:
        link = writer.add_connection("/camera", kind, typestore=store)
        for index, frame in enumerate(frames):
            told = {"height": 6, "width": 4, "encoding": "rgb8", "is_bigendian": 0, "step": 12}
            message = make[kind](header=header, data=frame.reshape(-1), **told)
            writer.write(link, index + 1, store.serialize_cdr(message, kind))
    return str(path)


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
