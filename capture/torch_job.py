"""What the ranks of a PyTorch job left in a folder -> a complete raw capture."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

from ..schemas.errors import CaptureError
from . import raw

_PRIVATE = re.compile(r'("(?:host_name|traceName)": )"[^"]*"')


def complete(folder: Path, command: str, *, exit_code: int | None = None, anonymous: bool = False) -> int:
    """Write `capture.json` for the ranks in `folder`, newest restart of each; return how many there are.

    Raises CaptureError where no rank attached, with what the processes left as a reason.
    """
    ranks: dict[int, dict[str, Any]] = {}
    earlier = []
    for file in sorted(folder.glob("rank*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        record["file"] = file.name
        older = ranks.get(record["rank"])
        if older is not None:
            earlier.append(older if older["restart"] < record["restart"] else record)
        if older is None or older["restart"] < record["restart"]:
            ranks[record["rank"]] = record
    failures = [file.read_text() for file in sorted(folder.glob("failed-*.txt"))]
    if not ranks:
        raise CaptureError(_nobody(failures))
    for file in (*folder.glob("claim-*"), *folder.glob(".partial.*"), *folder.glob("failed-*.txt")):
        file.unlink()
    if anonymous:
        _anonymise(folder)
    raw.write_manifest(folder, {
        "kind": "torch",
        "backend": "host",
        "command": command,
        "exit_code": exit_code,
        "machine": raw.machine(anonymous=anonymous),
        "versions": {**raw.versions(), **next(iter(ranks.values())).get("versions", {})},
        "oversubscribed": len(ranks) > raw.usable_cores(),
        "clock": "the realtime clock, one for all ranks of a host",
        "failures": failures,
        "ranks": [
            {key: record[key] for key in ("rank", "restart", "file", "trace", "sealed", "gap")}
            for _, record in sorted(ranks.items())
        ],
        "earlier_restarts": [{key: record[key] for key in ("rank", "restart", "file")} for record in earlier],
    })  # fmt: skip
    return len(ranks)


def _nobody(failures: list[str]) -> str:
    if failures:
        return f"no rank attached: {failures[0]}"
    return (
        "no rank attached: no process called torch.distributed.init_process_group with the capture in its "
        "environment. `python -E`, `-I` and `-S` switch it off; a script without process groups can use "
        "`with eidola.capture.session(...)`"
    )


def _anonymise(folder: Path) -> None:
    for file in folder.glob("rank*.kineto.json.gz"):
        text = _PRIVATE.sub(r'\1""', gzip.decompress(file.read_bytes()).decode("utf-8"))
        file.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
