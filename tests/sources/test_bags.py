"""MCAP files and ROS bags: known frames come back in order, whatever the file, and what is damaged is said."""

from __future__ import annotations

import io
import shutil
import sqlite3
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgessl.errors import InputError
from edgessl.signals import image_spec
from edgessl.sources import Source, open_source
from edgessl.sources.folder import FolderSource
from edgessl.sources.messages import COMPRESSED, IMAGE, frame_of

pytest.importorskip("rosbags", reason="pip install 'edgessl[bags]'")
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

TYPES, TYPES1 = get_typestore(Stores.ROS2_HUMBLE), get_typestore(Stores.ROS1_NOETIC)
COUNT, HEIGHT, WIDTH = 11, 6, 10
BEGAN_S = 1_700_000_000

FRAMES = np.random.default_rng(0).integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), dtype=np.uint8)


def _header(store: Any, index: int, stamped: bool = True) -> Any:
    stamp = store.types["builtin_interfaces/msg/Time"](
        sec=BEGAN_S + index if stamped else 0, nanosec=250_000_000 if stamped else 0
    )
    seq = {"seq": index} if store is TYPES1 else {}
    return store.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera", **seq)


def _image(index: int, store: Any = TYPES, stamped: bool = True, **changed: Any) -> Any:
    told = {
        "header": _header(store, index, stamped),
        "height": HEIGHT,
        "width": WIDTH,
        "encoding": "rgb8",
        "is_bigendian": 0,
        "step": 3 * WIDTH,
        "data": FRAMES[index].reshape(-1),
    }
    return store.types[IMAGE](**{**told, **changed})


def _compressed(index: int, kind: str = "PNG") -> Any:
    file = io.BytesIO()
    Image.fromarray(FRAMES[index]).save(file, kind)
    data = np.frombuffer(file.getvalue(), np.uint8)
    return TYPES.types[COMPRESSED](header=_header(TYPES, index), format=kind.lower(), data=data)


def _raw(message: Any, store: Any = TYPES) -> bytes:
    kind = message.__msgtype__
    return bytes((store.serialize_ros1 if store is TYPES1 else store.serialize_cdr)(message, kind))


def _messages(make: Callable[[int], Any] = _image) -> list[bytes]:
    return [_raw(make(index)) for index in range(COUNT)]


def _bag(
    path: Path, topics: dict[str, tuple[str, list[bytes]]], plugin: str = "mcap", packed: str = "", step_ns: int = 10**9
) -> Path:
    """A ROS 2 bag as rosbags writes it; the messages of all topics are interleaved."""
    storage = StoragePlugin.MCAP if plugin == "mcap" else StoragePlugin.SQLITE3
    writer = Writer(path, version=9, storage_plugin=storage)
    if packed:
        writer.set_compression(CompressionMode[packed.upper()], CompressionFormat.ZSTD)
    with writer:
        links = {name: writer.add_connection(name, kind, typestore=TYPES) for name, (kind, _) in topics.items()}
        for index in range(max(len(contents) for _, contents in topics.values())):
            for name, (_, contents) in topics.items():
                if index < len(contents):
                    writer.write(links[name], BEGAN_S * 10**9 + index * step_ns, contents[index])
    return path


def _bag1(path: Path) -> Path:
    with Writer1(path) as writer:
        link = writer.add_connection("/camera/image_raw", IMAGE, typestore=TYPES1)
        for index in range(COUNT):
            writer.write(link, (BEGAN_S + index) * 10**9, _raw(_image(index, TYPES1), TYPES1))
    return path


def _record(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + struct.pack("<Q", len(body)) + body


def _words(*texts: str) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text.encode() for text in texts)


def _mcap(
    contents: list[bytes], packed: str = "", crc: int | None = None, end: bool = True, ros1: bool = False
) -> bytes:
    """An MCAP file made by hand, to its specification: with one chunk of everything, or with none."""
    inside = _record(3, struct.pack("<H", 1) + _words("sensor_msgs/Image" if ros1 else IMAGE, "ros2msg", "uint8 x"))
    inside += _record(4, struct.pack("<HH", 7, 1) + _words("/camera/image_raw", "ros1" if ros1 else "cdr") + bytes(4))
    for index, content in enumerate(contents):
        logged = (BEGAN_S + index) * 10**9
        inside += _record(5, struct.pack("<HIQQ", 7, index, logged, logged) + content)
    if packed:
        if packed == "lz4":
            import lz4.frame

            body = lz4.frame.compress(inside)
        else:
            body = inside
        told = zlib.crc32(inside) if crc is None else crc
        head = struct.pack("<QQQI", BEGAN_S, BEGAN_S, len(inside), told) + _words(packed) + struct.pack("<Q", len(body))
        inside = _record(6, head + body)
    magic = b"\x89MCAP0\r\n"
    done = _record(15, bytes(4)) + _record(2, bytes(20)) + magic
    return magic + _record(1, _words("ros2", "test")) + inside + (done if end else b"")


