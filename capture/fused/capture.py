"""Run a fused kernel on a backend and keep its probe records as a raw capture."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path

from ..probes import RankProbes, write_probes
from ..raw import refuse_existing
from . import cpu
from .job import Run, flags_description
from .spec import FusedKernel


class Backend(StrEnum):
    """What runs a kernel's ranks."""

    host = "host"
    virtual = "virtual"
    gpu = "gpu"


def run_kernel(spec: FusedKernel, backend: Backend | str = Backend.host, *options: str) -> Run:
    """Run `spec`: on CPU threads, as parts of one launch on one GPU, or on a GPU a rank.

    `options` go to the C compiler of the backend `host`, such as the delays of fused_cpu.h.

    Raises CaptureError for a wait that passed its deadline or a wrong result, MissingError where the backend's
    compiler, package or GPUs are not there.
    """
    if backend == Backend.host:
        return cpu.run(spec, *options)
    from . import gpu

    return gpu.run(spec, virtual=backend == Backend.virtual)


def capture_kernel(
    spec: FusedKernel,
    path: Path,
    *,
    backend: Backend | str = Backend.host,
    overwrite: bool = False,
    anonymous: bool = False,
    options: tuple[str, ...] = (),
) -> Run:
    """Run `spec` and write the raw capture at `path`; see the `eidola.capture` docstring for its layout.

    `anonymous` leaves the host's name out; `options`: see `run_kernel`. Raises what `run_kernel` raises, and
    UsageError where `path` is taken.
    """
    refuse_existing(path, overwrite=overwrite)
    run = run_kernel(spec, backend, *options)
    told = [{"anchor_hz": None, "device": {}, **rank} for rank in run.ranks]
    ranks = [
        RankProbes(buffers, counts, rank.pop("anchor_hz"), rank.pop("device"), rank)
        for buffers, counts, rank in zip(run.buffers, run.counts, told, strict=True)
    ]
    write_probes(
        path,
        ranks,
        phases=spec.phases,
        regions=spec.regions,
        backend=str(backend),
        kernel=spec.name,
        overwrite=overwrite,
        anonymous=anonymous,
        **{
            "command": spec.command(str(backend)),
            "parameters": asdict(spec),
            "warm_up_iterations": 1 if spec.iterations > 1 else 0,
            "flags": flags_description(spec),
            **run.details,
        },
    )
    return run
