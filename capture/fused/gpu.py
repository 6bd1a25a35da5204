"""The backends `gpu` (a GPU a rank, by peer access) and `virtual` (all ranks on one GPU), with CuPy.

The kernels are the sources of the host backend, compiled by NVRTC or HIPRTC. On `virtual` the ranks are ranges of
blocks of one launch; what they do to each other's memory is the same, with the same release and acquire at system
scope. Compiled for NVIDIA and AMD, not yet run on either.
"""

import ctypes
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from ...schemas.errors import CaptureError, MissingError, UsageError
from .. import records
from ..host.build import INCLUDE
from ..ping_pong import align
from .job import Run, check_result, job_words, pointer_tables, raise_if_stalled, rank_arrays
from .spec import Arrays, FusedKernel

THREADS = 256  # a block
ROUNDS = 1000  # of a ping-pong session
_PEER_ACCESS_IS_ON = 704  # cudaErrorPeerAccessAlreadyEnabled, hipErrorPeerAccessAlreadyEnabled
_WALL_CLOCK_RATE = 10017  # hipDeviceAttributeWallClockRate, kHz (hip_runtime_api.h, ROCm 5.3 to 7.1)
_FINE_GRAINED = 0x1  # hipDeviceMallocFinegrained: peers see writes while a kernel runs
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

    `options` go to the compiler. Raises MissingError where CuPy, GPUs or peer access between them are missing,
    UsageError where the blocks do not all fit on the GPU at once, CaptureError for a wait that passed its deadline
    or a wrong result.
    """
    cupy = _cupy()
    try:
        return _run(cupy, spec, [0] * spec.gpus if virtual else list(range(spec.gpus)), options)
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
        raise CaptureError(
            f"the GPU refused: {error}; `eidola capture doctor` says what it offers"
        ) from error
    except cupy.cuda.compiler.CompileException as error:
        raise CaptureError(f"{spec.source.name} does not compile for this GPU: {error}") from error


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
    hz = [clock_hz(cupy, device) for device in devices]
    per_launch = spec.gpus if len(set(devices)) == 1 else 1
    module = _load(cupy, spec, options, sorted(set(devices)), spec.workgroups * per_launch)
    inputs = spec.inputs()
    ranks = [_allocate(cupy, spec, given, device) for given, device in zip(inputs, devices, strict=True)]
    jobs = _jobs(cupy, spec, list(inputs[0]), ranks, devices, hz)
    before = _ping_pongs(cupy, module, jobs, devices, hz, first=1)
    outputs, launch_ns = _launch(cupy, spec, module, ranks, jobs, devices, per_launch)
    raise_if_stalled(spec, [rank["failures"].get() for rank in ranks])
    after = _ping_pongs(cupy, module, jobs, devices, hz, first=1 + ROUNDS * (spec.gpus - 1))
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
        raise MissingError(
            f"{len(devices)} ranks need as many GPUs, and there are {found}: give --gpus {found}, or "
            "--backend virtual to run all ranks on one"
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


def clock_hz(cupy: Any, device: int) -> int:
    """Return the rate of what eidola_real_time reads: %globaltimer counts ns; AMD's device says its own."""
    runtime = cupy.cuda.runtime
    return int(runtime.deviceGetAttribute(_WALL_CLOCK_RATE, device)) * 1000 if runtime.is_hip else 10**9


def _allocate(cupy: Any, spec: FusedKernel, inputs: Arrays, device: int) -> dict[str, Any]:
    """Put a rank's arrays into its device's memory, as bytes or floats, by name."""
    arrays: dict[str, Any] = {
        **rank_arrays(spec),
        **inputs,
        **{name: np.zeros(words, np.float32) for name, words in spec.scratch().items()},
    }
    with cupy.cuda.Device(device):
        return {name: _upload(cupy, array) for name, array in arrays.items()}


def _upload(cupy: Any, array: npt.NDArray[Any]) -> Any:
    plain = array.reshape(-1) if array.dtype.names is None else array.reshape(-1).view(np.uint64)
    if not cupy.cuda.runtime.is_hip:
        return cupy.asarray(plain)
    there = cupy.ndarray(plain.shape, plain.dtype, memptr=_fine_grained(cupy, plain.nbytes))
    there.set(plain)
    return there


def _fine_grained(cupy: Any, size: int) -> Any:
    """Allocate memory on AMD that is coherent between GPUs while a kernel runs; the process keeps it."""
    hip, address = ctypes.CDLL("libamdhip64.so"), ctypes.c_void_p()
    refused = hip.hipExtMallocWithFlags(ctypes.byref(address), ctypes.c_size_t(size), _FINE_GRAINED)
    if refused:
        raise CaptureError(
            f"hipExtMallocWithFlags refused {size} bytes of fine-grained memory (error {refused})"
        )
    memory = cupy.cuda.UnownedMemory(address.value, size, hip)
    return cupy.cuda.MemoryPointer(memory, 0)


