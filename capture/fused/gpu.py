"""The backends `gpu` (a GPU a rank, by peer access) and `virtual` (all ranks on one GPU), with CuPy.

The kernels are the sources of the host backend, compiled by NVRTC or HIPRTC. On `virtual` the ranks are ranges of
blocks of one launch; what they do to each other's memory is the same, with the same release and acquire at system
scope. Compiled for NVIDIA and AMD and emulated on a CPU; not yet run on a GPU.
"""

import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...schemas.errors import CaptureError, MissingError, UsageError
from .. import records
from ..host.build import INCLUDE
from ..ping_pong import align
from . import gpu_clocks, hip
from .gpu_memory import allocate
from .job import Run, check_result, job_words, pointer_tables, raise_if_stalled
from .spec import FusedKernel

THREADS = 256  # a block
_PEER_ACCESS_IS_ON = 704  # cudaErrorPeerAccessAlreadyEnabled, hipErrorPeerAccessAlreadyEnabled
_INCLUDE_LINE = re.compile(r'^#include "(\w+\.h)"$', re.MULTILINE)

Ranks = list[dict[str, Any]]  # a rank's arrays on its device, by name


def source_text(kernel: Path) -> str:
    """Return a kernel's source with our headers in their places, as run-time compilers need it."""

    def included(match: re.Match[str]) -> str:
        here = kernel.with_name(match[1])
        text = (here if here.is_file() else INCLUDE / match[1]).read_text()
        return _INCLUDE_LINE.sub(included, text)

    return _INCLUDE_LINE.sub(included, kernel.read_text())


def run(spec: FusedKernel, *options: str, virtual: bool) -> Run:
    """Run `spec` on GPUs and check every iteration's result on every rank against a plain product.

    `options` go to the compiler. Raises MissingError where CuPy, its compiler, GPUs or peer access between them
    are missing, UsageError where blocks or arrays do not fit on the GPU, CaptureError for a wait that passed its
    deadline or a wrong result.
    """
    cupy = _cupy()
    try:
        return _run(cupy, spec, [0] * spec.gpus if virtual else list(range(spec.gpus)), options)
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
        raise CaptureError(
            f"the GPU refused: {error}; `eidola capture doctor` says what it offers"
        ) from error
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise UsageError(f"{error}: ask for a smaller kernel, or free the GPU's memory") from error


def _cupy() -> Any:
    """Import CuPy and see that there is a GPU."""
    os.environ.setdefault("CUDA_MODULE_LOADING", "EAGER")  # a first launch must not load while a peer spins
    try:
        import cupy
    except ImportError as error:
        raise MissingError(
            f"the backends gpu and virtual need CuPy ({error}): pip install 'eidola-sim[cuda13]' (or cuda12, "
            "rocm); without a GPU use --backend host"
        ) from error
    try:
        found = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise MissingError(f"CuPy finds no GPU ({error}); without one use --backend host") from error
    if not found:
        raise MissingError("CuPy finds no GPU; without one use --backend host")
    return cupy


def _run(cupy: Any, spec: FusedKernel, devices: list[int], options: tuple[str, ...]) -> Run:
    _connect(cupy, sorted(set(devices)))
    hz = [gpu_clocks.clock_hz(cupy, device) for device in devices]
    per_launch = spec.gpus if len(set(devices)) == 1 else 1
    module = _load(cupy, spec, options, sorted(set(devices)), spec.workgroups * per_launch)
    inputs = spec.inputs()
    ranks = [allocate(cupy, spec, given, device) for given, device in zip(inputs, devices, strict=True)]
    jobs, _tables = _jobs(cupy, spec, list(inputs[0]), ranks, devices, hz)  # who holds them keeps them

    def ping_pongs(session: int) -> list[gpu_clocks.Samples]:
        if per_launch > 1:
            return []
        first = 1 + session * (spec.gpus - 1) * gpu_clocks.ROUNDS
        return gpu_clocks.ping_pongs(cupy, module, jobs, devices, hz, first=first)

    before = ping_pongs(0)
    outputs, launch_ns = _launch(cupy, spec, module, ranks, jobs, devices, per_launch)
    raise_if_stalled(spec, [rank["failures"].get() for rank in ranks])
    after = ping_pongs(1)
    check_result(spec, inputs, outputs)
    told = [_told(cupy, device, rate) for device, rate in zip(devices, hz, strict=True)]
    for rank in range(1, len(before)):
        if alignment := align((before[rank], after[rank])):
            told[rank]["alignment"] = asdict(alignment)
    return Run(
        outputs,
        [_rows(rank["records"], records.RECORD).reshape(spec.workgroups, -1) for rank in ranks],
        [_rows(rank["counts"], records.COUNTS) for rank in ranks],
        told,
        {**_details(cupy, per_launch), "launch_ns": launch_ns},
    )


def _connect(cupy: Any, devices: list[int]) -> None:
    """Let every device write into every other's memory. Raises MissingError where one cannot."""
    runtime = cupy.cuda.runtime
    found = runtime.getDeviceCount()
    if found < len(devices):
        fewer = f"give --gpus {found}, or " if found > 1 else ""
        raise MissingError(
            f"{len(devices)} ranks need as many GPUs, and there are {found}: {fewer}"
            "use --backend virtual to run all ranks on one"
        )
    for here in devices:
        for there in devices:
            if here == there:
                continue
            if not runtime.deviceCanAccessPeer(here, there):
                raise MissingError(
                    f"GPU {here} cannot write into GPU {there}'s memory; use --backend virtual"
                )
            with cupy.cuda.Device(here):
                try:
                    runtime.deviceEnablePeerAccess(there)
                except runtime.CUDARuntimeError as error:
                    if error.status != _PEER_ACCESS_IS_ON:
                        raise