def _written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def _camera(path: Path, **given: Any) -> Path:
    return _bag(path, {"/camera/image_raw": (IMAGE, _messages())}, **given)


def _whole(source: Source) -> np.ndarray:
    return np.concatenate([batch.frames for batch in source.batches(4)])


WAYS: dict[str, Callable[[Path], Path | str]] = {
    "rosbag2 of mcap": lambda path: _camera(path / "drive"),
    "rosbag2 of mcap, zstd": lambda path: _camera(path / "drive", packed="storage"),
    "rosbag2 of sqlite": lambda path: _camera(path / "drive", plugin="sqlite3"),
    "rosbag2 of sqlite, message by message": lambda path: _camera(path / "drive", plugin="sqlite3", packed="message"),
    "bare mcap": lambda path: _camera(path / "drive") / "drive.mcap",
    "bare db3": lambda path: _camera(path / "drive", plugin="sqlite3") / "drive.db3",
    "mcap without chunks": lambda path: _written(path / "drive.mcap", _mcap(_messages())),
    "mcap, lz4 with checksum": lambda path: _written(path / "drive.mcap", _mcap(_messages(), "lz4")),
    "mcap of ROS 1": lambda path: _written(
        path / "drive.mcap", _mcap([_raw(_image(index, TYPES1), TYPES1) for index in range(COUNT)], ros1=True)
    ),
    "ROS 1 bag": lambda path: _bag1(path / "drive.bag"),
}


@pytest.mark.parametrize("way", WAYS)
def test_known_frames_come_back_in_order_and_again_after_a_restart(tmp_path: Path, way: str) -> None:
    path = Path(WAYS[way](tmp_path))
    source = open_source(str(path))
    assert source.spec == image_spec(HEIGHT, WIDTH)
    assert np.array_equal(_whole(source), FRAMES)
    assert source.names == [f"{path.name}#{index:06d}" for index in range(COUNT)]
    assert source.skipped == []
    assert np.allclose(source.stamps, BEGAN_S + np.arange(COUNT) + 0.25, rtol=0, atol=1e-6)  # type: ignore[attr-defined]
    again = open_source(str(path))
    assert (again.names, again.digest()) == (source.names, source.digest())
    for indices in ([7, 8, 9], [10, 2, 2, 5]):
        found, frames = again.read(indices)
        assert found.tolist() == indices
        assert np.array_equal(frames, FRAMES[indices])


def test_compressed_images_are_what_pillow_makes_of_them(tmp_path: Path) -> None:
    bag = _bag(tmp_path / "png", {"/camera/compressed": (COMPRESSED, _messages(_compressed))})
    assert np.array_equal(_whole(open_source(str(bag))), FRAMES)
    contents = _messages(lambda index: _compressed(index, "JPEG"))
    bag = _bag(tmp_path / "jpeg", {"/camera/compressed": (COMPRESSED, contents)})
    file = io.BytesIO()
    Image.fromarray(FRAMES[3]).save(file, "JPEG")
    assert np.array_equal(open_source(str(bag)).read([3])[1][0], np.asarray(Image.open(file)))


def test_a_message_without_a_stamp_has_the_one_of_the_log(tmp_path: Path) -> None:
    contents = _messages(lambda index: _image(index, stamped=index % 2 == 0))
    source = open_source(str(_bag(tmp_path / "drive", {"/camera": (IMAGE, contents)})))
    expected = [BEGAN_S + index + (0.25 if index % 2 == 0 else 0.0) for index in range(COUNT)]
    assert np.allclose(source.stamps, expected, rtol=0, atol=1e-6)  # type: ignore[attr-defined]


