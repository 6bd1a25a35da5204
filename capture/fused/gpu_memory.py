"""A rank's arrays in its GPU's memory, where peers write them while a kernel runs."""

import ctypes
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from ...schemas.errors import CaptureError, MissingError
from .job import rank_arrays
from .spec import Arrays, FusedKernel

_FINE_GRAINED = 0x1  # hipDeviceMallocFinegrained: peers see writes while a kernel runs
_HIP = (
    "libamdhip64.so",
    "libamdhip64.so.7",
    "libamdhip64.so.6",
)  # the first comes with ROCm's development files


def allocate(cupy: Any, spec: FusedKernel, inputs: Arrays, device: int) -> dict[str, Any]:
    """Put a rank's arrays into its device's memory, as words or floats, by name."""
    arrays: dict[str, Any] = {
        **rank_arrays(spec),
        **inputs,
        **{name: np.zeros(words, np.float32) for name, words in spec.scratch().items()},
    }
    with cupy.cuda.Device(device):
        return {name: _upload(cupy, array, device) for name, array in arrays.items()}


def _upload(cupy: Any, array: npt.NDArray[Any], device: int) -> Any:
    plain = array.reshape(-1) if array.dtype.names is None else array.reshape(-1).view(np.uint64)
    if not cupy.cuda.runtime.is_hip:
        return cupy.asarray(plain)
    there = cupy.ndarray(plain.shape, plain.dtype, memptr=_fine_grained(cupy, plain.nbytes, device))
    there.set(plain)
    return there


class _Owner:
    """Who frees the memory: CuPy drops it with the last array."""


def _fine_grained(cupy: Any, size: int, device: int) -> Any:
    """Allocate memory on the current AMD device that is coherent between GPUs while a kernel runs."""
    hip, address = _hip(), ctypes.c_void_p()
    refused = hip.hipExtMallocWithFlags(ctypes.byref(address), ctypes.c_size_t(size), _FINE_GRAINED)
    if refused:
        raise CaptureError(
            f"hipExtMallocWithFlags refused {size} bytes of fine-grained memory (error {refused}): ask for a "
            "smaller kernel, or free the GPU's memory"
        )
    owner = _Owner()
    weakref.finalize(owner, hip.hipFree, address)
    return cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(address.value, size, owner, device), 0)


def _hip() -> ctypes.CDLL:
    for name in _HIP:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise MissingError(
        f"none of {', '.join(_HIP)} can be loaded: add ROCm's library folder (/opt/rocm/lib) to LD_LIBRARY_PATH"
    )