def _jobs(
    cupy: Any, spec: FusedKernel, inputs: list[str], ranks: Ranks, devices: list[int], hz: list[int]
) -> list[Any]:
    """Return each rank's job, on its device: the tables of pointers are copied to every device."""
    tables = pointer_tables(ranks, lambda array: int(array.data.ptr))
    jobs = []
    for device, rate in zip(devices, hz, strict=True):
        with cupy.cuda.Device(device):
            here = {name: cupy.asarray(table) for name, table in tables.items()}
            addresses: Mapping[str, int] = {name: int(t.data.ptr) for name, t in here.items()} | {
                "outputs": 0
            }
            words = job_words(spec, addresses, inputs, deadline_ticks=int(spec.deadline_s * rate))
            jobs.append((cupy.asarray(words), here))  # the tables live as long as the job
    return jobs


def _load(cupy: Any, spec: FusedKernel, options: tuple[str, ...], devices: list[int], blocks: int) -> Any:
    """Compile the kernel and load it on every device, so that no launch loads while a peer spins.

    Raises UsageError unless all `blocks` of a launch are resident at once: they wait for each other.
    """
    cooperative = (
        not cupy.cuda.runtime.is_hip
    )  # CuPy has no cooperative launch on HIP; the check below serves both
    module = cupy.RawModule(
        code=source_text(spec.source),
        options=("--std=c++17", *options),
        enable_cooperative_groups=cooperative,
    )
    for device in devices:
        with cupy.cuda.Device(device):
            kernels = {
                name: module.get_function(name).kernel for name in ("eidola_fused", "eidola_ping_pong")
            }
            fused = kernels["eidola_fused"].ptr
            each = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(fused, THREADS, 0)
            fit = each * int(cupy.cuda.runtime.getDeviceProperties(device)["multiProcessorCount"])
        if blocks > fit:
            text = f"{blocks} workgroups must run at once on GPU {device}, which holds {fit}"
            raise UsageError(f"{text}: give fewer --workgroups")
    return module


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

    That is the host's: from before the first rank's launch until all ranks are done, in ns.
    """
    launch_ns = []
    outputs = np.zeros((spec.gpus, spec.iterations, spec.result_words), np.float32)
    for epoch in range(1, spec.iterations + 1):
        start_ns = perf_counter_ns()
        for rank in range(0, spec.gpus, per_launch):
            with cupy.cuda.Device(devices[rank]):
                arguments = (jobs[rank][0], np.int64(rank), np.uint64(epoch))
                module.get_function("eidola_fused")((spec.workgroups * per_launch,), (THREADS,), arguments)
        for device in sorted(set(devices)):
            cupy.cuda.Device(device).synchronize()
        launch_ns.append(perf_counter_ns() - start_ns)
        for rank, arrays in enumerate(ranks):
            half = arrays["results"].reshape(2, spec.result_words)[epoch & 1]
            outputs[rank, epoch - 1] = half.get()
    return outputs, launch_ns


def _ping_pongs(
    cupy: Any, module: Any, jobs: list[Any], devices: list[int], hz: list[int], *, first: int
) -> list[npt.NDArray[np.int64]]:
    """Return the samples, in ns, of a session between rank 0 and each other rank; none where all share a GPU."""
    if len(set(devices)) == 1:
        return []
    sessions = [np.zeros((0, 3), np.int64)]
    for peer in range(1, len(devices)):
        with cupy.cuda.Device(devices[0]):
            samples = cupy.zeros((ROUNDS, 3), np.uint64)
        for rank in (0, peer):
            with cupy.cuda.Device(devices[rank]):
                # Rounds are numbered on through all sessions: the words that they wait for are never cleared.
                numbers = (np.int64(rank), np.int64(peer), np.uint64(first + ROUNDS * (peer - 1)))
                arguments = (jobs[rank][0], *numbers, np.int64(ROUNDS), samples)
                module.get_function("eidola_ping_pong")((1,), (1,), arguments)
        for rank in (0, peer):
            cupy.cuda.Device(devices[rank]).synchronize()
        sessions.append(_ns(samples.get(), np.array([hz[0], hz[peer], hz[0]], np.uint64)))
    return sessions


def _ns(ticks: npt.NDArray[np.uint64], hz: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return ticks of clocks of `hz` as ns."""
    second = np.uint64(10**9)
    whole: npt.NDArray[np.int64] = (ticks // hz * second + ticks % hz * second // hz).astype(np.int64)
    return whole


def _rows(array: Any, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    rows: npt.NDArray[np.void] = array.get().view(dtype)
    return rows


def _told(cupy: Any, device: int, hz: int) -> dict[str, Any]:
    """Return what a rank's entry in `capture.json` says of its GPU."""
    properties = cupy.cuda.runtime.getDeviceProperties(device)
    uuid = properties.get("uuid")
    return {
        "anchor_hz": hz,
        "device": {
            "device": device,
            "vendor": "amd" if cupy.cuda.runtime.is_hip else "nvidia",
            "model": properties["name"].decode(),
            "uuid": bytes(uuid).hex() if uuid else None,
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
