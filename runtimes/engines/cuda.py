"""The CUDA runtime by ctypes: memory, one stream, and recorded graphs. JetPack and every TensorRT have the library.

Only calls whose binary interface is the same from CUDA 11.4 to 13 are made, and each of them is checked.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.errors import EngineError

# Values of the CUDA runtime's enumerations.
_HOST_MAPPED = 2
_TO_DEVICE, _TO_HOST = 1, 2
_STREAM_NON_BLOCKING = 1
_CAPTURE_THREAD_LOCAL = 1
_ATTRIBUTE_INTEGRATED, _ATTRIBUTE_MAJOR, _ATTRIBUTE_MINOR = 18, 75, 76
_PROPERTIES_BYTES = 1 << 14  # more than any version's cudaDeviceProp, which begins with `char name[256]`
_SONAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")


class Cuda:
    """The CUDA runtime on device 0; every call that fails is an `EngineError` with CUDA's own words.

    Args:
        library: A loaded libcudart; found on this machine when it is None.

    Raises:
        EngineError: There is no libcudart here, or no device that it can use.
    """

    def __init__(self, library: Any = None) -> None:
        self._library = load_cudart() if library is None else library
        try:
            major, minor = self._attribute(_ATTRIBUTE_MAJOR), self._attribute(_ATTRIBUTE_MINOR)
        except EngineError as error:
            raise EngineError(f"{error}; where there is no NVIDIA GPU run with --engine onnxruntime") from error
        self.compute_capability = f"{major}.{minor}"
        #: The GPU shares the memory of the CPU, as on Jetson.
        self.integrated = bool(self._attribute(_ATTRIBUTE_INTEGRATED))
        properties = ctypes.create_string_buffer(_PROPERTIES_BYTES)
        self.call("cudaGetDeviceProperties", properties, 0)
        self.device = properties.value.decode(errors="replace")
        self.runtime, self.driver = (self._version(f"cuda{which}GetVersion") for which in ("Runtime", "Driver"))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the runtime.

        Raises:
            EngineError: It returned an error.
        """
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise EngineError(f"this libcudart has no {name}; CUDA 11.4 or newer is needed") from error
        code = int(function(*arguments))
        if code:
            self._library.cudaGetLastError()  # else the next check would find this error again
            text = self._library.cudaGetErrorString(ctypes.c_int(code)) or b"unknown"
            raise EngineError(f"CUDA: {name} failed: {text.decode(errors='replace')} (error {code})")

    def release(self, name: str, handle: ctypes.c_void_p) -> None:
        """Give something back; where that fails the device is lost, which the call that lost it has told."""
        getattr(self._library, name)(handle)

    def stream(self) -> Stream:
        """A stream of its own: the default one waits for everything else on the device."""
        return Stream(self)

    def buffer(self, size_bytes: int) -> Buffer:
        """Memory that host and device see, of at least one byte."""
        return Buffer(self, size_bytes)

    def _attribute(self, attribute: int) -> int:
        value = ctypes.c_int()
        self.call("cudaDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), ctypes.c_int(0))
        return value.value

    def _version(self, name: str) -> str:
        value = ctypes.c_int()
        self.call(name, ctypes.byref(value))
        return f"{value.value // 1000}.{value.value % 1000 // 10}"


class Stream:
    """A queue of work on the device. Closing twice is allowed."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        handle = ctypes.c_void_p()
        cuda.call("cudaStreamCreateWithFlags", ctypes.byref(handle), ctypes.c_uint(_STREAM_NON_BLOCKING))
        self.handle = int(handle.value or 0)

    def synchronize(self) -> None:
        """Wait until everything in the queue is done."""
        self._cuda.call("cudaStreamSynchronize", ctypes.c_void_p(self.handle))

    def record(self, work: Callable[[], None]) -> Graph:
        """What `work` puts into the queue, as a graph; it is recorded and not run.

        Raises:
            EngineError: Some of it cannot be recorded. The stream stays usable.
        """
        cuda, stream, graph = self._cuda, ctypes.c_void_p(self.handle), ctypes.c_void_p()
        cuda.call("cudaStreamBeginCapture", stream, ctypes.c_int(_CAPTURE_THREAD_LOCAL))
        try:
            work()
        except BaseException:
            self._abandon()
            raise
        cuda.call("cudaStreamEndCapture", stream, ctypes.byref(graph))
        try:
            return Graph(cuda, graph)
        finally:
            cuda.release("cudaGraphDestroy", graph)

    def close(self) -> None:
        """Give the stream back."""
        handle, self.handle = self.handle, 0
        if handle:
            self._cuda.release("cudaStreamDestroy", ctypes.c_void_p(handle))

    def _abandon(self) -> None:
        graph = ctypes.c_void_p()
        try:
            self._cuda.call("cudaStreamEndCapture", ctypes.c_void_p(self.handle), ctypes.byref(graph))
        except EngineError:
            return  # a recording that went wrong ends with an error, and there is no graph
        if graph.value:
            self._cuda.release("cudaGraphDestroy", graph)


class Graph:
    """Recorded work that is put into a stream by one call. Closing twice is allowed."""

    def __init__(self, cuda: Cuda, graph: ctypes.c_void_p) -> None:
        self._cuda = cuda
        self._handle = ctypes.c_void_p()
        # cudaGraphInstantiate itself has other arguments in CUDA 11 than in CUDA 12.
        cuda.call("cudaGraphInstantiateWithFlags", ctypes.byref(self._handle), graph, ctypes.c_ulonglong(0))

    def launch(self, stream: Stream) -> None:
        """Put the work into `stream`."""
        self._cuda.call("cudaGraphLaunch", self._handle, ctypes.c_void_p(stream.handle))

    def close(self) -> None:
        """Forget the work."""
        handle, self._handle = self._handle, ctypes.c_void_p()
        if handle.value:
            self._cuda.release("cudaGraphExecDestroy", handle)


class Buffer:
    """Bytes that the host writes or reads as a numpy array, and the device at `address`. Closing twice is allowed.

    Where host and device share their memory both are the same bytes, and nothing is ever copied. Elsewhere the host's
    side is pinned memory, and `upload` and `download` copy.

    Attributes:
        address: What the device is given; aligned to 256 bytes, as TensorRT asks for.
    """

    def __init__(self, cuda: Cuda, size_bytes: int) -> None:
        self._cuda = cuda
        self.size_bytes = max(size_bytes, 1)
        self._host, self._device = ctypes.c_void_p(), ctypes.c_void_p()
        self._owns_device = False
        size = ctypes.c_size_t(self.size_bytes)
        cuda.call("cudaHostAlloc", ctypes.byref(self._host), size, ctypes.c_uint(_HOST_MAPPED))
        try:
            if cuda.integrated:
                cuda.call("cudaHostGetDevicePointer", ctypes.byref(self._device), self._host, ctypes.c_uint(0))
            else:
                cuda.call("cudaMalloc", ctypes.byref(self._device), size)
                self._owns_device = True
            self.address = int(self._device.value or 0)
            if not self.address or self.address % 256:
                raise EngineError(f"CUDA gave memory at {self.address:#x}, which is not aligned to 256 bytes")
        except BaseException:
            self.close()
            raise

    def view(self, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """The first bytes of the host's side as an array, which must not be used after `close`."""
        if not self._host.value:
            raise EngineError("this buffer is closed")
        size_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if size_bytes > self.size_bytes:
            raise EngineError(f"{dtype} {shape} takes {size_bytes} bytes, and this buffer has {self.size_bytes}")
        memory = (ctypes.c_uint8 * size_bytes).from_address(self._host.value)
        array: NDArray[Any] = np.frombuffer(memoryview(memory), np.dtype(dtype))
        return array.reshape(shape)

    def upload(self, size_bytes: int, stream: Stream) -> None:
        """Host to device, in the stream's order."""
        self._copy(self._device, self._host, size_bytes, _TO_DEVICE, stream)

    def download(self, size_bytes: int, stream: Stream) -> None:
        """Device to host, in the stream's order."""
        self._copy(self._host, self._device, size_bytes, _TO_HOST, stream)

    def close(self) -> None:
        """Give the memory back."""
        host, device, owns = self._host, self._device, self._owns_device
        self._host, self._device, self._owns_device = ctypes.c_void_p(), ctypes.c_void_p(), False
        if owns:
            self._cuda.release("cudaFree", device)
        if host.value:
            self._cuda.release("cudaFreeHost", host)

    def _copy(self, to: ctypes.c_void_p, source: ctypes.c_void_p, size_bytes: int, kind: int, stream: Stream) -> None:
        if self._owns_device:
            size, queue = ctypes.c_size_t(size_bytes), ctypes.c_void_p(stream.handle)
            self._cuda.call("cudaMemcpyAsync", to, source, size, ctypes.c_int(kind), queue)


def load_cudart() -> Any:
    """The CUDA runtime of this machine.

    Raises:
        EngineError: There is none.
    """
    tried = []
    for name in _candidates():
        try:
            library = ctypes.CDLL(name)
        except OSError as error:
            tried.append(str(error))
            continue
        library.cudaGetErrorString.restype = ctypes.c_char_p
        return library
    raise EngineError(
        f"there is no CUDA runtime (libcudart.so) on this machine: {'; '.join(tried)}. On Jetson type: sudo apt install "
        "nvidia-jetpack; elsewhere install the CUDA toolkit, or run with --engine onnxruntime"
    )


def _candidates() -> Iterator[str]:
    found = ctypes.util.find_library("cudart")
    if found:
        yield found
    folder = Path("/usr/local/cuda/lib64")
    yield from (str(file) for file in sorted(folder.glob("libcudart.so*"), reverse=True))
    for entry in sys.path:  # where pip puts NVIDIA's wheels
        yield from (str(file) for file in sorted(Path(entry, "nvidia").glob("*/lib/libcudart.so.*"), reverse=True))
    yield from _SONAMES
