"""Score a file of measurements: predict every row that can be mapped, write what came out, and how good it is."""

import csv
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

from ...schemas import UsageError
from ...schemas.executors import process_pool
from .case import Case, case_of
from .measurements import RESULTS, Measurement, read_measurements
from .predict import Prediction, predict


@dataclass(frozen=True)
class Scored:
    """One row with what was predicted for it. `case` is None where it is not covered."""

    row: Measurement
    case: Case | None
    prediction: Prediction

    @property
    def measured_us(self) -> float:
        """The measured time; 0 where none was published, or where the row is not covered."""
        if self.case is None:
            return 0
        return self.row.measured_us(self.case.ranks, self.case.method.operation)

    @property
    def error(self) -> float | None:
        """Predicted over measured time, less one; None where either is missing."""
        if self.prediction.covered != "true" or not self.measured_us:
            return None
        return self.prediction.predicted_us / self.measured_us - 1


@dataclass(frozen=True)
class Score:
    """All rows of a file, in its order, and its columns."""

    columns: list[str]
    rows: list[Scored]


def score(
    path: Path | str,
    output: Path | str | None = None,
    *,
    jobs: int = 2,
    progress: Callable[[str, int, int], None] | None = None,
) -> Score:
    """Predict every row of a CSV of measurements that can be mapped; with `output` write validation.csv and a page.

    Rows that cannot be mapped are not covered, and say why. Equal cases are simulated once, in `jobs` processes.
    Raises InputError for a file that is no such table, UsageError where the output cannot be written.
    """
    columns, rows = read_measurements(Path(path))
    folder = _folder(Path(output)) if output is not None else None
    cases = [case_of(row) for row in rows]
    found = _predict(list(dict.fromkeys(c for c in cases if isinstance(c, Case))), jobs, progress)
    scored = [
        Scored(row, case, found[case])
        if isinstance(case, Case)
        else Scored(row, None, Prediction(covered=case))
        for row, case in zip(rows, cases, strict=True)
    ]
    made = Score(columns, scored)
    if folder:
        from .page import write_page

        write_csv(made, folder / "validation.csv")
        write_page(made, folder)
    return made


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"-o {path}: {error.strerror or error}; give a folder that can be written"
        ) from error
    return path


def _predict(
    cases: Sequence[Case], jobs: int, progress: Callable[[str, int, int], None] | None
) -> dict[Case, Prediction]:
    """Predict each case; those that move most first, so that no process is left with a long one."""
    order = sorted(cases, key=lambda case: -case.size_bytes * case.ranks * case.groups)
    found: dict[Case, Prediction] = {}
    if jobs == 1 or len(order) < 4 * jobs:
        for case in order:
            found[case] = predict(case)
            if progress:
                progress("cases", len(found), len(order))
        return found
    with process_pool(jobs) as pool:
        futures = {pool.submit(predict, case): case for case in order}
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            if progress:
                progress("cases", len(found), len(order))
    return found


def write_csv(made: Score, path: Path) -> None:
    """Write the input's columns, and behind them what was predicted; an older prediction is replaced."""
    kept = [name for name in made.columns if name not in RESULTS]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*kept, *RESULTS])
        for scored in made.rows:
            p, case = scored.prediction, scored.case
            predicted = f"{p.predicted_us:g}" if p.covered == "true" else ""
            results = predicted, case.fabric if case else "", p.algorithm, p.protocol, p.covered
            writer.writerow([*(scored.row.cells.get(name, "") for name in kept), *results])
