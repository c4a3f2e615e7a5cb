"""The CUDA runtime by ctypes: every call checked, and everything given back."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest

from edgessl.errors import EngineError
from edgessl.runtimes.engines import cuda as module
from edgessl.runtimes.engines.cuda import Cuda


@pytest.fixture(params=[True, False], ids=["integrated", "discrete"])
def library(request, fakes):
    return fakes.cudart.FakeCudart(integrated=request.param)


def test_says_what_the_device_is(library):
    device = Cuda(library)
    assert (device.device, device.compute_capability) == ("Orin", "8.7")
    assert (device.runtime, device.driver, device.integrated) == ("12.6", "12.6", library.integrated)


def test_bytes_go_to_the_device_and_come_back(library):
    device = Cuda(library)
    stream, buffer = device.stream(), device.buffer(7 * 4)
    values = np.arange(7, dtype=np.float32) / 3
    buffer.view("float32", (7,))[:] = values
    buffer.upload(28, stream)
    stream.synchronize()
    seen = library.view(buffer.address, "float32", (7,))
    np.testing.assert_array_equal(seen, values)
    seen *= 2
    buffer.download(28, stream)
    stream.synchronize()
    np.testing.assert_array_equal(buffer.view("float32", (7,)), values * 2)
    buffer.close()
    stream.close()


def test_shared_memory_is_never_copied(fakes):
    library = fakes.cudart.FakeCudart(integrated=True)
    device = Cuda(library)
    stream, buffer = device.stream(), device.buffer(100)
    buffer.upload(100, stream)
    buffer.download(100, stream)
    assert "cudaMemcpyAsync" not in library.calls
    assert "cudaMalloc" not in library.calls


@pytest.mark.parametrize("size_bytes", [0, 1, 255, 4097])
def test_addresses_are_aligned(library, size_bytes):
    assert Cuda(library).buffer(size_bytes).address % 256 == 0


def test_everything_is_given_back_and_closing_twice_is_allowed(library):
    device = Cuda(library)
    stream, buffer = device.stream(), device.buffer(64)
    graph = stream.record(lambda: buffer.upload(64, stream))
    for thing in (graph, buffer, stream) * 2:
        thing.close()
    assert library.live == 0


def test_a_graph_repeats_what_was_recorded(fakes):
    library = fakes.cudart.FakeCudart()
    device, done = Cuda(library), []
    stream = device.stream()
    graph = stream.record(lambda: library.enqueue(stream.handle, lambda: done.append(1)))
    stream.synchronize()
    assert done == []
    for _ in range(3):
        graph.launch(stream)
    stream.synchronize()
    assert done == [1, 1, 1]


@pytest.mark.parametrize("spoiled", [True, False])
def test_a_recording_that_fails_leaves_the_stream_usable(fakes, spoiled):
    library = fakes.cudart.FakeCudart()
    stream = Cuda(library).stream()

    def work() -> None:
        if spoiled:
            library.spoiled.add(stream.handle)
        raise EngineError("cannot be recorded")

    with pytest.raises(EngineError, match="cannot be recorded"):
        stream.record(work)
    stream.synchronize()
    stream.close()
    assert library.live == 0


@pytest.mark.parametrize("function", ["cudaHostAlloc", "cudaMalloc"])
def test_memory_that_is_not_there_is_an_error_in_cudas_words_and_nothing_leaks(fakes, function):
    library = fakes.cudart.FakeCudart(integrated=False)
    device = Cuda(library)
    library.failing[function] = fakes.cudart.OUT_OF_MEMORY
    with pytest.raises(EngineError, match=rf"{function} failed: out of memory \(error 2\)"):
        device.buffer(64)
    assert library.live == 0
    assert library.last_error == 0, "the next check would find it again"


def test_no_driver_says_what_to_type(fakes):
    library = fakes.cudart.FakeCudart()
    library.failing["cudaDeviceGetAttribute"] = fakes.cudart.INSUFFICIENT_DRIVER
    with pytest.raises(EngineError, match=r"driver version is insufficient.*--engine onnxruntime"):
        Cuda(library)


def test_an_old_library_is_named(fakes):
    library = fakes.cudart.FakeCudart()
    library.missing.add("cudaGraphInstantiateWithFlags")
    stream = Cuda(library).stream()
    with pytest.raises(EngineError, match=r"no cudaGraphInstantiateWithFlags; CUDA 11.4"):
        stream.record(lambda: None)


def test_an_array_larger_than_its_buffer_is_refused(library):
    buffer = Cuda(library).buffer(64)
    with pytest.raises(EngineError, match="takes 68 bytes, and this buffer has 64"):
        buffer.view("float32", (17,))
    buffer.close()
    with pytest.raises(EngineError, match="closed"):
        buffer.view("float32", (1,))


def test_no_library_names_what_was_tried(monkeypatch):
    monkeypatch.setattr(module, "_candidates", lambda: iter(["libcudart.so.nowhere"]))
    with pytest.raises(EngineError, match=r"libcudart.so.nowhere.*--engine onnxruntime"):
        module.load_cudart()


def test_a_real_library_has_every_function_that_is_called():
    try:
        library = module.load_cudart()
    except EngineError:
        pytest.skip("no libcudart here")
    names = set(re.findall(r'"(cuda[A-Z]\w+)"', Path(module.__file__).read_text())) | {"cudaGetErrorString"}
    assert len(names) > 15
    assert [name for name in names if not hasattr(library, name)] == []
    assert library.cudaGetErrorString(ctypes.c_int(2)) == b"out of memory"