def _jobs(
    cupy: Any, spec: FusedKernel, inputs: list[str], ranks: Ranks, devices: list[int], hz: list[int]
) -> tuple[list[Any], list[dict[str, Any]]]:
    """Return each rank's job, on its device, and the tables of pointers that it names, copied to every device."""
    tables = pointer_tables(ranks, lambda array: int(array.data.ptr))
    jobs, kept = [], []
    for device, rate in zip(devices, hz, strict=True):
        with cupy.cuda.Device(device):
            here = {name: cupy.asarray(table) for name, table in tables.items()}
            addresses: Mapping[str, int] = {name: int(t.data.ptr) for name, t in here.items()} | {
                "outputs": 0
            }
            words = job_words(spec, addresses, inputs, deadline_ticks=int(spec.deadline_s * rate))
            jobs.append(cupy.asarray(words))
            kept.append(here)
    return jobs, kept


def _load(cupy: Any, spec: FusedKernel, options: tuple[str, ...], devices: list[int], blocks: int) -> Any:
    """Compile the kernel and load it on every device, so that no launch loads while a peer spins.

    Raises UsageError unless all `blocks` of a launch are resident at once: they wait for each other.
    """
    module = cupy.RawModule(
        code=source_text(spec.source),
        options=("--std=c++17", *options),
        # CuPy has no cooperative launch on HIP; the check of what fits serves both.
        enable_cooperative_groups=not cupy.cuda.runtime.is_hip,
    )
    for device in devices:
        with cupy.cuda.Device(device):
            fused = _functions(cupy, spec, module)["eidola_fused"].ptr
            if cupy.cuda.runtime.is_hip:
                each = hip.blocks_a_unit(fused, THREADS)
            else:
                each = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(fused, THREADS, 0)
            fit = each * int(cupy.cuda.runtime.getDeviceProperties(device)["multiProcessorCount"])
        if blocks > fit:
            text = f"{blocks} workgroups must run at once on GPU {device}, which holds {fit}"
            raise UsageError(f"{text}: give fewer --workgroups")
    return module


def _functions(cupy: Any, spec: FusedKernel, module: Any) -> dict[str, Any]:
    """Return the kernels on the current device; the first call compiles."""
    try:
        return {name: module.get_function(name).kernel for name in ("eidola_fused", "eidola_ping_pong")}
    except cupy.cuda.compiler.CompileException as error:
        raise CaptureError(f"{spec.source.name} does not compile for this GPU: {error}") from error
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError):
        raise
    except (RuntimeError, ImportError) as error:  # how CuPy says that it cannot load NVRTC
        raise MissingError(
            f"CuPy cannot compile kernels ({error}): pip install 'cupy-cuda13x[ctk]' (or cupy-cuda12x[ctk])"
        ) from error


def _launch(
    cupy: Any,
    spec: FusedKernel,
    module: Any,
    ranks: Ranks,
    jobs: list[Any],
    devices: list[int],
    per_launch: int,
) -> tuple[npt.NDArray[np.float32], list[int]]:
    """Run all iterations; return every rank's results (ranks x iterations x words), and the time of each launch.

    That is the GPU's, by its events, of the rank that took longest, in ns.
    """
    launch_ns = []
    outputs = np.zeros((spec.gpus, spec.iterations, spec.result_words), np.float32)
    for epoch in range(1, spec.iterations + 1):
        events = []
        for rank in range(0, spec.gpus, per_launch):
            with cupy.cuda.Device(devices[rank]):
                kernel, begin, end = module.get_function("eidola_fused"), cupy.cuda.Event(), cupy.cuda.Event()
                begin.record()
                arguments = (jobs[rank], np.int64(rank), np.uint64(epoch))
                kernel((spec.workgroups * per_launch,), (THREADS,), arguments)
                end.record()
                events.append((begin, end))
        for device in sorted(set(devices)):
            cupy.cuda.Device(device).synchronize()
        launch_ns.append(round(max(cupy.cuda.get_elapsed_time(*pair) for pair in events) * 1e6))
        for rank, arrays in enumerate(ranks):
            half = arrays["results"].reshape(2, spec.result_words)[epoch & 1]
            outputs[rank, epoch - 1] = half.get()
    return outputs, launch_ns


def _rows(array: Any, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    rows: npt.NDArray[np.void] = array.get().view(dtype)
    return rows


def _told(cupy: Any, device: int, hz: int) -> dict[str, Any]:
    """Return what a rank's entry in `capture.json` says of its GPU."""
    properties = cupy.cuda.runtime.getDeviceProperties(device)
    bits = properties.get("uuid") or b""  # CuPy reads it as text: a byte of 0 ends it early
    return {
        "anchor_hz": hz,
        "device": {
            "device": device,
            "vendor": "amd" if cupy.cuda.runtime.is_hip else "nvidia",
            "model": properties["name"].decode(),
            "uuid": str(uuid.UUID(bytes=bytes(bits))) if len(bits) == 16 else None,
            "compute_units": int(properties["multiProcessorCount"]),
            "memory_bytes": int(properties["totalGlobalMem"]),
        },
    }


def _details(cupy: Any, per_launch: int) -> dict[str, Any]:
    runtime = cupy.cuda.runtime
    one = "the GPU's real-time clock, one for all ranks"
    return {
        "versions": {
            "cupy": cupy.__version__,
            "runtime": str(runtime.runtimeGetVersion()),
            "driver": str(runtime.driverGetVersion()),
        },
        "clock": one if per_launch > 1 else "each GPU's real-time clock, aligned on flag ping-pongs",
        "threads_a_workgroup": THREADS,
    }
