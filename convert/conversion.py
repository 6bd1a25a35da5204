"""Files of one format -> a trace: planned, read task by task, written as one job."""

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

from ..schemas import TraceWriter, UsageError
from .damage import told_of
from .formats import Format
from .job import write_job
from .reading import Progress, inputs, read_task, read_tasks, reading_folder
from .report import ConversionReport
from .scratch import scratch_in


def convert(
    kind: Format,
    paths: Iterable[str | Path],
    output: str | Path,
    *,
    companions: Iterable[str | Path] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
    jobs: int | None = None,
    cluster: str | None = None,
) -> ConversionReport:
    """Convert `paths`, files or folders of format `kind`, into the trace folder `output`.

    `companions` are files of the format's companion. `progress` is called with (what, done, total). Several
    ranks are read in `jobs` processes (default: one a core where the files are large), or on the Dask cluster whose
    scheduler is at `cluster`; its workers must see the files and `output` under the same paths.

    Raises UsageError for arguments that make no sense, InputError for files that cannot be one job's; nothing
    is then left under `output`. A run that was killed leaves nothing there either, and the same call goes on
    with the ranks that it had read.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs}: give at least 1")
    show = progress or _silent
    given = [Path(p) for p in paths], [Path(p) for p in companions]
    with told_of([*given[0], *given[1]]):
        tasks = kind.plan(*given)
    single = len(tasks) == 1 and cluster is None
    writer = TraceWriter(output, overwrite=overwrite, verify=True)
    with nullcontext() if single else reading_folder(Path(output)) as folder, writer:
        if folder is None:
            show(f"reading {kind.name}", 0, 1)
            with scratch_in(writer.partial.parent):
                records = read_task(kind, tasks[0], alone=True)
        else:
            records = read_tasks(kind, tasks, folder, show, jobs=jobs, cluster=cluster)
        with told_of(inputs(tasks)):
            report = write_job(writer, records, kind.name)
    show("done", len(tasks), len(tasks))
    return report


def _silent(what: str, done: int, total: int) -> None:
    """Show nothing."""
