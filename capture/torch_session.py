"""`with eidola.capture.session("out/") as s:` around a training loop."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from ..schemas.errors import MissingError, UsageError
from . import attach, raw
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
    overwrite: bool = False,
) -> Iterator[TorchRank]:
    """Record this rank while the block runs; yields its recorder (`step()`, `phase(name)`).

    Every rank of the job gives the same `output`; the last one to leave completes the raw capture there. The
    options are those of `run`. Under `eidola capture run` the running capture is used, and `output` and the
    options are ignored. Raises MissingError without torch, CaptureError where the rings cannot be allocated.
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
    folder = path.with_name(f".{path.name}.partial.session")
    folder.mkdir(parents=True, exist_ok=True)
    recorder = TorchRank(folder, rank, world_size, options=options)
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.seal("session's end")
        _complete_as_last(folder, path, world_size)


def _identity() -> tuple[int, int]:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _complete_as_last(folder: Path, path: Path, world_size: int) -> None:
    """Complete the capture where all ranks have left; of those that see that, one does."""
    left = folder / f"left-{os.getpid()}"
    left.touch()
    if len(list(folder.glob("left-*"))) < world_size:
        return
    try:
        (folder / "completing").open("x").close()
    except FileExistsError:
        return
    complete(folder, "with eidola.capture.session(...)")
    for file in (*folder.glob("left-*"), folder / "completing"):
        file.unlink()
    raw.replace(folder, path)
