"""The profiler plugin for NCCL and RCCL: built at first use, loaded by them, never by this process.

`plugin.c` writes what NCCL tells it to one ring file a process (`ring.h` has the layout);
`eidola.convert.nccl_plugin` reads it. Versions 1 to 6 of the interface, that is NCCL 2.23 to 2.30; newer releases
still take version 6.
"""

import os
from pathlib import Path

from ...schemas.errors import UsageError
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
