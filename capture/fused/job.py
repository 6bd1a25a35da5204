"""Lay a fused kernel's job out in memory: `struct fused_job` of its source, every field 8 bytes.

The same on a CPU and on GPUs; only who allocates differs. A table is an array with one pointer a rank.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...schemas.errors import CaptureError
from .. import records
from .spec import Arrays, Floats, FusedKernel

FLAG_WORDS = 8  # a flag has 64 bytes to itself, of which it uses one word of 8
FLAG_BYTES = 8
_FAILURE = ("failed", "time", "workgroup", "flag", "expected", "seen")
NUMBERING = "(exchange * ranks + source rank) * workgroups + workgroup, at the waiting rank"
FLAG_VALUE = "epoch: the iteration, counted from 1; a flag is never reset"

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Run:
    """What came out of a run, wherever it ran.

    `outputs`: float32, ranks x iterations x words. `buffers[rank]`: all records, workgroups x capacity, of which
    `counts[rank]` (workgroups) tells how many were made and kept. `ranks`: what the backend says of each rank;
    `details`: what it says of the run.
    """

    outputs: Floats
    buffers: list[npt.NDArray[np.void]]
    counts: list[npt.NDArray[np.void]]
    ranks: list[dict[str, Any]]
    details: dict[str, Any]

    @property
    def records(self) -> list[list[npt.NDArray[np.void]]]:
        """The records that were kept, by rank and workgroup."""
        return [
            [buffer[: int(n)] for buffer, n in zip(buffers, counts["kept"], strict=True)]
            for buffers, counts in zip(self.buffers, self.counts, strict=True)
        ]

    @property
    def emitted(self) -> npt.NDArray[np.uint64]:
        """Records made, kept or not: ranks x workgroups."""
        return np.stack([counts["emitted"] for counts in self.counts])


def rank_arrays(spec: FusedKernel) -> Arrays:
    """Return a rank's own buffers, cleared, in the order of the tables of `fused_base`."""
    return {
        "flags": np.zeros((_flags(spec) + 1) * FLAG_WORDS, np.uint64),
        "failures": np.zeros(len(_FAILURE), np.uint64),
        "records": np.zeros((spec.workgroups, spec.buffer_records), records.RECORD),
        "counts": np.zeros(spec.workgroups, records.COUNTS),
        "results": np.zeros((2, spec.result_words), np.float32),
    }


def job_words(
    spec: FusedKernel,
    tables: Mapping[str, int],
    inputs: Sequence[str],
    *,
    deadline_ticks: int,
    reports: int = 0,
) -> Words:
    """Return the job as words: `tables` gives the address of each table, `inputs` the names of the inputs'."""
    mute = -1 if spec.mute_rank is None else spec.mute_rank
    base = (spec.gpus, spec.workgroups, spec.iterations, spec.buffer_records)
    own = ("flags", "failures", "records", "counts", "results", "outputs")
    words = [
        *base,
        deadline_ticks,
        mute,
        spec.result_words,
        *(tables[name] for name in own),
        reports,
        *spec.numbers(),
        *(tables[name] for name in (*inputs, *spec.scratch())),
    ]
    return np.array(words, np.int64).view(np.uint64)


def pointer_tables(ranks: Sequence[Mapping[str, Any]], address: Callable[[Any], int]) -> dict[str, Words]:
    """Return, for each name of the ranks' arrays, the pointers to them."""
    return {name: np.array([address(rank[name]) for rank in ranks], np.uint64) for name in ranks[0]}


def raise_if_stalled(spec: FusedKernel, failures: Sequence[Words]) -> None:
    """Raise CaptureError naming rank, flag, expected and seen of the first wait that passed its deadline."""
    told = [(rank, dict(zip(_FAILURE, map(int, words), strict=True))) for rank, words in enumerate(failures)]
    failed = [(told_by["time"], rank, told_by) for rank, told_by in told if told_by["failed"]]
    if not failed:
        return
    _, rank, failure = min(failed, key=lambda f: f[:2])
    region, rest = divmod(failure["flag"], spec.gpus * spec.workgroups)
    source = f"{spec.regions[region]} from rank {rest // spec.workgroups}"
    raise CaptureError(
        f"rank {rank}, workgroup {failure['workgroup']} waited longer than {spec.deadline_s} s for "
        f"flag {failure['flag']} ({source}): expected {failure['expected']}, seen {failure['seen']}. "
        "On a busy machine allow more with --deadline"
    )


def check_result(spec: FusedKernel, inputs: list[Arrays], outputs: Floats) -> None:
    """Raise CaptureError naming the first element that is not what a plain product gives."""
    wrong = np.argwhere(outputs != spec.expected(inputs))
    if wrong.size:
        rank, iteration, element = wrong[0]
        raise CaptureError(
            f"rank {rank} has a wrong result in iteration {iteration}, element {element} ({len(wrong)} "
            "elements in all): the protocol is broken on this machine; please report it with the device's model"
        )


def flags_description(spec: FusedKernel) -> dict[str, Any]:
    """Return how flags are numbered and what they hold, as `capture.json` carries it."""
    return {
        "numbering": NUMBERING,
        "value": FLAG_VALUE,
        "size_bytes": FLAG_BYTES,
        "count": _flags(spec),
    }


def _flags(spec: FusedKernel) -> int:
    return len(spec.regions) * spec.gpus * spec.workgroups
