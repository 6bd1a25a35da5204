"""The clock of probes in kernels: its rate, and the smallest step that a kernel sees. Needs a GPU and CuPy."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ..host.build import INCLUDE
from .examination import Finding

READINGS = 4096
KERNEL = """
extern "C" __global__ void eidola_readings(eidola_u64 *readings, int count)
{
    for (int i = 0; i < count; i++)
        readings[i] = eidola_real_time();
}
"""


def source() -> str:
    """Return the kernel with the probes' header before it, for CUDA and HIP."""
    return (INCLUDE / "eidola_probe.h").read_text(encoding="utf-8") + KERNEL


def finding() -> Finding:
    """Return the row; `absent` without CuPy, `gap` where the GPU refuses the kernel."""
    topic = "GPU clock"
    try:
        import cupy
    except ImportError:
        remedy = "pip install 'eidola-sim[cuda13]' (or cuda12, rocm); probes in kernels need it too"
        return Finding(topic, "absent", "not measured: CuPy is not installed", remedy)
    from ..fused.gpu_clocks import clock_hz

    try:
        hz = clock_hz(cupy, 0)
        step = step_ns(_readings(cupy), hz)
    except (
        RuntimeError,
        cupy.cuda.compiler.CompileException,
    ) as error:  # of the driver, the runtime or NVRTC
        return Finding(topic, "gap", f"not measured: {error}", "check that CuPy fits the driver")
    return Finding(topic, "ok", f"counts at {hz / 1e6:g} MHz, steps of {step:g} ns seen by a kernel")


def step_ns(readings: npt.NDArray[np.uint64], hz: int) -> float:
    """Return the smallest step between readings, of ticks at `hz`, that is not zero; 0 where all are equal."""
    steps = np.diff(readings.astype(np.int64))
    return float(steps[steps > 0].min() * 1e9 / hz) if (steps > 0).any() else 0.0


def _readings(cupy: Any) -> npt.NDArray[np.uint64]:
    out = cupy.zeros(READINGS, cupy.uint64)
    module = cupy.RawModule(code=source(), options=("--std=c++17",))
    module.get_function("eidola_readings")((1,), (1,), (out, np.int32(READINGS)))
    readings: npt.NDArray[np.uint64] = out.get()
    return readings
