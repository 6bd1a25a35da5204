"""How well missing ranks are predicted from 2 or 4 captured ones: the table of "Scaling" in docs/validation.md.

    python docs/studies/scaling.py [TRACES]

TRACES is a folder with the 8-rank V100 job (`kineto/v100_dlrm_8ranks`, `execution_trace/v100_dlrm_8ranks`). All
choices of 2 and of 4 of its ranks are kept in turn; `fill` lets them stand for the others, and the replay at 8 GPUs
is compared with the capture of all 8.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eidola.convert import kineto
from eidola.replay import run, scale
from eidola.replay.presets import preset
from eidola.schemas import Trace

RANKS = 8
Floats = npt.NDArray[np.floating[Any]]


@dataclass
class Step:
    """A step of 8 ranks in microseconds.

    `length` of all; (collectives, ranks) `start` and `end`: when each rank came and left; (ranks,) `compute`: its
    kernels, collectives left out.
    """

    length: float
    start: Floats
    end: Floats
    compute: Floats

    @property
    def after(self) -> float:
        """From the end of the first collective, when all are together, to the end."""
        return float(self.length - self.end[0].max())

    @property
    def skew(self) -> float:
        """How long the first rank waits for the last one, at the collective in the middle."""
        return float(np.median(self.start.max(axis=1) - self.start.min(axis=1)))


def kept(trace: Trace, ranks: tuple[int, ...], path: Path) -> Trace:
    """Return the same capture with the files of some ranks only."""
    for file in trace.path.rglob("*"):
        rank = file.stem.removeprefix("rank")
        if file.is_file() and (not rank.isdigit() or int(rank) in ranks):
            (path / file.relative_to(trace.path)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, path / file.relative_to(trace.path))
    return Trace(path)


def replayed(trace: Trace) -> tuple[Step, Step | None]:
    """Return the simulated step of 8, and the captured one where all 8 were captured."""
    fabric = preset("dgx1-v100", RANKS)
    lowered = scale(trace, RANKS, fabric, fill=True)
    program, rows = lowered.program, lowered.program.activities
    outcome = run(program, fabric)
    gpu, operation = program.agent_endpoint[rows["agent"]], rows["collective"]
    compute = np.zeros(RANKS)
    start, end = outcome.activity_times
    local = (operation < 0) & (rows["kind"] == 0)
    np.add.at(compute, gpu[local], (end - start)[local] / 1e6)

    def step(begin: Floats, finish: Floats, length: float) -> Step:
        both = np.zeros((2, operation.max() + 1, RANKS))
        part = operation >= 0
        both[0][operation[part], gpu[part]] = begin[part]
        both[1][operation[part], gpu[part]] = finish[part]
        return Step(length, both[0], both[1], compute)

    simulated = step(start / 1e6, end / 1e6, outcome.makespan_ps / 1e6)
    if len(trace.ranks()) < RANKS:
        return simulated, None
    began, ended = ((rows[f"captured_{c}_ns"] - program.epoch_ns) / 1e3 for c in ("start", "end"))
    return simulated, step(began, ended, float(ended.max()))


def predictions(trace: Trace, count: int, scratch: Path) -> Iterator[tuple[tuple[int, ...], Step]]:
    """Yield every choice of `count` ranks, and the step that they predict."""
    for ranks in combinations(range(RANKS), count):
        path = scratch / "-".join(map(str, ranks))
        yield ranks, replayed(kept(trace, ranks, path))[0]
        shutil.rmtree(path)


def main() -> None:
    """Print the table."""
    root = Path(__file__).resolve().parents[2]
    traces = Path(sys.argv[1]) if len(sys.argv) > 1 else root.parent / "shared" / "traces"
    kinetos, ets = (traces / kind / "v100_dlrm_8ranks" for kind in ("kineto", "execution_trace"))
    if not kinetos.is_dir():
        sys.exit(f"{kinetos} is not there; give the folder that holds kineto/v100_dlrm_8ranks")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        kineto([kinetos], scratch / "job.eidola", execution_traces=[ets])
        table(Trace(scratch / "job.eidola"), scratch)


def table(trace: Trace, scratch: Path) -> None:
    """Print errors by how many ranks were kept: mean, and median or most."""
    whole, captured = replayed(trace)
    if captured is None:
        sys.exit(f"the trace holds ranks {trace.ranks()}; give one of all {RANKS}")
    print("| kept ranks | whole step, mean (most) | after the first collective, mean (median, most) "
          "| kernels of a missing rank, mean | median skew us |")  # fmt: skip
    print("| --- | --- | --- | --- | --- |")
    own = [abs(a / b - 1) for a, b in ((whole.length, captured.length), (whole.after, captured.after))]
    print(f"| all 8 (replay's own error) | {own[0]:.2%} | {own[1]:.2%} | - | {whole.skew:,.0f} |")
    for count in (4, 2):
        length, after, kernels, skew = [], [], [], []
        for ranks, found in predictions(trace, count, scratch):
            missing = [rank for rank in range(RANKS) if rank not in ranks]
            length.append(abs(found.length / captured.length - 1))
            after.append(abs(found.after / captured.after - 1))
            kernels.append(float(np.abs(found.compute[missing] / whole.compute[missing] - 1).mean()))
            skew.append(found.skew)
        print(
            f"| {count} of 8, all {len(length)} | {np.mean(length):.1%} ({max(length):.0%}) | {np.mean(after):.1%} "
            f"({np.median(after):.1%}, {max(after):.1%}) | {np.mean(kernels):.1%} | {np.median(skew):,.0f} |"
        )
    print(f"\nCaptured: {captured.length:,.1f} us the step, {captured.after:,.1f} us after its first collective, "
          f"{captured.skew:,.0f} us median skew.")  # fmt: skip


if __name__ == "__main__":
    main()
