"""A rank's arrays in its GPU's memory, where peers write them while a kernel runs."""

from typing import Any

import numpy as np
import numpy.typing as npt

from . import hip
from .job import rank_arrays
from .spec import Arrays, FusedKernel


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
    there = cupy.ndarray(plain.shape, plain.dtype, memptr=hip.fine_grained(cupy, plain.nbytes, device))
    there.set(plain)
    return there
