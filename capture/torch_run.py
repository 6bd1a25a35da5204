"""`eidola capture run`: run a command unchanged, and capture every rank that joins a process group."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from ..schemas.errors import CaptureError, EidolaError, UsageError
from . import nccl, raw
from .attach import FOLDER, OPTIONS
from .recorder import build, place
from .telemetry import Sampler
from .torch_job import complete
from .torch_rank import Detail, Options

INJECTED = Path(__file__).with_name("inject")
TELEMETRY = "telemetry.jsonl"


def run(
    command: Sequence[str],
    output: str | Path,
    *,
    detail: Detail = "off",
    window_steps: int = 3,
    budget: float = 0.01,
    ring_mib: int = 32,
    nccl_plugin: bool | None = None,
    telemetry_s: float | None = None,
    overwrite: bool = False,
    anonymous: bool = False,
) -> int:
    """Run `command`, write its raw capture to `output`, and return the command's own exit code.

    `detail`: `off` (the light level), `spaced` (also profiler windows of `window_steps` steps with CPU operators,
    within `budget`, a share of the run's time), `all` (one window after the other). `ring_mib`: memory a rank for
    collectives. `nccl_plugin`: NCCL or RCCL also writes its records there; None: where PyTorch has one and the
    plugin can be built and loaded, else the capture says why not. `telemetry_s`: this machine's GPUs are sampled
    every so many seconds.

    Raises CaptureError where no rank attached (its exit code is then the command's, where that failed), UsageError
    where the command cannot be started, `output` is taken, or the plugin is wanted and NCCL has another one.
    """
    if not command:
        raise UsageError("no command given; write it after --: eidola capture run -- torchrun ... train.py")
    options = Options(detail, window_steps, budget, ring_mib)
    with raw.raw_folder(Path(output), overwrite=overwrite) as folder:
        _build_recorder()
        plugin, absent = nccl.offer(place.make(folder, options.ring_bytes), nccl_plugin)
        environment = _environment(folder, options) | plugin
        sampled = Sampler(folder / TELEMETRY, telemetry_s) if telemetry_s is not None else nullcontext()
        try:
            with sampled:
                code = _wait(subprocess.Popen(command, env=environment))
        except OSError as error:
            place.discard(folder)
            raise UsageError(f"{command[0]} cannot be started: {error}") from error
        code = code if code >= 0 else 128 - code
        try:
            complete(folder, shlex.join(command), exit_code=code, anonymous=anonymous, absent=absent)
        except CaptureError as error:
            place.discard(folder)
            error.exit_code = code or error.exit_code
            raise
    return code


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Return the command's exit code. Control-C goes to it too: it decides when to end, and is still captured."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def _build_recorder() -> None:
    """Build the recorder before the ranks need it; what fails, they note: the script may use another Python."""
    try:
        build.library()
    except EidolaError as error:
        print(f"eidola: {error}", file=sys.stderr)


def _environment(folder: Path, options: Options) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(INJECTED), os.environ.get("PYTHONPATH"))))
    own = {"PYTHONPATH": path, FOLDER: str(folder.resolve()), OPTIONS: options.as_json()}
    return {**os.environ, **own}
