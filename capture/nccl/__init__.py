"""The profiler plugin for NCCL and RCCL: built at first use, loaded by them, never by this process.

`plugin.c` writes what NCCL tells it to one ring file a process (`ring.h` has the layout);
`eidola.convert.nccl_plugin` reads it. Versions 1 to 6 of the interface, that is NCCL 2.23 to 2.30; newer releases
still take version 6.
"""

import os
import re
import struct
from importlib.util import find_spec
from pathlib import Path

from ...schemas.errors import EidolaError, UsageError
from ..host.build import shared_object

VERSIONS = (1, 6)
"""First and last version of NCCL's profiler interface that the plugin offers."""

LOADED_BY = "NCCL_PROFILER_PLUGIN"
"""The variable by which NCCL (ext-profiler/README.md) and RCCL find a plugin: a name or a path."""

FLAGS = (
    *("-std=c11", "-O2", "-D_GNU_SOURCE", "-shared", "-fPIC", "-pthread", "-fvisibility=hidden"),
    "-Wl,-z,nodelete",  # NCCL closes the library with its last communicator, while threads may still call it
)


def plugin() -> Path:
    """Return the built plugin; raises MissingError without a C compiler, CaptureError where the build fails."""
    return shared_object(Path(__file__).with_name("plugin.c"), FLAGS)


def environment(out: Path, *, records: int = 1 << 18, events: int | None = None) -> dict[str, str]:
    """Build the plugin and return the variables under which NCCL writes `nccl.*.ring` files into `out`.

    `records`, a power of two, is how many 64-byte records each process keeps, the newest; `events` the mask of
    NCCL's events (None: operations, proxy steps, kernel channels, copy engines). `out` must exist when the job
    starts. Raises UsageError where the user's environment already names a plugin (NCCL loads one) or `records` is
    no power of two, MissingError without a C compiler, CaptureError where the build fails.
    """
    if records < 1 or records & (records - 1):
        raise UsageError(f"{records} records of the NCCL plugin: give a power of two, such as {1 << 18}")
    path = str(plugin())
    if os.environ.get(LOADED_BY, path) != path:
        raise UsageError(
            f"{LOADED_BY}={os.environ[LOADED_BY]} is set already and NCCL loads one plugin: unset it, or capture "
            "without --nccl-plugin"
        )
    variables = {
        LOADED_BY: path,
        "EIDOLA_NCCL_FOLDER": str(out.resolve()),
        "EIDOLA_NCCL_RECORDS": str(records),
    }
    return variables if events is None else {**variables, "EIDOLA_NCCL_EVENTS": str(events)}


def offer(out: Path, wanted: bool | None) -> tuple[dict[str, str], list[str]]:
    """Return the variables under which NCCL writes its records into `out`, and why it will not, where that is news.

    `wanted` None: where this Python's PyTorch was built for CUDA or ROCm, and whatever stands in the way is said,
    not raised; True: everywhere, raising what `environment` raises; False: nowhere.
    """
    if wanted:
        return environment(out), []
    if wanted is False or not _torch_has_nccl():
        return {}, []
    if own := os.environ.get(LOADED_BY):
        return {}, [f"records of NCCL: {LOADED_BY}={own} is the job's own plugin, and NCCL loads one"]
    try:
        return environment(out), []
    except EidolaError as error:
        return {}, [f"records of NCCL: {error}"]


def _torch_has_nccl() -> bool:
    """Say whether this Python's PyTorch was built for CUDA or ROCm, by its version.py; imports nothing."""
    spec = find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec is not None and spec.origin else None
    if file is None or not file.is_file():
        return False
    return (
        re.search(r"^(cuda|hip)\b[^=\n]*= *['\"]", file.read_text(encoding="utf-8"), re.MULTILINE) is not None
    )


_CAPACITY_AT, _NEXT_AT, _LIBRARY_AT, _LIBRARY_BYTES = 16, 128, 192, 128  # ring.h
_RECORDS_AT, _RECORD_BYTES = 4096 + 256 * 128, 64
_MAGIC = b"EIDNCCL1"


def compact(path: Path, *, anonymous: bool = False) -> None:
    """Cut a ring file to the records that it holds; one that its process never finished opening goes.

    `anonymous` leaves out where NCCL was installed. The process may still run: it keeps the file that it has
    mapped, which bears the name no longer.
    """
    content = bytearray(path.read_bytes())
    if not content.startswith(_MAGIC):
        path.unlink()
        return
    (capacity,) = struct.unpack_from("<Q", content, _CAPACITY_AT)
    (following,) = struct.unpack_from("<Q", content, _NEXT_AT)
    kept = min(
        capacity, 1 << max(0, following - 1).bit_length()
    )  # a power of two: each record keeps its slot
    struct.pack_into("<Q", content, _CAPACITY_AT, kept)
    if anonymous:
        (library,) = struct.unpack_from(f"{_LIBRARY_BYTES}s", content, _LIBRARY_AT)
        struct.pack_into(f"{_LIBRARY_BYTES}s", content, _LIBRARY_AT, library.rpartition(b"/")[2])
    partial = path.with_name(f".partial.{path.name}")
    partial.write_bytes(content[: _RECORDS_AT + kept * _RECORD_BYTES])
    partial.rename(path)
