"""As much of CuPy as the GPU backends use, as strict as CuPy is, over a GPU made of threads (null_gpu.h).

The kernels are compiled as they are, by g++: their CUDA path, the PTX in C++'s words, or their HIP path. What it
shows: results, protocol, flags, records, anchors and aborts of that path, threads of a block included, and that
gpu.py hands over what CuPy and the kernels expect. What it cannot show: that a GPU behaves so, nor any time.

`NULL_GPU_FLAGS` go to the compiler: -fsanitize=thread or =address, in a process that has preloaded their library;
-DNULL_RELAXED takes the order out of flags.
"""

import ctypes
import hashlib
import os
import re
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np

__version__ = "null"
DEVICES, MULTIPROCESSORS, BLOCKS_EACH = 4, 8, 4
HEADER = Path(__file__).with_name("null_gpu.h")
VENDORS = {"nvidia": ("-D__CUDACC__", "-DNULL_WARP=32"), "amd": ("-D__HIP__", "-DNULL_WARP=64")}
_ASM = re.compile(r'asm volatile\("([^"]*)"\s*:(.*?)\);', re.DOTALL)
_OPERAND = re.compile(r'"=?[lr]"\((\w+)\)')
_SHARED = re.compile(r"__shared__ (\w+) (\w+);")
PTX = {
    "mov.u64 %0, %%clock64;": "ptx_clock64({0})",
    "mov.u64 %0, %%globaltimer;": "ptx_globaltimer({0})",
    "mov.u32 %0, %%smid;": "ptx_smid({0})",
    "st.release.sys.u64 [%0], %1;": "ptx_store_release({0}, {1})",
    "ld.acquire.sys.u64 %0, [%1];": "ptx_load_acquire({0}, {1})",
    "st.v2.u64 [%0], {%1, %2};": "ptx_store_two({0}, 0, {1}, {2})",
    "st.v2.u64 [%0+16], {%1, %2};": "ptx_store_two({0}, 16, {1}, {2})",
}


def in_plain_cpp(code):
    """Put the instructions and the block's shared variables in C++'s words. An instruction unknown here fails."""
    numbers = iter(range(16))
    code = _ASM.sub(lambda m: PTX[m[1]].format(*_OPERAND.findall(m[2])) + ";", code)
    return _SHARED.sub(lambda m: f"{m[1]} &{m[2]} = null_shared({m[1]}, {next(numbers)});", code)


class CUDARuntimeError(RuntimeError):
    def __init__(self, status):
        super().__init__(f"null error {status}")
        self.status = status


class CompileException(Exception):
    pass


class OutOfMemoryError(MemoryError):
    pass


class ndarray:
    """Device memory, of the device that was current when it was made: a plain array of this process."""

    def __init__(self, shape, dtype=float, memptr=None):
        self.device = Device.current()
        self.owner = memptr
        if memptr is None:
            self.content = np.zeros(shape, dtype)
        else:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            there = (ctypes.c_char * size).from_address(memptr.mem.ptr)
            self.content = np.frombuffer(there, dtype).reshape(shape)
        self.data = SimpleNamespace(ptr=self.content.ctypes.data)

    def set(self, content):
        assert content.shape == self.content.shape
        assert content.dtype == self.content.dtype
        self.content[...] = content

    def get(self):
        for device in range(DEVICES):
            assert not Device.running[device], (
                "copied while a kernel runs: the copy waits, and so may the kernel"
            )
        return self.content.copy()

    def reshape(self, *shape):
        return self._view(self.content.reshape(*shape))

    def __getitem__(self, index):
        return self._view(self.content[index])

    def _view(self, content):
        view = object.__new__(ndarray)
        view.device, view.content, view.data = self.device, content, SimpleNamespace(ptr=content.ctypes.data)
        return view


class Device:
    """The device that launches go to."""

    stack: ClassVar = [0]
    running: ClassVar = {number: [] for number in range(DEVICES)}

    def __init__(self, number):
        self.number = number

    @classmethod
    def current(cls):
        return cls.stack[-1]

    def __enter__(self):
        self.stack.append(self.number)

    def __exit__(self, *_):
        self.stack.pop()

    def synchronize(self):
        _finish(self.number)


def _finish(device, stream=None):
    """Wait for the launches on a device, or on one of its streams."""
    done = [launch for launch in Device.running[device] if stream in (None, launch[2])]
    for library, launch, _ in done:
        library.null_finish(ctypes.c_void_p(launch))
    Device.running[device] = [launch for launch in Device.running[device] if launch not in done]


class Stream:
    """Launches of one stream run one after the other, of several at the same time."""

    def __init__(self, *, non_blocking=False):
        assert non_blocking, "a blocking stream waits for the default one"
        self.device = Device.current()

    def synchronize(self):
        _finish(self.device, self)


