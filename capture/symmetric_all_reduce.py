"""torch's symmetric-memory all-reduce, one-shot and two-shot, as a job to capture.

    eidola capture run --detail all -- torchrun --nproc-per-node 4 -m eidola.capture.symmetric_all_reduce two-shot

Ranks read their peers' buffers from inside the kernel (one-shot: all of every peer's; two-shot: reduce a slice,
then gather the slices); in a profiler's trace it is a kernel and no collective. Results are checked. The operators
are those of torch.ops.symm_mem, which torch calls alpha; seen in 2.13. Not yet run on GPUs.
"""

import argparse
import os
import sys
from typing import Any

from ..schemas.errors import CaptureError, EidolaError, MissingError, UsageError

FORMS = {"one-shot": "one_shot_all_reduce", "two-shot": "two_shot_all_reduce_"}


def all_reduce(form: str, elements: int, iterations: int) -> None:
    """All-reduce `elements` floats `iterations` times among the ranks that torchrun started, and check each result.

    Raises MissingError where torch, its operator or a GPU is not there, UsageError outside torchrun, CaptureError
    for a wrong result.
    """
    torch, reduce = _operator(form)
    if "LOCAL_RANK" not in os.environ:
        raise UsageError(
            "start one process a GPU: torchrun --nproc-per-node 4 -m eidola.capture.symmetric_all_reduce one-shot"
        )
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if device.index >= torch.cuda.device_count():
        raise MissingError(
            f"rank {device.index} has no GPU of its own: there are {torch.cuda.device_count()}; start as many "
            "processes"
        )
    torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl", device_id=device)
    try:
        _run(torch, reduce, device, elements, iterations)
    finally:
        torch.distributed.destroy_process_group()


def _operator(form: str) -> tuple[Any, Any]:
    """Return torch and the operator."""
    try:
        import torch
        import torch.distributed._symmetric_memory
    except ImportError as error:
        raise MissingError(
            f"torch with symmetric memory is not there ({error}): pip install 'torch>=2.9'"
        ) from error
    if not torch.cuda.is_available():
        raise MissingError(
            "symmetric memory needs GPUs that reach each other's memory, and torch finds none: run this where "
            "there are, with a torch built for them; `eidola capture kernel gemv-allreduce` captures an all-reduce "
            "of flags and writes on CPU threads"
        )
    name = FORMS[form]
    if not hasattr(torch.ops.symm_mem, name):
        raise MissingError(f"torch {torch.__version__} has no torch.ops.symm_mem.{name}; use a newer one")
    return torch, getattr(torch.ops.symm_mem, name)


def _run(torch: Any, reduce: Any, device: Any, elements: int, iterations: int) -> None:
    memory, group = torch.distributed._symmetric_memory, torch.distributed.group.WORLD
    rank, ranks = group.rank(), group.size()
    buffer = memory.empty(elements, dtype=torch.float32, device=device)
    memory.rendezvous(buffer, group)
    for iteration in range(iterations):
        buffer.fill_(rank + iteration)
        torch.distributed.barrier()
        found = reduce(buffer, "sum", group.group_name)
        expected = ranks * (ranks - 1) // 2 + ranks * iteration
        wrong = int((found != expected).sum())
        if wrong:
            raise CaptureError(f"rank {rank}, iteration {iteration}: {wrong} elements are not {expected}")
        torch.distributed.barrier()  # one-shot leaves the buffers as they were: refill only when all have read


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eidola.capture.symmetric_all_reduce", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("form", choices=FORMS, help="how it goes")
    parser.add_argument("--elements", type=int, default=1 << 20, help="floats a rank (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=10, help="how often (default: %(default)s)")
    given = parser.parse_args()
    try:
        all_reduce(given.form, given.elements, given.iterations)
    except EidolaError as error:
        print(f"eidola: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main()
