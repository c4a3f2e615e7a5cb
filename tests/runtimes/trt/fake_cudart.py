"""A libcudart whose device is this machine's memory: enough of the runtime's binary interface to be called by ctypes.

Work put into a stream runs when the stream is synchronized and no sooner, so that a forgotten wait shows; device memory is
poisoned, so that a forgotten copy shows; and a freed address is no address.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

INSUFFICIENT_DRIVER, ILLEGAL_ADDRESS, INVALID_VALUE, CAPTURE_INVALID, OUT_OF_MEMORY = 35, 700, 1, 901, 2
_TEXTS = {
    INSUFFICIENT_DRIVER: b"CUDA driver version is insufficient for CUDA runtime version",
    ILLEGAL_ADDRESS: b"an illegal memory access was encountered",
    INVALID_VALUE: b"invalid argument",
    CAPTURE_INVALID: b"operation failed due to a previous error during capture",
    OUT_OF_MEMORY: b"out of memory",
}


class DeviceFault(Exception):  # noqa: N818, no error of ours
    """Work on the device failed; the stream's next synchronization tells."""


class FakeCudart:
    Fault = DeviceFault

    def __init__(self, *, integrated: bool = True, name: str = "Orin", capability: tuple[int, int] = (8, 7)) -> None:
        self.integrated = integrated
        self.name = name
        self.capability = capability
        self.failing: dict[str, int] = {}  # function -> the error that it returns
        self.missing: set[str] = set()
        self.calls: list[str] = []
        self.memory: dict[int, ctypes.Array] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.recording: dict[int, list[Callable[[], None]]] = {}
        self.spoiled: set[int] = set()
        self.last_error = 0
        self._next = 16

    def __getattr__(self, name):
        if not name.startswith("cuda") or name in self.missing:
            raise AttributeError(name)
        function = object.__getattribute__(self, f"_{name}")

        def call(*arguments):
            self.calls.append(name)
            code = self.failing.get(name, 0) or function(*arguments) or 0
            self.last_error = code or self.last_error
            return code

        return function if name in ("cudaGetErrorString", "cudaGetLastError") else call

    @property
    def live(self) -> int:
        """Everything that was taken and not given back."""
        return len(self.memory) + len(self.streams) + len(self.graphs)

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        (self.recording if stream in self.recording else self.streams)[stream].append(work)

    def view(self, address: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """Memory as the device sees it."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        for start, block in self.memory.items():
            if start <= address and address + size <= start + len(block):
                return np.frombuffer(block, np.uint8, size, address - start).view(dtype).reshape(shape)
        raise DeviceFault(f"{address:#x} + {size} is no memory")

    def _cudaGetErrorString(self, code):  # noqa: N802
        return _TEXTS.get(code.value, b"unrecognized error code")

    def _cudaGetLastError(self):  # noqa: N802
        code, self.last_error = self.last_error, 0
        return code

    def _cudaDeviceGetAttribute(self, out, attribute, device):  # noqa: N802
        out._obj.value = {75: self.capability[0], 76: self.capability[1], 18: int(self.integrated)}[attribute.value]

    def _cudaGetDeviceProperties(self, out, device):  # noqa: N802
        out.value = self.name.encode()

    def _cudaRuntimeGetVersion(self, out):  # noqa: N802
        out._obj.value = 12060

    def _cudaDriverGetVersion(self, out):  # noqa: N802
        out._obj.value = 12060

    def _cudaStreamCreateWithFlags(self, out, flags):  # noqa: N802
        assert flags.value == 1
        out._obj.value = self._handle()
        self.streams[out._obj.value] = []

    def _cudaStreamDestroy(self, stream):  # noqa: N802
        del self.streams[stream.value]

    def _cudaStreamSynchronize(self, stream):  # noqa: N802
        if stream.value in self.recording:
            return CAPTURE_INVALID
        work, self.streams[stream.value] = self.streams[stream.value], []
        try:
            for step in work:
                step()
        except DeviceFault:
            return ILLEGAL_ADDRESS
        return 0

    def _cudaStreamBeginCapture(self, stream, mode):  # noqa: N802
        assert mode.value == 1
        self.recording[stream.value] = []

    def _cudaStreamEndCapture(self, stream, out):  # noqa: N802
        work = self.recording.pop(stream.value)
        if stream.value in self.spoiled:
            self.spoiled.discard(stream.value)
            return CAPTURE_INVALID
        out._obj.value = self._handle()
        self.graphs[out._obj.value] = work
        return 0

    def _cudaGraphInstantiateWithFlags(self, out, graph, flags):  # noqa: N802
        out._obj.value = self._handle()
        self.graphs[out._obj.value] = list(self.graphs[graph.value])

    def _cudaGraphDestroy(self, graph):  # noqa: N802
        del self.graphs[graph.value]

    def _cudaGraphExecDestroy(self, graph):  # noqa: N802
        del self.graphs[graph.value]

    def _cudaGraphLaunch(self, graph, stream):  # noqa: N802
        self.streams[stream.value] += self.graphs[graph.value]

    def _cudaHostAlloc(self, out, size, flags):  # noqa: N802
        assert flags.value == 2
        out._obj.value = self._allocate(size.value)

    def _cudaHostGetDevicePointer(self, out, host, flags):  # noqa: N802
        if host.value not in self.memory:
            return INVALID_VALUE
        out._obj.value = host.value
        return 0

    def _cudaMalloc(self, out, size):  # noqa: N802
        out._obj.value = self._allocate(size.value)

    def _cudaFreeHost(self, address):  # noqa: N802
        return self._free(address.value)

    def _cudaFree(self, address):  # noqa: N802
        return self._free(address.value)

    def _cudaMemcpyAsync(self, to, source, size, kind, stream):  # noqa: N802
        assert kind.value in (1, 2)
        target, origin, count = to.value, source.value, size.value

        def copy() -> None:
            self.view(target, "uint8", (count,))[:] = self.view(origin, "uint8", (count,))

        self.enqueue(stream.value, copy)

    def _allocate(self, size: int) -> int:
        block = (ctypes.c_uint8 * (size + 256))()
        start = ctypes.addressof(block)
        aligned = start + -start % 256
        inside = (ctypes.c_uint8 * size).from_buffer(block, aligned - start)
        ctypes.memset(aligned, 0xA5, size)
        self.memory[aligned] = inside
        return aligned

    def _free(self, address: int) -> int:
        return 0 if self.memory.pop(address, None) is not None else INVALID_VALUE

    def _handle(self) -> int:
        self._next += 16
        return self._next
