"""Raw captures of this project's own capture stage -> the schema."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..schemas import InputError, TraceWriter, check
from . import captured_kernel, captured_torch
from .damage import told_of

MANIFEST = "capture.json"
FORMAT = 1

Reader = Callable[[Path, dict[str, Any], TraceWriter], None]


def captured(path: str | Path, output: str | Path, *, overwrite: bool = False) -> Path:
    """Convert the raw capture at `path` to the trace `output`, and return its path.

    Raises InputError where `path` is no raw capture or a damaged one; then nothing is left at `output`.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    reader = _reader(folder, manifest)
    with _Checked(folder, output, overwrite) as writer, told_of([folder]):
        try:
            _check_ranks(folder, manifest)
            reader(folder, manifest, writer)
        except (KeyError, TypeError) as error:
            text = f"{folder / MANIFEST}: an entry is missing or of another type ({repr(error)[:200]})"
            raise InputError(f"{text}; capture again with this version") from error
    return Path(output)


def _check_ranks(folder: Path, manifest: dict[str, Any]) -> None:
    for entry in manifest["ranks"]:
        if type(entry["rank"]) is not int or not 0 <= entry["rank"] < 1 << 31:
            shown = repr(entry["rank"])[:40]
            raise InputError(f"{folder / MANIFEST} has a rank {shown}: it is damaged; copy the capture again")


class _Checked(TraceWriter):
    """A trace that is checked whole: captures are small, and their rows name each other by number."""

    def __init__(self, source: Path, output: str | Path, overwrite: bool) -> None:
        super().__init__(output, overwrite=overwrite, verify=True)
        self.source = source

    def finish(self) -> None:
        """Raise InputError where what is copied from the capture holds numbers that JSON does not have."""
        try:
            json.dumps(self.notes, allow_nan=False)
        except ValueError as error:
            raise InputError(
                f"{self.source / MANIFEST} holds a number that is not finite: it is damaged; copy the capture again"
            ) from error

    def inspect(self) -> None:
        """Raise InputError for the first thing that breaks the schema."""
        for problem in check(self.partial):
            if problem.severity == "error":
                where = f"table {problem.table}, column {problem.column}, row {problem.row}"
                raise InputError(
                    f"the capture gives a trace that breaks the schema ({where}: {problem.message}): its files are "
                    "damaged; copy the whole capture folder again"
                )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the content of `capture.json`. Raises InputError where it is missing, broken, or too new."""
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{folder} is no raw capture: {file} cannot be read ({error})") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise InputError(f"{file} has no format number: it was not written by `eidola capture`")
    if manifest["format"] > FORMAT:
        raise InputError(
            f"{file} has format {manifest['format']}; this eidola reads up to {FORMAT}: upgrade it"
        )
    return manifest


def _reader(folder: Path, manifest: dict[str, Any]) -> Reader:
    readers: dict[str, Reader] = {"kernel": captured_kernel.convert, "torch": captured_torch.convert}
    kind, known = str(manifest.get("kind"))[:60], " and ".join(readers)
    if reader := readers.get(kind):
        return reader
    raise InputError(f"{folder / MANIFEST} holds kind {kind!r}; this eidola reads {known}")
