"""The report of a trace, of a run, of a sweep, or of a comparison."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..schemas import InputError, Results, Trace, UsageError
from .comparison import comparison_report
from .page import page
from .run import run_report
from .sweep import sweep_report
from .trace import trace_report
from .view import Progress


def report(
    path: str | Path,
    output: str | Path = "report.html",
    critical_path: Sequence[Mapping[str, Any]] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the report of the run, trace or sweep folder `path` as one HTML file, and return where it is.

    `critical_path` is the run's, in time order, as mappings with start_ps, end_ps, rank, agent, what, name, link
    and flag (None where a segment has none). `progress` is told what is done, how many views, and of how
    many. An existing file is replaced. Raises InputError where `path` is none of them, UsageError
    where `output` cannot be written.
    """
    path, output = Path(path), Path(output)
    if (path / "manifest.json").is_file():
        head, views = run_report(Results(path), critical_path, progress)
    elif (path / "trace.json").is_file():
        head, views = trace_report(Trace(path), progress)
    elif (path / "study.json").is_file():
        head, views = sweep_report(path)
    else:
        raise InputError(
            f"{path} is neither a run nor a trace nor a sweep: it has no manifest.json, trace.json or study.json; "
            "make one with `eidola replay run`, `eidola convert` or `eidola replay sweep`"
        )
    _write(output, page(head, views))
    return output


def report_comparison(comparison: Mapping[str, Any], output: str | Path = "report.html") -> Path:
    """Write the report of a comparison, as `Comparison.as_dict` gives it, as one HTML file; return where it is.

    An existing file is replaced. Raises UsageError where `output` cannot be written.
    """
    head, views = comparison_report(comparison)
    _write(Path(output), page(head, views))
    return Path(output)


def _write(output: Path, text: str) -> None:
    """Write beside the final place, then rename: an interrupted report leaves nothing that looks complete."""
    partial = output.with_name(f".{output.name}.partial.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(output)
    except OSError as error:
        raise UsageError(f"{output} cannot be written ({error}); choose another -o") from error
    finally:
        partial.unlink(missing_ok=True)
