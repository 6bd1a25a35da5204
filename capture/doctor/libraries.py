"""NCCL and RCCL: which are here, their versions, and whether they and the profiler plugin speak one version.

A library's own ncclGetVersion is asked, in another process, for loading RCCL starts the GPU's driver. Which
profiler interfaces it takes is read from the names that it looks for in a plugin: they stand in its file.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import nccl
from ..support import labels
from .examination import Finding

_IN_PACKAGES = ("nvidia/nccl/lib/libnccl.so*", "torch/lib/libnccl.so*", "torch/lib/librccl.so*")
_INSIDE_TORCH = "torch/lib/libtorch_cuda.so"  # where PyTorch was built with NCCL linked in
_NAMES = ("libnccl.so*", "librccl.so*")
_INTERFACE = re.compile(rb"ncclProfiler_v(\d+)\0")
_ASK = (
    "import ctypes, sys; v = ctypes.c_int(); "
    "sys.exit(ctypes.CDLL(sys.argv[1]).ncclGetVersion(ctypes.byref(v)) or print(v.value))"
)
_SECONDS = 60
_CHUNK = 1 << 24


def findings(packages: Sequence[Path], folders: Sequence[Path]) -> Iterator[Finding]:
    """Return a row for each NCCL or RCCL found below the packages and folders, and one for our plugin."""
    found = list(dict.fromkeys(file.resolve() for file in _candidates(packages, folders)))
    if not found:
        found = [package / _INSIDE_TORCH for package in packages if (package / _INSIDE_TORCH).is_file()]
    if not found:
        looked = "with the Python packages, on LD_LIBRARY_PATH and in the system's folders"
        remedy = "comes with PyTorch for GPUs; on CPUs, Gloo's collectives are captured without it"
        yield Finding("NCCL, RCCL", "absent", f"none found ({looked})", remedy)
    for file in found:
        yield _library(file)
    if found and (own := os.environ.get(nccl.LOADED_BY)):
        seen = f"{nccl.LOADED_BY}={own} names another, and NCCL loads one"
        yield Finding("NCCL plugin", "gap", seen, "unset it, so that captures have NCCL's records")


def interfaces(file: Path) -> list[int]:
    """Return the versions of the profiler interface that the library at `file` looks for, ascending."""
    found: set[int] = set()
    with file.open("rb") as content:
        rest = b""
        while chunk := content.read(_CHUNK):
            found.update(int(n) for n in _INTERFACE.findall(rest + chunk))
            rest = chunk[-32:]
    return sorted(found)


def release(file: Path) -> str | None:
    """Return the version that the library says it has, such as 2.27.3; None where it cannot be loaded."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _ASK, str(file)],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    code = done.stdout.strip().splitlines()[-1:] if done.returncode == 0 else []
    return _dotted(int(code[0])) if code and code[0].isdigit() else None


def _dotted(code: int) -> str:
    """Return a version code in digits: x.y.z by 1000 and 100 up to 2.8, by 10000 and 100 since (nccl.h)."""
    major = 10000 if code >= 10000 else 1000
    return f"{code // major}.{code % major // 100}.{code % 100}"


def _candidates(packages: Sequence[Path], folders: Sequence[Path]) -> Iterator[Path]:
    for folder, patterns in (*((p, _IN_PACKAGES) for p in packages), *((f, _NAMES) for f in folders)):
        for pattern in patterns:
            yield from (file for file in sorted(folder.glob(pattern)) if file.is_file())


def _library(file: Path) -> Finding:
    topic = "RCCL" if "rccl" in file.name else "NCCL"
    version = release(file)
    try:
        spoken = interfaces(file)
    except OSError as error:
        return Finding(topic, "gap", f"{file} cannot be read ({error})", "allow this user to read it")
    if version is None:
        remedy = "set LD_LIBRARY_PATH so that what it needs is found, or install it again"
        return Finding(topic, "gap", f"{file} cannot be loaded", remedy)
    seen = f"{version} ({file})"
    first, last = nccl.VERSIONS
    if not spoken:
        remedy = (
            f"no records of its collectives: use {'ROCm 7.1' if topic == 'RCCL' else 'NCCL 2.23'} or newer"
        )
        return Finding(topic, "gap", f"{seen}; takes no profiler plugin", remedy)
    told = f"{seen}; profiler interface v{spoken[0]} to v{spoken[-1]}"
    common = [v for v in spoken if first <= v <= last]
    if not common:
        remedy = f"the plugin offers v{first} to v{last}: upgrade eidola, or use an older {topic}"
        return Finding(topic, "gap", f"{told}, newer than the plugin", remedy)
    newer = "newer than the plugin, which it takes as" if spoken[-1] > last else "takes the plugin as"
    return Finding(topic, "ok", f"{told}, {newer} v{common[-1]}; plugin {_label(topic)}")


def _label(topic: str) -> str:
    vendor = "AMD" if topic == "RCCL" else "NVIDIA"
    row = next(row for row in labels() if row["feature"] == "NCCL and RCCL profiler plugin")
    text: str = row["vendors"][vendor]
    return text