def _built(code, flags):
    """Compile and load; what was compiled before in this session of tests is loaded again."""
    digest = hashlib.sha256("\0".join((code, *flags)).encode() + HEADER.read_bytes()).hexdigest()
    built = Path(os.environ["XDG_CACHE_HOME"]) / "null_gpu" / f"{digest[:16]}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        source, partial = built.with_suffix(f".{os.getpid()}.cpp"), built.with_suffix(f".{os.getpid()}.so")
        source.write_text(code)
        link = ["-shared", "-fPIC", "-pthread", "-Wl,-soname,libamdhip64.so"]
        command = ["g++", "-O1", "-g", "-w", *flags, "-include", HEADER, *link, source, "-o", partial]
        plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        done = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CompileException(done.stderr)
        partial.rename(built)
    library = ctypes.CDLL(str(built), ctypes.RTLD_GLOBAL)
    library.null_begin.restype = ctypes.c_void_p
    return library


class Event:
    """Its time means nothing here."""

    def record(self):
        self.device = Device.current()
        self.time_ns = time.perf_counter_ns()


def get_elapsed_time(start, end):
    assert start.device == end.device
    assert not Device.running[end.device], "asked for before the launch has ended"
    return (end.time_ns - start.time_ns) / 1e6


class RawModule:
    """Compile `code` for the CPU."""

    vendor = "nvidia"

    def __init__(self, *, code, options=(), enable_cooperative_groups=False):
        assert isinstance(code, str)
        assert isinstance(options, tuple)
        if enable_cooperative_groups and runtime.is_hip:
            raise ValueError("Cooperative groups is not supported in HIP.")
        self.cooperative = enable_cooperative_groups
        sanitizer = tuple(os.environ.get("NULL_GPU_FLAGS", "").split())
        self.library = _built(
            in_plain_cpp(code),
            (*options, *VENDORS[self.vendor], *sanitizer, f"-DNULL_BLOCKS_EACH={BLOCKS_EACH}"),
        )

    def get_function(self, name):
        return RawKernel(self.library, getattr(self.library, name), self.cooperative)


class RawKernel:
    def __init__(self, library, function, cooperative):
        self.kernel = Function(library, function)
        self.cooperative = cooperative

    def __call__(self, grid, block, args, *, shared_mem=0):
        self.kernel(grid, block, args, shared_mem, enable_cooperative_groups=self.cooperative)


class Function:
    def __init__(self, library, function):
        self.library = library
        self.function = function
        self.ptr = 1

    def __call__(self, grid, block, args, shared_mem=0, stream=None, enable_cooperative_groups=False):
        (blocks,), (threads,), device = grid, block, Device.current()
        assert isinstance(args, tuple)
        fit = MULTIPROCESSORS * BLOCKS_EACH
        assert not enable_cooperative_groups or blocks <= fit, "CuPy would make the grid smaller, and warn"
        streams = [other for _, _, other in Device.running[device]]
        assert stream not in streams, "a stream's second launch begins when its first has ended"
        assert stream is None or stream.device == device
        given = (ctypes.c_uint64 * 6)(*(self._word(argument, device) for argument in args))
        launch = self.library.null_begin(self.function, device, blocks, threads, given)
        Device.running[device].append((self.library, launch, stream))

    @staticmethod
    def _word(argument, device):
        if isinstance(argument, ndarray):
            assert argument.device == device or (device, argument.device) in runtime.connected
            return argument.data.ptr
        assert type(argument) in (np.int64, np.uint64), "a parameter of 8 bytes"
        return int(argument) % 2**64


def asarray(content):
    there = ndarray(content.shape, content.dtype)
    there.set(content)
    return there


def zeros(shape, dtype=float):
    return ndarray(shape, dtype)


class UnownedMemory:
    def __init__(self, ptr, size, owner, device_id=-1):
        self.ptr, self.size, self.owner, self.device_id = ptr, size, owner, device_id


class MemoryPointer:
    def __init__(self, mem, offset):
        self.mem = mem
        self.ptr = mem.ptr + offset


def _occupancy(func, threads, shared):
    if runtime.is_hip:
        raise CUDARuntimeError(999)  # hipErrorUnknown, as CuPy's HIP build answers
    return BLOCKS_EACH


def _enable_peer_access(there):
    pair = Device.current(), there
    if pair in runtime.connected:
        raise CUDARuntimeError(704)
    runtime.connected.add(pair)


runtime = SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    is_hip=False,
    connected=set(),
    getDeviceCount=lambda: DEVICES,
    deviceCanAccessPeer=lambda here, there: 1,
    deviceEnablePeerAccess=_enable_peer_access,
    deviceGetAttribute=lambda attribute, device: {10017: 1_000_000}[attribute],  # kHz: its ticks are ns
    runtimeGetVersion=lambda: 0,
    driverGetVersion=lambda: 0,
    getDeviceProperties=lambda device: {
        "name": b"null GPU",
        "uuid": bytes([device] * 16),
        "multiProcessorCount": MULTIPROCESSORS,
        "totalGlobalMem": 2**30,
    },
)
cuda = SimpleNamespace(
    Device=Device,
    Event=Event,
    get_elapsed_time=get_elapsed_time,
    MemoryPointer=MemoryPointer,
    Stream=Stream,
    UnownedMemory=UnownedMemory,
    compiler=SimpleNamespace(CompileException=CompileException),
    driver=SimpleNamespace(
        CUDADriverError=CUDARuntimeError,
        occupancyMaxActiveBlocksPerMultiprocessor=_occupancy,
    ),
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    runtime=runtime,
)
