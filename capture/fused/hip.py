"""What CuPy does not pass on of HIP: memory that peers see while a kernel runs, and how many blocks fit.

CuPy 13 and 14 answer an occupancy query on HIP with hipErrorUnknown (cupy_backends/hip/cupy_hip.h), and allocate
coarse-grained memory only. The calls are those of hip_runtime_api.h, ROCm 6 and 7.
"""

import ctypes
import weakref
from typing import Any

from ...schemas.errors import CaptureError, MissingError

_FINE_GRAINED = 0x1  # hipDeviceMallocFinegrained
_NAMES = (
    "libamdhip64.so",
    "libamdhip64.so.7",
    "libamdhip64.so.6",
)  # the first comes with ROCm's development files


class _Owner:
    """Who frees the memory: CuPy drops it with the last array."""


def fine_grained(cupy: Any, size: int, device: int) -> Any:
    """Return a CuPy pointer to `size` bytes on the current device, coherent between GPUs while a kernel runs.

    Raises CaptureError where HIP refuses.
    """
    hip, address = _library(), ctypes.c_void_p()
    refused = hip.hipExtMallocWithFlags(ctypes.byref(address), ctypes.c_size_t(size), _FINE_GRAINED)
    if refused:
        raise CaptureError(
            f"hipExtMallocWithFlags refused {size} bytes of fine-grained memory (error {refused}): ask for a "
            "smaller kernel, or free the GPU's memory"
        )
    owner = _Owner()
    weakref.finalize(owner, hip.hipFree, address).atexit = False  # HIP may be gone by then
    return cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(address.value, size, owner, device), 0)


def blocks_a_unit(function: int, threads: int) -> int:
    """Return how many blocks of `threads` of a loaded kernel (a hipFunction_t) one compute unit holds at once.

    Raises CaptureError where HIP refuses.
    """
    found = ctypes.c_int()
    ask = _library().hipModuleOccupancyMaxActiveBlocksPerMultiprocessor
    if refused := ask(ctypes.byref(found), ctypes.c_void_p(function), threads, ctypes.c_size_t(0)):
        raise CaptureError(
            f"HIP does not say how many blocks fit (error {refused}): check that ROCm fits the driver"
        )
    return found.value


def _library() -> ctypes.CDLL:
    for name in _NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise MissingError(
        f"none of {', '.join(_NAMES)} can be loaded: add ROCm's library folder (/opt/rocm/lib) to LD_LIBRARY_PATH"
    )
