"""The host: permissions, shared memory, the out folder, clocks."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from ...schemas.errors import CaptureError, MissingError
from ..ping_pong import align, between_threads
from .examination import Finding

ENOUGH_SHARED_BYTES = 1 << 30  # NCCL and loaders take hundreds of MB; Docker gives 64 MiB unless told
ENOUGH_FREE_BYTES = 1 << 30
_PROBE_BYTES = 1 << 20
_READINGS = 20_000
_ROUNDS = 1000


def findings(proc: Path, sys: Path, dev: Path, out: Path, *, vendor: str | None) -> Iterator[Finding]:
    """Return what the host allows; `vendor` is the GPUs', None without one."""
    if vendor == "nvidia":
        yield _counters(proc)
    if vendor == "amd":
        yield _kfd(dev)
    yield _ptrace(proc)
    yield _shared_memory(dev)
    yield _out_folder(out)
    yield _clock(sys)
    yield _cores()


def _counters(proc: Path) -> Finding:
    """NVIDIA's module parameter NVreg_RestrictProfilingToAdminUsers, as the driver shows it."""
    topic, file = "GPU performance counters", proc / "driver" / "nvidia" / "params"
    try:
        text = file.read_text()
    except OSError:
        return Finding(topic, "absent", f"{file} cannot be read", "ask for it outside the container")
    if "RmProfilingAdminOnly: 1" in text and os.geteuid() != 0:
        remedy = (
            "kernel times need none; hardware counters do: load the nvidia module with "
            "NVreg_RestrictProfilingToAdminUsers=0, or give CAP_SYS_ADMIN"
        )
        return Finding(topic, "gap", "for administrators only", remedy)
    return Finding(topic, "ok", "this user may read them")


def _kfd(dev: Path) -> Finding:
    node = dev / "kfd"
    if os.access(node, os.R_OK | os.W_OK):
        return Finding("AMD device nodes", "ok", f"{node} may be read and written")
    remedy = "join the groups render and video; in a container pass --device=/dev/kfd --device=/dev/dri"
    return Finding("AMD device nodes", "gap", f"{node} may not be opened", remedy)


def _ptrace(proc: Path) -> Finding:
    """Symmetric memory hands file descriptors to peers by pidfd_getfd, which asks for ptrace rights."""
    file = proc / "sys" / "kernel" / "yama" / "ptrace_scope"
    try:
        scope = int(file.read_text())
    except (OSError, ValueError):
        return Finding("ptrace", "ok", "not restricted (no Yama)")
    if scope <= 1:
        return Finding("ptrace", "ok", f"ptrace_scope {scope}")
    remedy = "torch symmetric memory cannot pass handles between ranks: sysctl kernel.yama.ptrace_scope=1"
    return Finding("ptrace", "gap", f"ptrace_scope {scope}", remedy)


def _shared_memory(dev: Path) -> Finding:
    topic, folder = "Shared memory", dev / "shm"
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Finding(topic, "gap", f"{folder}: {error.strerror}", "mount a tmpfs there; NCCL needs it")
    seen = f"{folder}: {_size(usage.free)} free of {_size(usage.total)}"
    if usage.free >= ENOUGH_SHARED_BYTES:
        return Finding(topic, "ok", seen)
    return Finding(topic, "gap", seen, f"give it {_size(ENOUGH_SHARED_BYTES)} (docker run --shm-size=8g)")


def _out_folder(out: Path) -> Finding:
    """Rings are files allocated beforehand; where that is refused, capture turns itself off."""
    topic, folder = "Out folder", _nearest(out.resolve())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, _PROBE_BYTES)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        remedy = "choose another folder with -o, on a file system that can allocate (ext4, xfs, btrfs, tmpfs)"
        return Finding(topic, "gap", f"{folder}: {error.strerror}", remedy)
    seen = f"{folder}: {_size(free)} free, files can be allocated"
    if free < ENOUGH_FREE_BYTES:
        return Finding(
            topic, "gap", seen, f"free {_size(ENOUGH_FREE_BYTES)}, or choose another folder with -o"
        )
    return Finding(topic, "ok", seen)


def _clock(sys: Path) -> Finding:
    """Describe the clock of host records: what the kernel claims, and the smallest step that readings show."""
    file = sys / "devices" / "system" / "clocksource" / "clocksource0" / "current_clocksource"
    try:
        source = file.read_text().strip()
    except OSError:
        source = "unknown"
    claimed = time.clock_getres(time.CLOCK_MONOTONIC) * 1e9
    seen = f"CLOCK_MONOTONIC from {source}: resolution {claimed:g} ns, smallest step seen {smallest_step_ns()} ns"
    if source in ("tsc", "arch_sys_counter", "unknown"):
        return Finding("Host clock", "ok", seen)
    return Finding(
        "Host clock", "gap", seen, f"a reading of {source} is a system call: prefer tsc, where stable"
    )


def _cores() -> Finding:
    """Ask whether cores agree on the time, by flags between two threads; the `host` backend rests on it."""
    topic = "Clocks of cores"
    try:
        samples = between_threads(_ROUNDS)
    except (MissingError, CaptureError) as error:
        return Finding(topic, "absent", "not measured", str(error))
    found = align((samples,))
    if found is None:
        return Finding(topic, "absent", "not measured", "try again")
    trip = int((samples[:, 2] - samples[:, 0]).min())
    seen = f"two threads {found.offset_ns:+} ns apart, by flags of {trip} ns there and back"
    if abs(found.offset_ns) <= found.residual_ns:
        return Finding(topic, "ok", f"{seen}: no difference can be told")
    return Finding(topic, "gap", seen, "the kernel's clock differs between cores: pin the job to one socket")


def smallest_step_ns() -> int:
    """Return the smallest difference between two successive readings of CLOCK_MONOTONIC that is not zero."""
    readings = [time.monotonic_ns() for _ in range(_READINGS)]
    return min(b - a for a, b in pairwise(readings) if b > a)


def _nearest(folder: Path) -> Path:
    """Return `folder`, or what exists of its parents: where the folder would be made."""
    return next(at for at in (folder, *folder.parents) if at.is_dir())


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