def test_frames_come_in_the_order_in_which_they_were_logged(tmp_path: Path) -> None:
    order = [0, 3, 1, 2, 4, 5, 6, 7, 8, 10, 9]
    content = _mcap(_messages())
    records = [_raw(_image(index)) for index in range(COUNT)]
    head = struct.pack("<HI", 7, 0)
    for place in range(COUNT):  # the file holds them in another order than their times
        old = struct.pack("<HIQQ", 7, place, *[(BEGAN_S + place) * 10**9] * 2) + records[place]
        assert old in content
    body = b"".join(
        _record(5, head + struct.pack("<QQ", *[(BEGAN_S + index) * 10**9] * 2) + records[index]) for index in order
    )
    start = content.index(_record(5, struct.pack("<HIQQ", 7, 0, *[BEGAN_S * 10**9] * 2) + records[0]))
    end = content.index(_record(15, bytes(4)))
    source = open_source(_written(tmp_path / "a.mcap", content[:start] + body + content[end:]))
    assert np.array_equal(_whole(source), FRAMES)


PIXELS = FRAMES[0]
PADDED = np.concatenate([PIXELS.reshape(HEIGHT, -1), np.full((HEIGHT, 5), 99, np.uint8)], axis=1)
GREY = PIXELS[..., 0]
RGBA = np.concatenate([PIXELS, GREY[..., None]], axis=-1)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"encoding": "bgr8", "data": PIXELS[..., ::-1].reshape(-1)}, PIXELS),
        ({"encoding": "8UC3", "data": PIXELS[..., ::-1].reshape(-1)}, PIXELS),
        ({"encoding": "rgba8", "step": 4 * WIDTH, "data": RGBA.reshape(-1)}, PIXELS),
        ({"encoding": "bgra8", "step": 4 * WIDTH, "data": RGBA[..., [2, 1, 0, 3]].reshape(-1)}, PIXELS),
        ({"encoding": "mono8", "step": WIDTH, "data": GREY.reshape(-1)}, GREY[..., None].repeat(3, 2)),
        ({"step": 3 * WIDTH + 5, "data": PADDED.reshape(-1)}, PIXELS),
        ({"step": 3 * WIDTH + 5, "data": PADDED.reshape(-1)[:-5]}, PIXELS),
        (
            {"encoding": "mono16", "step": 2 * WIDTH, "data": np.stack([GREY * 0, GREY], -1).reshape(-1)},
            GREY[..., None].repeat(3, 2),
        ),
        (
            {
                "encoding": "mono16",
                "step": 2 * WIDTH,
                "is_bigendian": 1,
                "data": np.stack([GREY, GREY * 0 + 9], -1).reshape(-1),
            },
            GREY[..., None].repeat(3, 2),
        ),
    ],
)
def test_every_layout_of_pixels_gives_the_same_frame(changed: dict[str, Any], expected: np.ndarray) -> None:
    assert np.array_equal(frame_of(_raw(_image(0, **changed)), IMAGE, "cdr", None), expected)


@pytest.mark.parametrize(("encoding", "code"), [("yuv422", "UYVY"), ("yuv422_yuy2", "YUY2")])
def test_two_pixels_that_share_their_colour_are_what_opencv_makes_of_them(encoding: str, code: str) -> None:
    cv2 = pytest.importorskip("cv2", reason="pip install 'edgessl[camera]'")
    data = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 2), dtype=np.uint8)
    expected = cv2.cvtColor(data, getattr(cv2, f"COLOR_YUV2RGB_{code}"))
    message = _raw(_image(0, encoding=encoding, step=2 * WIDTH, data=data.reshape(-1)))
    assert np.abs(frame_of(message, IMAGE, "cdr", None).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda: _raw(_image(4, data=FRAMES[4].reshape(-1)[:-1])), "this one is cut: it has 179"),
        (lambda: _raw(_image(4, step=3 * WIDTH - 1)), "rgb8 cannot be 6 x 10 (height x width) in rows of 29 bytes"),
        (lambda: _raw(_image(4, height=0)), "rgb8 cannot be 0 x 10"),
        (
            lambda: _raw(_image(4, encoding="bayer_rggb8")),
            "no encoding 'bayer_rggb8' of RGB frames; have the camera send one of rgb8",
        ),
        (lambda: _raw(_image(4))[:50], "no sensor_msgs/msg/Image"),
        (lambda: b"", "no sensor_msgs/msg/Image"),
        (lambda: b"\xff" * 80, "no sensor_msgs/msg/Image"),
    ],
)
def test_a_damaged_message_is_skipped_with_its_reason(tmp_path: Path, damage: Callable[[], bytes], said: str) -> None:
    contents = _messages()
    contents[4] = damage()
    bag = str(_bag(tmp_path / "drive", {"/camera": (IMAGE, contents)}))
    source = open_source(bag)
    others = [index for index in range(COUNT) if index != 4]
    assert np.array_equal(_whole(source), FRAMES[others])
    (skipped,) = source.skipped
    assert skipped.name == "drive#000004"
    assert said in skipped.reason
    with pytest.raises(InputError, match=r"drive#000004.*--strict"):
        open_source(bag, strict=True).read(range(COUNT))


