"""Files of one format -> a trace: planned, read task by task, written as one job."""

from collections.abc import Callable, Iterable
from pathlib import Path

from ..schemas import TraceWriter
from .formats import Format
from .job import write_job
from .rank import RankRecord
from .report import ConversionReport

Progress = Callable[[str, int, int], None]


def convert(
    kind: Format,
    paths: Iterable[str | Path],
    output: str | Path,
    *,
    companions: Iterable[str | Path] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ConversionReport:
    """Convert `paths`, files or folders of format `kind`, into the trace folder `output`.

    `companions` are files of the format's companion. `progress` is called with (what, done, total). Raises
    UsageError for arguments that make no sense, InputError for files that cannot be one job's; nothing is then left
    under `output`.
    """
    tasks = kind.plan([Path(p) for p in paths], [Path(p) for p in companions])
    with TraceWriter(output, overwrite=overwrite) as writer:
        records: list[RankRecord] = []
        for done, task in enumerate(tasks):
            if progress:
                progress(f"reading {kind.name}", done, len(tasks))
            records += kind.read(task, len(tasks) == 1)
        report = write_job(writer, records, kind.name)
    if progress:
        progress("done", len(tasks), len(tasks))
    return report
