"""`eidola capture run`: run a command unchanged, and capture every rank that joins a process group."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..schemas.errors import CaptureError, UsageError
from . import raw
from .attach import FOLDER, STEPS
from .torch_job import complete

INJECTED = Path(__file__).with_name("inject")


def run(
    command: Sequence[str],
    output: str | Path,
    *,
    steps: int = 20,
    overwrite: bool = False,
    anonymous: bool = False,
) -> int:
    """Run `command`, write its raw capture to `output`, and return the command's own exit code.

    Each rank's profiler window covers its first `steps` optimizer steps. Raises CaptureError where no rank
    attached (its exit code is then the command's, where that failed), UsageError where the command cannot be
    started or `output` is taken.
    """
    if not command:
        raise UsageError("no command given; write it after --: eidola capture run -- torchrun ... train.py")
    if steps < 1:
        raise UsageError(f"steps is {steps}; the profiler window needs at least 1")
    with raw.raw_folder(Path(output), overwrite=overwrite) as folder:
        try:
            code = subprocess.run(command, env=_environment(folder, steps), check=False).returncode
        except OSError as error:
            raise UsageError(f"{command[0]} cannot be started: {error}") from error
        code = code if code >= 0 else 128 - code
        try:
            complete(folder, shlex.join(command), exit_code=code, anonymous=anonymous)
        except CaptureError as error:
            error.exit_code = code or error.exit_code
            raise
    return code


def _environment(folder: Path, steps: int) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(INJECTED), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, FOLDER: str(folder.resolve()), STEPS: str(steps)}