def test_several_topics_are_an_error_with_the_lines_to_type(tmp_path: Path) -> None:
    topics = {
        "/front/image_raw": (IMAGE, _messages()),
        "/rear/compressed": (COMPRESSED, _messages(_compressed)[::-1]),
    }
    bag = _bag(tmp_path / "drive", topics)
    lines = rf"bag:{bag}\?topic=/front/image_raw or bag:{bag}\?topic=/rear/compressed"
    with pytest.raises(InputError, match=f"2 topics.*{lines}"):
        open_source(str(bag))
    assert np.array_equal(_whole(open_source(f"bag:{bag}?topic=/front/image_raw")), FRAMES)
    rear = open_source(f"bag:{bag}?topic=/rear/compressed")
    assert rear.name == f"bag:{bag}?topic=/rear/compressed"
    assert np.array_equal(_whole(rear), FRAMES[::-1])
    with pytest.raises(InputError, match=r"no topic '/up'.*it holds /front/image_raw"):
        open_source(f"bag:{bag}?topic=/up")


def test_a_bag_without_images_says_what_it_holds(tmp_path: Path) -> None:
    text = TYPES.types["std_msgs/msg/String"](data="hello")
    bag = _bag(tmp_path / "drive", {"/said": ("std_msgs/msg/String", [_raw(text)])})
    with pytest.raises(InputError, match=r"no topic of sensor_msgs.*holds /said \(std_msgs/msg/String\)"):
        open_source(str(bag))
    with pytest.raises(InputError, match=r"holds std_msgs/msg/String, and sensor_msgs"):
        open_source(f"bag:{bag}?topic=/said")


def test_a_topic_without_messages_says_so(tmp_path: Path) -> None:
    content = _mcap([])
    with pytest.raises(InputError, match=r"no frame of /camera/image_raw.*it holds no message"):
        open_source(_written(tmp_path / "a.mcap", content), spec=image_spec(HEIGHT, WIDTH))


def _chunked(path: Path) -> bytes:
    """Frames big enough for several chunks of rosbags' writer, which closes one when it is over a mebibyte."""
    big = [_raw(_image(index, height=240, width=640, step=1920, data=_big(index))) for index in range(COUNT)]
    return (_bag(path / "big", {"/camera": (IMAGE, big)}) / "big.mcap").read_bytes()


def _big(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, 240 * 1920, dtype=np.uint8)


def test_a_recording_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    content = _chunked(tmp_path)
    cut = content[: len(content) // 2]
    source = open_source(_written(tmp_path / "cut.mcap", cut))
    expected = sum(_big(index).tobytes() in cut for index in range(COUNT))
    assert 3 < expected < COUNT
    frames = _whole(source)
    assert len(frames) == len(source) == expected
    assert all(np.array_equal(frame.reshape(-1), _big(index)) for index, frame in enumerate(frames))
    (skipped,) = source.skipped
    assert skipped.name == "cut.mcap"
    assert "was cut off" in skipped.reason
    with pytest.raises(InputError, match=r"was cut off.*--strict"):
        open_source(str(tmp_path / "cut.mcap"), strict=True)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8, 0.99])
def test_wherever_it_was_cut_off_what_is_read_is_right(tmp_path: Path, part: float) -> None:
    content = _mcap(_messages(), end=False)
    source = open_source(_written(tmp_path / "cut.mcap", content[: int(len(content) * part)]))
    frames = _whole(source)
    assert np.array_equal(frames, FRAMES[: len(frames)])
    assert len(frames) >= int(part * COUNT) - 1
    assert len(source.skipped) == 1


def test_a_bag_without_its_metadata_is_read(tmp_path: Path) -> None:
    for plugin in ("mcap", "sqlite3"):
        bag = _camera(tmp_path / plugin, plugin=plugin)
        (bag / "metadata.yaml").unlink()
        assert np.array_equal(_whole(open_source(str(bag))), FRAMES)


