"""One point of a study: what it is, how a worker runs it, and when it counts as done."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...schemas import InputError, Results
from ..api import Arguments, replay

_ID_DIGITS = 16  # of a SHA-256: 64 bits, so that a million points collide with a chance of 3e-8


@dataclass(frozen=True)
class Point:
    """One run to make: a trace, arguments of `replay`, and the SHA-256 of the files that they name.

    `fabric_sha256` is None unless the fabric is a file.
    """

    trace: Path
    trace_sha256: str
    fabric_sha256: str | None
    arguments: Arguments

    @cached_property
    def id(self) -> str:
        """Name of its folder: a hash of the arguments that are not the defaults, and of the files' contents."""
        inputs = {"trace": {"sha256": self.trace_sha256}}
        if self.fabric_sha256:
            inputs["fabric"] = {"sha256": self.fabric_sha256}
        return _identity(asdict(self.arguments), inputs)


def run_point(point: Point, runs: Path, command: str | None) -> None:
    """Replay `point` into the folder `runs`/id, which appears only when it is whole. Runs in a worker.

    Each attempt writes a folder of its own. Where two attempts finish, as when a cluster gave up a worker too
    early, the first stays. Raises what `replay` raises.
    """
    own = runs / f".{point.id}.{uuid.uuid4().hex}"
    given = dict(vars(point.arguments))
    replay(point.trace, own, command=command, **given)
    try:
        own.rename(runs / point.id)
    except OSError:
        if not is_done(point, runs):
            raise
        shutil.rmtree(own)


def is_done(point: Point, runs: Path) -> bool:
    """Whether `runs` holds the run of `point`, by its manifest: same arguments, same contents of files.

    Raises InputError where something else bears the name.
    """
    folder = runs / point.id
    if not folder.exists():
        return False
    manifest = Results(folder).manifest
    try:
        found = _identity(manifest["arguments"], manifest["inputs"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder}: its manifest lacks {error}; remove the folder and sweep again"
        ) from error
    if found != point.id:
        raise InputError(f"{folder} is the run of other arguments; remove the folder and sweep again")
    return True


def _identity(arguments: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """Hash what a run follows from. Defaults are left out, so that a new argument leaves old points valid."""
    defaults = _plain(asdict(Arguments()))
    held = {name: value for name, value in _plain(arguments).items() if value != defaults.get(name)}
    held |= {name: inputs[name]["sha256"] for name in ("trace", "fabric") if name in inputs}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:_ID_DIGITS]


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as JSON gives them back."""
    return dict(json.loads(json.dumps(dict(arguments))))
