"""As much of CuPy as the GPU backends use, over a GPU made of processes (null_gpu.h): no kernel is changed for it.

What it shows: results, protocol, flags, records and anchors of the sources' GPU path, threads of a block included,
and that gpu.py hands over what they expect. What it cannot show: that a GPU behaves so, nor any time.
"""

import ctypes
import mmap
import os
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np

__version__ = "null"
DEVICES = 4
HEADER = Path(__file__).with_name("null_gpu.h")


class CUDARuntimeError(RuntimeError):
    status = 0


class Array:
    """Device memory: shared between this process and those of the blocks."""

    def __init__(self, content):
        self.memory = mmap.mmap(-1, max(content.nbytes, 8))
        self.content = np.frombuffer(self.memory, content.dtype, content.size).reshape(content.shape)
        self.content[...] = content
        self.data = SimpleNamespace(ptr=self.content.ctypes.data)

    def get(self):
        return self.content.copy()

    def reshape(self, *shape):
        return Part(self.content.reshape(*shape))


class Part:
    def __init__(self, content):
        self.content = content

    def __getitem__(self, index):
        return Part(self.content[index])

    def get(self):
        return self.content.copy()


class Device:
    """The device that launches go to, and that memory does not matter to."""

    stack: ClassVar = [0]
    running: ClassVar = {number: [] for number in range(DEVICES)}

    def __init__(self, number):
        self.number = number

    def __enter__(self):
        self.stack.append(self.number)

    def __exit__(self, *_):
        self.stack.pop()

    def synchronize(self):
        for process in self.running[self.number]:
            _, status = os.waitpid(process, 0)
            assert status == 0
        self.running[self.number].clear()


class RawModule:
    """Compile `code` for the CPU; a warp has as few lanes as the null GPU's."""

    def __init__(self, *, code, options, enable_cooperative_groups):
        code = code.replace("#define FUSED_WARP 64", "#define FUSED_WARP 2")
        with tempfile.TemporaryDirectory() as folder:
            source, built = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
            source.write_text(code)
            command = [
                "g++",
                "-O1",
                *options,
                "-D__HIP__",
                "-include",
                HEADER,
                "-shared",
                "-fPIC",
                "-pthread",
                "-w",
            ]
            subprocess.run([*command, source, "-o", built], check=True)
            self.library = ctypes.CDLL(str(built))

    def get_function(self, name):
        return Kernel(self.library, getattr(self.library, name))


class Kernel:
    def __init__(self, library, function):
        self.library = library
        self.function = function
        self.kernel = SimpleNamespace(ptr=0)

    def __call__(self, grid, block, arguments):
        device, (blocks,), (threads,) = Device.stack[-1], grid, block
        words = [a.data.ptr if isinstance(a, Array) else int(a) for a in arguments]
        processes = (ctypes.c_int * blocks)()
        given = (ctypes.c_uint64 * 6)(*words)
        self.library.null_launch(self.function, device, blocks, threads, given, processes)
        Device.running[device].extend(processes)


def asarray(content):
    return Array(np.ascontiguousarray(content))


def zeros(shape, dtype):
    return Array(np.zeros(shape, dtype))


cuda = SimpleNamespace(
    Device=Device,
    compiler=SimpleNamespace(CompileException=subprocess.CalledProcessError),
    driver=SimpleNamespace(
        CUDADriverError=CUDARuntimeError,
        occupancyMaxActiveBlocksPerMultiprocessor=lambda kernel, threads, shared: 4,
    ),
    runtime=SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        is_hip=False,
        getDeviceCount=lambda: DEVICES,
        deviceCanAccessPeer=lambda here, there: 1,
        deviceEnablePeerAccess=lambda there: None,
        runtimeGetVersion=lambda: 0,
        driverGetVersion=lambda: 0,
        getDeviceProperties=lambda device: {
            "name": b"null GPU",
            "uuid": bytes([device] * 16),
            "multiProcessorCount": 8,
            "totalGlobalMem": 2**30,
        },
    ),
)
