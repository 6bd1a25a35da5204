"""What the scored tables of a GPU generation say of one another: a guard against constants that fit one table.

    python docs/studies/leave_one_out.py validation/validation.csv

For each full sweep: the median ratio of predicted to measured time of the other tables of its generation, by scope
and size class, corrects this table's predictions. Where constants were fitted to one table, the others' correction
is wrong for it, and its error grows; where the error shrinks, the tables share a bias that nobody corrected.
"""

import sys
from collections import defaultdict
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


def main() -> None:
    """Print a row a scope, generation and size class with at least two tables."""
    parts: dict[tuple[str, str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for rows in sweeps(scored(Path(sys.argv[1]))).values():
        for s in rows:
            if s.case and s.error is not None:
                key = scope(s), BOXES[s.case.machine.preset].gpu, size_class(s.case.size_bytes)
                parts[key][f"{s.row.text('table_id')} {s.case.ranks}"].append(1 + s.error)
    print(
        "| full sweeps | generation | sizes | tables | median error, as shipped | corrected by the other tables |"
    )
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for (where, generation, number), tables in sorted(parts.items()):
        if len(tables) < 2:
            continue
        shipped, corrected = [], []
        for name, ratios in tables.items():
            bias = median(median(other) for key, other in tables.items() if key != name)
            shipped += [abs(ratio - 1) for ratio in ratios]
            corrected += [abs(ratio / bias - 1) for ratio in ratios]
        label = CLASSES[number][0]
        errors = f"{median(shipped):.1%} | {median(corrected):.1%}"
        print(f"| {where} | {generation} | {label} | {len(tables)} | {errors} |")


if __name__ == "__main__":
    main()
