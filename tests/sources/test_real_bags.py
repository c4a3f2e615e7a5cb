"""A robot's own frames through a recording. They are no part of the project: EDGESSL_DATA names a folder that holds them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgessl.sources import open_source
from edgessl.sources.messages import COMPRESSED

rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="pip install 'edgessl[bags]'")
typesys = pytest.importorskip("rosbags.typesys")


@pytest.mark.slow
def test_a_robots_frames_come_out_of_a_recording_to_the_bit(tmp_path: Path) -> None:
    folder = Path(os.environ.get("EDGESSL_DATA", "")) / "donkeycar" / "frames"
    if not os.environ.get("EDGESSL_DATA") or not folder.exists():
        pytest.skip("EDGESSL_DATA is not set, or has no donkeycar/frames")
    files = open_source(str(folder))
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    make, bag = store.types, tmp_path / "drive"
    with rosbag2.Writer(bag, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        link = writer.add_connection("/camera/compressed", COMPRESSED, typestore=store)
        for index, name in enumerate(files.names):
            stamp = make["builtin_interfaces/msg/Time"](sec=1 + index // 20, nanosec=index % 20 * 50_000_000)
            header = make["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")
            message = make[COMPRESSED](header=header, format="jpeg", data=np.fromfile(folder / name, np.uint8))
            writer.write(link, 10**9 + index * 50_000_000, store.serialize_cdr(message, COMPRESSED))
    source = open_source(str(bag))
    assert len(source) == len(files) > 2000
    for given, expected in zip(source.batches(256), files.batches(256), strict=True):
        assert np.array_equal(given.frames, expected.frames)
    content = (bag / "drive.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(content[: len(content) * 2 // 3])
    cut = open_source(str(tmp_path / "cut.mcap"))
    assert 0.6 * len(files) < len(cut) < 0.7 * len(files)
    assert [skipped.name for skipped in cut.skipped] == ["cut.mcap"]
    assert np.array_equal(cut.read([len(cut) - 1])[1], files.read([len(cut) - 1])[1])
