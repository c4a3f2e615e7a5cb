"""What OpenVINO compiled is kept for the next start, and is never wrong for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import edgessl
from edgessl.runtimes.engines import EngineSettings, open_engine
from edgessl.runtimes.engines.ovcache import open_cache, prune

openvino = pytest.importorskip("edgessl.runtimes.engines.openvino", reason="pip install 'edgessl[openvino]'").openvino

KEPT = EngineSettings(cache=True)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EDGESSL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


def vectors_of(path, frames, **options):
    engine = open_engine("openvino", path, **options)
    vectors, cached = engine.run({"frames": frames})["vectors"], engine._compiled.get_property("LOADED_FROM_CACHE")
    engine.close()
    return vectors, cached


def test_the_second_opening_takes_what_the_first_compiled(folder, tiny, scenes):
    first, second = (vectors_of(tiny / "encoder.onnx", scenes(3, 0), settings=KEPT) for _ in range(2))
    assert (first[1], second[1]) == (False, True)
    np.testing.assert_array_equal(first[0], second[0])


def test_graphs_that_differ_in_weights_alone_are_not_taken_for_each_other(folder, tiny, scenes):
    for name in ("encoder.onnx", "encoder.int8.onnx") * 2:
        expected = open_engine("onnxruntime", tiny / name).run({"frames": scenes(3, 0)})["vectors"]
        np.testing.assert_allclose(
            vectors_of(tiny / name, scenes(3, 0), settings=KEPT)[0], expected, atol=1e-5, err_msg=name
        )
    assert len(list(folder.glob("*/*.blob"))) == 4  # one sample, and any batch, of two graphs


def test_one_sample_and_a_batch_are_not_taken_for_each_other(folder, tiny, scenes, monkeypatch):
    """Whichever was kept first, and whichever is run first in the process that finds them."""
    found, compile_model = [], openvino.Core.compile_model

    def record(*args, **kwargs):
        found.append(compile_model(*args, **kwargs))
        return found[-1]

    monkeypatch.setattr(openvino.Core, "compile_model", record)
    expected = open_engine("onnxruntime", tiny / "encoder.onnx").run({"frames": scenes(5, 0)})["vectors"]
    for batches in ((1, 5), (5, 1), (1, 5)):
        engine = open_engine("openvino", tiny / "encoder.onnx", settings=KEPT)
        for batch in batches:
            vectors = engine.run({"frames": scenes(5, 0)[:batch]})["vectors"]
            np.testing.assert_allclose(vectors, expected[:batch], atol=1e-5)
        engine.close()
    assert [each.get_property("LOADED_FROM_CACHE") for each in found] == [False] * 2 + [True] * 4
    assert [each.inputs[0].get_partial_shape().is_static for each in found] == [True, False] * 3
    assert len(list(folder.glob("*/*.blob"))) == 2


def test_a_batch_runs_where_the_cache_was_emptied_since_the_opening(folder, tiny, scenes):
    engine = open_engine("openvino", tiny / "encoder.onnx", settings=KEPT)
    shutil.rmtree(folder)
    assert engine.run({"frames": scenes(3, 0)})["vectors"].shape == (3, 6)
    engine.close()


def test_a_folder_belongs_to_the_content_of_a_graph(folder, tmp_path):
    """Whatever the files are called, and wherever they are; OpenVINO 2025.4 by itself does not tell weights apart."""

    def place(name, content, weights=None):
        graph = tmp_path / name
        graph.write_bytes(content)
        if weights is not None:
            graph.with_suffix(".bin").write_bytes(weights)
        return open_cache(graph)[0]

    first = place("a.onnx", b"graph")
    assert first.parent == folder
    assert place("b.onnx", b"graph") == first
    weighed = [place("c.xml", b"graph", b"weights"), place("d.xml", b"graph", b"others"), place("e.onnx", b"other")]
    assert len({first, *weighed}) == 4


def test_what_was_kept_runs_on_the_threads_that_are_asked_for_now(folder, tiny):
    for threads in (2, 1, 2):
        engine = open_engine("openvino", tiny / "encoder.onnx", settings=EngineSettings(threads=threads, cache=True))
        assert engine.info()["threads"] == threads
        assert engine.info()["precision"] == "fp32"
        assert engine.fused()["float"] == 3
        engine.close()
    assert len(list(folder.glob("*/*.blob"))) == 1


@pytest.mark.parametrize("damage", ["half", "empty", "changed"])
def test_a_damaged_file_is_compiled_again(folder, tiny, scenes, damage):
    expected, _ = vectors_of(tiny / "encoder.onnx", scenes(3, 0), settings=KEPT)
    files = list(folder.glob("*/*.blob"))
    assert len(files) == 2
    for file in files:
        content = bytearray(file.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 256] = bytes(byte ^ 0x55 for byte in content[middle : middle + 256])
        file.write_bytes({"half": content[:middle], "empty": b"", "changed": content}[damage])
    again, _ = vectors_of(tiny / "encoder.onnx", scenes(3, 0), settings=KEPT)
    np.testing.assert_array_equal(again, expected)


def test_nothing_is_kept_of_graphs_that_come_once(folder, tiny, scenes):
    vectors_of(tiny / "encoder.onnx", scenes(1, 0))
    vectors_of((tiny / "encoder.onnx").read_bytes(), scenes(1, 0), settings=KEPT)
    constants = {"kernel0": np.zeros((5, 3, 3, 3), np.float32)}
    open_engine("openvino", tiny / "encoder.onnx", settings=KEPT, constants=constants).close()
    assert not folder.exists()


def test_an_encoder_keeps_its_graph_and_says_where(folder, tiny):
    with edgessl.open(tiny, engine="openvino") as encoder:
        assert encoder.info()["cache"] == str(folder)
    assert len(list(folder.glob("*/*.blob"))) == 1


def test_a_folder_that_cannot_be_made_is_done_without_and_told(tmp_path, monkeypatch, tiny, scenes):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGESSL_CACHE", str(tmp_path / "file"))
    with edgessl.open(tiny, engine="openvino") as encoder:
        assert encoder.embed(scenes(2, 0)).shape == (2, 6)
        assert encoder.info()["cache"].startswith("off: ")


def test_a_folder_that_cannot_be_written_is_done_without_and_told(folder, monkeypatch, tiny):
    """A read-only disk; permissions would not do for a test that root runs."""
    monkeypatch.setattr("os.access", lambda *_: False)
    assert open_cache(tiny / "encoder.onnx") == (
        None,
        f"off: {folder} cannot be written; set EDGESSL_CACHE to a folder that can",
    )


def test_a_user_without_a_home_has_no_cache(monkeypatch, tiny):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("EDGESSL_CACHE")
    monkeypatch.setattr(Path, "home", homeless)
    assert open_cache(tiny / "encoder.onnx") == (None, "off: Could not determine home directory.")


def test_what_was_written_first_goes_when_it_is_too_much(tmp_path):
    for age, name in enumerate("cab"):
        file = tmp_path / name / "1.blob"
        file.parent.mkdir()
        file.write_bytes(bytes(100))
        os.utime(file, (1000 + age, 1000 + age))
    (tmp_path / "other").write_bytes(bytes(1000))
    prune(tmp_path, kept_bytes=250)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "other"]


def test_files_of_one_folder_go_one_by_one(tmp_path):
    """Two versions of OpenVINO, each with its own."""
    for age, name in enumerate(["a/1.blob", "a/2.blob", "b/1.blob", "a/3.blob"]):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(100))
        os.utime(file, (1000 + age, 1000 + age))
    prune(tmp_path, kept_bytes=150)
    assert [str(file.relative_to(tmp_path)) for file in sorted(tmp_path.rglob("*"))] == ["a", "a/3.blob"]
