"""`with eidola.capture.session("out/") as s:` around a training loop."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from ..schemas.errors import MissingError, UsageError
from . import attach, nccl, raw, torch_claims
from .recorder import place
from .torch_job import complete
from .torch_rank import Detail, Options, TorchRank


@contextmanager
def session(
    output: str | Path,
    *,
    detail: Detail = "off",
    window_steps: int = 3,
    budget: float = 0.01,
    ring_mib: int = 32,
    nccl_plugin: bool | None = None,
    overwrite: bool = False,
) -> Iterator[TorchRank]:
    """Record this rank while the block runs; yields its recorder (`step()`, `phase(name)`).

    Every rank of the job gives the same `output`; the last one to leave completes the raw capture there, also where
    others were killed before; a session that was killed whole is completed by `recover`. The options are those of
    `run`; NCCL loads its plugin with its first communicator, so begin before. Under `eidola capture run` the
    running capture is used, and `output` and the options are ignored. Raises MissingError without torch,
    CaptureError where the rings cannot be allocated.
    """
    if running := attach.current():
        yield running
        return
    if find_spec("torch") is None:
        raise MissingError(
            "torch is not installed; a session records PyTorch: pip install 'eidola-sim[capture]'"
        )
    path = Path(output)
    raw.refuse_existing(path, overwrite=overwrite)
    rank, world_size = _identity()
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} of {world_size}: RANK and WORLD_SIZE contradict each other")
    options = Options(detail, window_steps, budget, ring_mib)
    folder = _partial(path)
    folder.mkdir(parents=True, exist_ok=True)
    plugin, absent = nccl.offer(place.make(folder, options.ring_bytes), nccl_plugin)
    torch_claims.claim(folder, rank)
    recorder = TorchRank(folder, rank, world_size, options=options)
    recorder.start()
    os.environ |= plugin
    try:
        yield recorder
    finally:
        for name in plugin:
            os.environ.pop(name, None)
        if os.getpid() == recorder.pid:  # a forked child that leaves the block has recorded nothing
            recorder.seal("session's end")
            place.collect(folder, f"*rank{rank:05d}.*")  # the one who completes may be on another host
            if torch_claims.leave(folder, rank, world_size):
                _complete(folder, path, absent)


def recover(output: str | Path, *, overwrite: bool = False) -> int:
    """Complete the capture of a session to `output` whose processes were killed; return how many ranks it has.

    Raises UsageError where there is none, or one of its processes still runs.
    """
    path = Path(output)
    folder = _partial(path)
    if not folder.is_dir():
        raise UsageError(f"no session to {path} was killed: there is no {folder}")
    raw.refuse_existing(path, overwrite=overwrite)
    if running := torch_claims.claimed(folder) - torch_claims.ended(folder):
        raise UsageError(
            f"ranks {sorted(running)} of the session to {path} still run (or ran on another host); wait"
        )
    return _complete(folder, path, ())


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial.session")


def _complete(folder: Path, path: Path, absent: Sequence[str]) -> int:
    ranks = complete(folder, "with eidola.capture.session(...)", absent=absent)
    raw.replace(folder, path)
    return ranks


def _identity() -> tuple[int, int]:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
