"""Build a C source of this package into a shared library, once a source and compiler, in the user's cache."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from platformdirs import user_cache_path

from ...schemas.errors import CaptureError, MissingError

INCLUDE = Path(__file__).parents[1] / "include"  # eidola_probe.h, for kernels of ours and of users

# The reordering flags let dot products use vectors. All of -ffast-math would also set the process's
# flush-to-zero mode when the library is loaded (GCC before 13).
FLAGS = (
    *("-std=c11", "-O3", "-D_GNU_SOURCE", "-shared", "-fPIC", "-pthread"),
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math"),
)
NO_COMPILER = (
    "no C compiler (looked for $CC, cc, gcc, clang on PATH): capture builds its C parts at first "
    "use. Install one (Debian: apt install gcc; macOS: xcode-select --install), or use the bundled capture: "
    "sample_traces/gemv_allreduce_host_4"
)


def compiler() -> tuple[str, str]:
    """Return path and version line of the C compiler: `$CC`, else the first of cc, gcc, clang on PATH.

    Raises MissingError where there is none, naming the bundled capture.
    """
    for name in filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")):
        if path := shutil.which(name):
            done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            if done.returncode == 0 and done.stdout:
                return path, done.stdout.splitlines()[0]
    raise MissingError(NO_COMPILER)


def library(source: Path, *options: str) -> ctypes.CDLL:
    """Return `source`, built with `options` too, as a loaded shared library; raises what `shared_object` raises."""
    return ctypes.CDLL(str(shared_object(source, (*FLAGS, *options))))


def shared_object(source: Path, flags: tuple[str, ...]) -> Path:
    """Return the shared library that `source` compiles to, from the cache where this compiler built it before.

    Headers beside the source and in `INCLUDE` count as part of it. Raises MissingError without a compiler,
    CaptureError where the build fails.
    """
    path, version = compiler()
    digest = hashlib.sha256("\0".join((version, sys.platform, *flags)).encode())
    for file in (source, *sorted(source.parent.glob("*.h")), *sorted(INCLUDE.glob("*.h"))):
        digest.update(file.read_bytes())
    built = user_cache_path("eidola") / "host" / f"{source.stem}-{digest.hexdigest()[:16]}.so"
    if not built.exists():
        _build([path, *flags], source, built)
    return built


def _build(compile_with: list[str], source: Path, built: Path) -> None:
    built.parent.mkdir(parents=True, exist_ok=True)
    partial = built.with_name(f".{built.name}.{os.getpid()}")
    command = [*compile_with, f"-I{INCLUDE}", str(source), "-o", str(partial)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        partial.unlink(missing_ok=True)
        raise CaptureError(
            f"{' '.join(command)} failed: {done.stderr.strip()}; set CC to another C11 compiler"
        )
    partial.rename(built)