def test_the_parts_of_a_bag_are_one_recording(tmp_path: Path) -> None:
    bag = tmp_path / "drive"
    bag.mkdir()
    for part, frames in enumerate((range(4), range(4, COUNT))):
        name = f"part{part}"
        one = _bag(tmp_path / name, {"/camera": (IMAGE, [_raw(_image(index)) for index in frames])}, step_ns=1000)
        content = (one / f"{name}.mcap").read_bytes()
        (bag / f"drive_{9 + part}.mcap").write_bytes(content)  # 9 before 10
    source = open_source(str(bag))
    assert len(source) == COUNT
    assert sorted(source.stamps) == [BEGAN_S + index + 0.25 for index in range(COUNT)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: _mcap(_messages(), "lz4", crc=1), "its checksum is wrong"),
        (lambda: _mcap(_messages(), "lz77"), "compression 'lz77'; known are zstd, lz4"),
        (lambda: _mcap(_messages(), "zstd"), "its zstd data are damaged"),
        (lambda: b"\x89MCAP0\r\n", "no topic"),
        (lambda: b"", "does not begin as one"),
        (lambda: b"bag" * 9, "does not begin as one"),
    ],
)
def test_a_file_of_which_nothing_can_be_read_says_why(tmp_path: Path, content: Callable[[], bytes], said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_source(_written(tmp_path / "a.mcap", content()))


def test_no_damage_of_single_bytes_breaks_the_reader(tmp_path: Path) -> None:
    content = _mcap(_messages())
    rng = np.random.default_rng(0)
    read = 0
    for place in rng.integers(8, len(content), 150):
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        try:
            source = open_source(_written(tmp_path / "a.mcap", bytes(damaged)))
        except InputError:
            continue
        for batch in source.batches(5):
            assert batch.frames.shape[1:] == source.spec.shape
        read += 1
    assert read > 100


def test_a_bag_of_sqlite_that_is_damaged_says_what_to_type(tmp_path: Path) -> None:
    file = _camera(tmp_path / "drive", plugin="sqlite3") / "drive.db3"
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"cannot be read as a ROS 2 bag.*\.recover"):
        open_source(str(file))
    (tmp_path / "a.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(InputError, match=r"cannot be read as a ROS 1 bag.*rosbag reindex"):
        open_source(str(tmp_path / "a.bag"))


def test_nothing_is_written_beside_a_recording(tmp_path: Path) -> None:
    bag = _camera(tmp_path / "drive", plugin="sqlite3")
    before = sorted(bag.iterdir())
    _whole(open_source(str(bag)))
    assert sorted(bag.iterdir()) == before


def test_what_waits_in_the_journal_of_a_recording_that_was_cut_off_is_read(tmp_path: Path) -> None:
    bag = _camera(tmp_path / "drive", plugin="sqlite3")
    base = sqlite3.connect(bag / "drive.db3")
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("INSERT INTO messages (topic_id, timestamp, data) SELECT 1, 1, data FROM messages WHERE id = 3")
    base.commit()
    shutil.copytree(bag, tmp_path / "cut")  # as the power went: the journal was never taken in
    base.close()
    assert (tmp_path / "cut" / "drive.db3-wal").stat().st_size > 0
    source = open_source(str(tmp_path / "cut"))
    assert len(source) == COUNT + 1
    assert np.array_equal(source.read([0])[1][0], FRAMES[2])


@pytest.mark.parametrize(("plugin", "packed"), [("mcap", ""), ("mcap", "storage"), ("sqlite3", "")])
def test_memory_does_not_grow_with_the_recording(tmp_path: Path, plugin: str, packed: str) -> None:
    def peak(count: int) -> int:
        contents = [_raw(_image(0, height=60, width=80, step=240, data=_noise(index))) for index in range(count)]
        bag = _bag(tmp_path / f"{count}", {"/camera": (IMAGE, contents)}, plugin=plugin, packed=packed)
        del contents
        tracemalloc.start()
        source = open_source(str(bag))
        assert sum(len(batch.frames) for batch in source.batches(16)) == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = peak(150), peak(600)
    assert many < few + 450 * 500  # a frame has 14,400 bytes; what is kept of one is its name, stamp and place


def _noise(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, 60 * 240, dtype=np.uint8)


@pytest.fixture
def jpegs(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, frame in enumerate(FRAMES):
        Image.fromarray(frame).resize((64, 48)).save(folder / f"{index}.jpg", quality=80)
    return folder


def test_a_recording_of_files_is_to_the_bit_what_the_files_are(tmp_path: Path, jpegs: Path) -> None:
    files = FolderSource(jpegs, (24, 32))
    make = TYPES.types[COMPRESSED]
    contents = [
        _raw(make(header=_header(TYPES, index), format="jpeg", data=np.fromfile(jpegs / name, np.uint8)))
        for index, name in enumerate(files.names)
    ]
    bag = _bag(tmp_path / "drive", {"/camera": (COMPRESSED, contents)})
    assert np.array_equal(_whole(open_source(str(bag), spec=image_spec(24, 32))), files.read(range(COUNT))[1])
