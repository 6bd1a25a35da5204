"""`generate`: a generator's traffic as a trace."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...schemas import Trace, TraceWriter
from .columns import FLAG_BYTES, Generator, chosen

TRUTH = "nothing: made to order by stated laws, measured nowhere"


def generate(
    traffic: Generator,
    output: str | Path,
    *,
    targets: int | None = None,
    overwrite: bool = False,
    command: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Trace:
    """Write the trace `output`: every rank of `traffic`, backend `virtual`, origin `inferred`.

    With `targets` only traffic to or from GPUs 0 .. targets - 1 is written; all ranks keep their phases. The notes
    hold the generator, its parameters and `command`. `progress` is called with (ranks done, ranks).

    Raises UsageError where `output` is taken or `targets` out of range; nothing is then left at `output`.
    """
    writer = TraceWriter(output, overwrite=overwrite)
    chosen(traffic.gpus, targets)
    with writer:
        writer.notes = notes(traffic, targets, command)
        for rank, spans, writes, waits in traffic.traffic(targets):
            writer.write("ranks", rank, {"backend": ["virtual"]})
            writer.write("spans", rank, spans)
            writer.write("writes", rank, writes)
            writer.write("waits", rank, waits)
            if progress:
                progress(rank + 1, traffic.gpus)
    return Trace(output)


def notes(traffic: Generator, targets: int | None, command: str | None) -> dict[str, Any]:
    """Return what the trace says of its making."""
    return {
        "source": "eidola replay generate",
        "generated": True,
        "generator": traffic.name,
        "parameters": asdict(traffic),  # type: ignore[call-overload]
        "seed": traffic.seed,
        "targets": targets,
        "command": command,
        "truth": TRUTH,
        "flags": {"numbering": traffic.flags(), "size_bytes": FLAG_BYTES},
    }
