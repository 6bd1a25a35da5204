"""Build recorder.cpp against the installed PyTorch, once a version and compiler, in the user's cache."""

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_cache_path

from ...schemas.errors import CaptureError, MissingError

SOURCE = Path(__file__).with_name("recorder.cpp")
FLAGS = ("-std=c++20", "-O2", "-fPIC", "-shared", "-pthread", "-DUSE_DISTRIBUTED", "-DUSE_C10D_GLOO")


def start(ring: Path, layout: dict[str, int]) -> ctypes.CDLL:
    """Record this process's collectives into `ring`, as `create` laid it out; return the recorder.

    Raises MissingError without a C++ compiler, CaptureError where the recorder cannot be built or started.
    """
    try:
        recorder = ctypes.CDLL(str(library()))
    except OSError as error:
        raise CaptureError(f"the recorder cannot be loaded: {error}") from error
    recorder.eidola_recorder_start.restype = ctypes.c_char_p
    refused = recorder.eidola_recorder_start(
        str(ring).encode(),
        ctypes.c_uint64(layout["bytes"]),
        ctypes.c_uint64(layout["names_at"]),
        ctypes.c_uint32(layout["names"]),
        ctypes.c_uint64(layout["records_at"]),
        ctypes.c_uint64(layout["capacity"]),
    )
    if refused is not None:
        raise CaptureError(f"the recorder did not start: {refused.decode('utf-8', 'replace')}")
    recorder.eidola_recorder_count.restype = ctypes.c_uint64
    return recorder


def library() -> Path:
    """Return the recorder as a shared library, built now where it is not in the cache. Imports no torch."""
    torch = _torch()
    cxx = compiler()
    version = subprocess.run([cxx, "--version"], capture_output=True, text=True, check=False).stdout
    stamp = (torch / "version.py").read_bytes() + str(torch).encode() + version.encode()
    digest = hashlib.sha256(SOURCE.read_bytes() + stamp + repr(FLAGS).encode()).hexdigest()
    built = user_cache_path("eidola") / "recorder" / f"recorder-{digest[:16]}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        with built.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # ranks that start together build it once
            if not built.exists():
                _build(cxx, torch, built)
    return built


def _torch() -> Path:
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise MissingError("torch is not installed: pip install 'eidola-sim[capture]'")
    return Path(spec.origin).parent


def compiler() -> str:
    """Return the path of the C++ compiler: `$CXX`, else the first of c++, g++, clang++ on PATH.

    Raises MissingError where there is none.
    """
    for name in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        if path := shutil.which(name):
            return path
    raise MissingError(
        "no C++ compiler (looked for $CXX, c++, g++, clang++ on PATH), which the recorder of collectives is built "
        "with at first use: only profiler windows are captured. Install one (Debian: apt install g++)"
    )


def _build(cxx: str, torch: Path, built: Path) -> None:
    partial = built.with_name(f".{built.name}.{os.getpid()}")
    include = torch / "include"
    command = [
        *(cxx, *FLAGS, "-isystem", str(include), "-isystem", str(include / "torch/csrc/api/include")),
        *(str(SOURCE), "-o", str(partial), f"-L{torch / 'lib'}", "-ltorch_cpu", "-lc10"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        partial.unlink(missing_ok=True)
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:300])
        raise CaptureError(
            f"the recorder of collectives does not compile with {cxx} and this torch ({first.strip()}): only "
            "profiler windows are captured"
        )
    partial.rename(built)
