"""What the scored tables of a GPU generation say of one another: a guard against constants that fit one table.

    python docs/studies/leave_one_out.py validation/validation.csv

For each full sweep: the median ratio of predicted to measured time of the other tables of its generation, by scope
and size class, corrects this table's predictions. Where constants were fitted to one table, the others' correction
is wrong for it, and its error grows; where the error shrinks, the tables share a bias that nobody corrected. The
same with the tables of the other generations: where that makes little difference, generations share their physics.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from eidola.replay.presets.boxes import BOXES
from eidola.replay.scoring import case_of, read_measurements
from eidola.replay.scoring.predict import Prediction
from eidola.replay.scoring.score import Score, Scored
from eidola.replay.scoring.statistics import CLASSES, judged, scope, size_class, sweeps


def scored(path: Path) -> list[Scored]:
    """Return the judged rows of a validation.csv."""
    columns, rows = read_measurements(path)
    made = []
    for row in rows:
        case = case_of(row)
        covered = row.text("covered")
        predicted = Prediction(row.number("predicted_us"), covered=covered)
        made.append(Scored(row, None if isinstance(case, str) else case, predicted))
    return judged(Score(columns, made).rows)


def bias_of(tables: Iterable[list[float]]) -> float | None:
    """Return the median over tables of their median ratio of predicted to measured time; None without tables."""
    medians = [median(ratios) for ratios in tables]
    return median(medians) if medians else None


def corrected(tables: dict[str, list[float]], others: Sequence[dict[str, list[float]]], *, own: bool) -> str:
    """Return the median error of tables, each corrected by the bias of its generation's others or of `others`."""
    errors = []
    for name, ratios in tables.items():
        near = [found for key, found in tables.items() if key != name]
        bias = bias_of(near if own else [found for other in others for found in other.values()])
        errors += [abs(ratio / bias - 1) for ratio in ratios] if bias else []
    return f"{median(errors):.1%}" if errors else "-"


def main() -> None:
    """Print a row a scope, generation and size class."""
    parts: dict[tuple[str, str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for rows in sweeps(scored(Path(sys.argv[1]))).values():
        for s in rows:
            if s.case and s.error is not None:
                key = scope(s), BOXES[s.case.machine.preset].gpu, size_class(s.case.size_bytes)
                parts[key][f"{s.row.text('table_id')} {s.case.ranks}"].append(1 + s.error)
    print("| full sweeps | generation | sizes | tables | median error, as shipped | corrected by the "
          "generation's other tables | by the other generations |")  # fmt: skip
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for (where, generation, number), tables in sorted(parts.items()):
        others = [t for (w, g, n), t in parts.items() if (w, n) == (where, number) and g != generation]
        shipped = median(abs(ratio - 1) for ratios in tables.values() for ratio in ratios)
        cells = where, generation, CLASSES[number][0], len(tables), f"{shipped:.1%}"
        print("|", " | ".join(map(str, cells)), "|", corrected(tables, others, own=True), "|",
              corrected(tables, others, own=False), "|")  # fmt: skip


if __name__ == "__main__":
    main()
