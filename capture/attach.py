"""Inside a captured process: attach to the first process group, and let nothing of that reach the script."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ..schemas.errors import EidolaError
from .torch_rank import Options, TorchRank, note_failure

FOLDER = "EIDOLA_CAPTURE_FOLDER"
OPTIONS = "EIDOLA_CAPTURE_OPTIONS"
_INJECTED = Path(__file__).with_name("inject")

_current: TorchRank | None = None


def current() -> TorchRank | None:
    """Return this process's recorder, where one is attached; None in its forked children."""
    return _current if _current is not None and _current.pid == os.getpid() else None


def hook(c10d: ModuleType) -> None:
    """Wrap `init_process_group` and `destroy_process_group` of torch's `distributed_c10d`.

    Their results and exceptions are the script's; what goes wrong in the hooks is noted in the capture.
    """
    c10d.init_process_group = _then(c10d.init_process_group, attach)  # type: ignore[attr-defined]
    c10d.destroy_process_group = _first(c10d.destroy_process_group, _note_groups)  # type: ignore[attr-defined]


def attach() -> None:
    """Start recording this rank, unless another process has claimed the same rank and restart."""
    global _current
    if _current is not None or FOLDER not in os.environ:
        return
    import torch.distributed

    folder, options = Path(os.environ[FOLDER]), Options(**json.loads(os.environ[OPTIONS]))
    rank, restart = torch.distributed.get_rank(), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    withdraw()
    try:
        (folder / f"claim-{rank}-{restart}").open("x").close()
    except FileExistsError:
        return
    recorder = TorchRank(folder, rank, torch.distributed.get_world_size(), restart=restart, options=options)
    try:
        recorder.start()
    except EidolaError as error:
        note_failure(folder, f"rank {rank}: {error}")
        return
    _current = recorder


def finish() -> None:
    """Seal the recording at exit; called by the injected sitecustomize."""
    if recorder := current():
        _guard(functools.partial(recorder.seal, "exit"))


def withdraw() -> None:
    """Take the injection out of this process's environment, so that its children start without it."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in entries if entry and Path(entry).resolve() != _INJECTED.resolve()]
    if kept:
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    else:
        os.environ.pop("PYTHONPATH", None)
    os.environ.pop(FOLDER, None)
    os.environ.pop(OPTIONS, None)


def _note_groups() -> None:
    if recorder := current():
        recorder.note_groups()


def _then(function: Callable[..., Any], after: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        _guard(after)
        return result

    return wrapped


def _first(function: Callable[..., Any], before: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        _guard(before)
        return function(*args, **kwargs)

    return wrapped


def _guard(action: Callable[[], None]) -> None:
    folder = os.environ.get(FOLDER)
    try:
        action()
    except Exception as error:  # noqa: BLE001  (a capture that fails must not fail the training)
        where = _current.folder if _current is not None else folder
        if where is not None:
            note_failure(Path(where), f"{type(error).__name__}: {error}")
