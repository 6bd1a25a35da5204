"""What differs between two runs, or between a run and the trace that it came from, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ..schemas import Results, Trace, html
from .explanation import explain
from .sides import Side, captured_side, run_side, trace_side

CAPTURED: Literal["captured"] = "captured"
_SHOWN = 8  # rows of a table that a notebook shows


@dataclass(frozen=True)
class Comparison:
    """What two sides, `a` and `b`, have and what differs; times in picoseconds, differences b - a.

    `same` is None where `b` is no run; otherwise whether the results' hashes are equal. The tables, largest
    difference first: `inputs` (input, a, b), `causes_ps` of the critical paths (what, a, b, difference; they add
    up to the makespans, so the differences to that of the makespans), `named` (the same by cause, a, b, difference:
    each kernel, call or operation by its name), `kernels` (kind, name, a_ps, b_ps,
    difference_ps, matched, only_a, only_b), `collectives` (communicator, sequence, operation, a_ps, b_ps,
    difference_ps, a_against_b, skew_a_ps, skew_b_ps, ranks_a, ranks_b, end_a_ps, end_b_ps; own time: last start to
    latest end; a_against_b: a / b - 1; the latest end is since the side began, less own time it is the last start),
    `links` (link, a_ps, b_ps, difference_ps: busy) and `flags` (rank, a, b, difference: flag reads).
    """

    a: str
    b: str
    same: bool | None
    makespan_a_ps: int
    makespan_b_ps: int
    inputs: pd.DataFrame
    causes: pd.DataFrame
    named: pd.DataFrame
    kernels: pd.DataFrame
    collectives: pd.DataFrame
    links: pd.DataFrame
    flags: pd.DataFrame
    backends: tuple[str, ...] = ()  # what the ranks of a captured side ran on

    @property
    def caution(self) -> str:
        """What the captured side cannot tell; empty where each of its ranks had a GPU."""
        found = [backend for backend in self.backends if backend != "gpu"]
        if not found:
            return ""
        return (
            f"Captured on backend {', '.join(found)}: differences in time are those of this capture's machine, and "
            "validate no link rate, latency or flag delay."
        )

    @property
    def difference_ps(self) -> int:
        """How much longer b takes than a."""
        return self.makespan_b_ps - self.makespan_a_ps

    def errors(self) -> dict[str, float | None]:
        """Return median and worst |a - b| / b of the collectives' own times, and that of the makespan.

        With a run as `a` and what was captured as `b`, this is the error of the prediction. Collectives that one
        of the sides saw on fewer ranks are left out; None where there is none.
        """
        whole = self.collectives[self.collectives["ranks_a"] == self.collectives["ranks_b"]]
        error = whole["a_against_b"].abs().dropna()
        step = abs(self.difference_ps) / self.makespan_b_ps if self.makespan_b_ps else None
        return {
            "collectives_median": float(error.median()) if len(error) else None,
            "collectives_worst": float(error.max()) if len(error) else None,
            "makespan": step,
        }

    @property
    def sentence(self) -> str:
        """The difference, and the largest part of it, in one sentence."""
        if self.same:
            return "The two runs are the same: their results have one hash."
        more = "more" if self.difference_ps > 0 else "less"
        text = f"{self.b} takes {abs(self.difference_ps) / 1e6:,.3f} us {more} than {self.a}"
        if self.difference_ps == 0:
            text = f"{self.b} takes as long as {self.a}"
        inputs = "1 input does" if len(self.inputs) == 1 else f"{len(self.inputs)} inputs do"
        parts = [] if self.same is None else [f"the results differ ({inputs})"]
        if len(self.causes) and self.causes["difference_ps"].iloc[0]:
            cause = self.causes.iloc[0]
            parts.append(f"{cause['what']} on the critical path: {cause['difference_ps'] / 1e6:+,.3f} us")
        errors = self.errors()
        if self.same is None and errors["collectives_median"] is not None:
            parts.append(
                f"collectives' own times are off by {errors['collectives_median']:.1%} in the median, "
                f"{errors['collectives_worst']:.1%} at worst"
            )
        return "; ".join([text, *parts]) + "."

    def _repr_html_(self) -> str:
        """Show the sentence, the caution and the largest differences in a notebook."""
        frames = {
            "causes on the critical path": self.causes,
            "the same by name": self.named,
            "collectives": self.collectives,
            "kernels": self.kernels,
        }
        tables = [
            html.paragraphs([name]) + str(frame.head(_SHOWN).to_html(index=False, border=0))
            for name, frame in frames.items()
            if len(frame) and not self.same
        ]
        return html.paragraphs([line for line in (self.sentence, self.caution) if line]) + "".join(tables)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON takes."""
        tables = ("inputs", "causes", "named", "kernels", "collectives", "links", "flags")
        head = ("a", "b", "same", "makespan_a_ps", "makespan_b_ps", "difference_ps", "sentence", "caution")
        rows = {name: _records(getattr(self, name)) for name in tables}
        return {name: getattr(self, name) for name in head} | {"errors": self.errors()} | rows


def compare(
    a: Results | str | Path,
    b: Results | Trace | str | Path = CAPTURED,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Compare run `a` with another run, with a trace, or (by default) with what was captured of its own operations.

    Operations are aligned by rank, agent, kind, name and occurrence, collectives by communicator and sequence.
    `progress` is told what is done, how much of it, and of how much.
    Raises InputError where a folder is neither run nor trace, UsageError where nothing of the run was captured,
    or its ranks took turns on one GPU.
    """
    run = a if isinstance(a, Results) else Results(a)
    show = progress or (lambda what, done, total: None)
    show("reading both sides", 0, 4)
    left, other = run_side(run), _other(run, b)
    inputs = _inputs(left, other)
    show("walking the critical paths", 1, 4)
    causes, named = _causes(left, other)
    show("aligning operations", 2, 4)
    kernels = _kernels(left.activities, other.activities)
    collectives = _collectives(left.collectives, other.collectives)
    show("comparing links", 3, 4)
    return Comparison(
        a=left.label,
        b=other.label,
        same=left.hash == other.hash if left.hash and other.hash else None,
        makespan_a_ps=left.makespan_ps,
        makespan_b_ps=other.makespan_ps,
        inputs=inputs,
        causes=causes,
        named=named,
        kernels=kernels,
        collectives=collectives,
        links=_both(left.links, other.links, ["link"], "_ps"),
        flags=_both(left.flags, other.flags, ["rank"], ""),
        backends=other.backends,
    )


def _other(run: Results, b: Results | Trace | str | Path) -> Side:
    if b == CAPTURED:
        return captured_side(run)
    if isinstance(b, str | Path):
        b = Trace(b) if (Path(b) / "trace.json").is_file() else Results(b)
    return trace_side(b) if isinstance(b, Trace) else run_side(b)


def _inputs(a: Side, b: Side) -> pd.DataFrame:
    """Return the inputs that differ; none where one side has no manifest."""
    names = sorted(set(a.inputs) | set(b.inputs)) if a.inputs and b.inputs else []
    rows = [(name, a.inputs.get(name), b.inputs.get(name)) for name in names]
    return pd.DataFrame([row for row in rows if row[1] != row[2]], columns=["input", "a", "b"])


def _causes(a: Side, b: Side) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the critical paths' totals by kind of cause and by name, where both sides have a path."""
    runs = [side.run for side in (a, b)]
    if any(run is None or "messages" not in run.tables() for run in runs):
        runs = []
    found = [explain(run) for run in runs if run is not None]
    kinds: list[dict[str, int]] = [e.totals_ps for e in found] or [{}, {}]
    names = [{c.title: c.duration_ps for c in e.grouped} for e in found] or [{}, {}]
    return _paired(kinds, "what"), _paired(names, "cause")


def _paired(sides: list[dict[str, int]], key: str) -> pd.DataFrame:
    """Put two sides' times by `key` beside each other."""
    a, b = (pd.DataFrame({key: list(side), "value": list(side.values())}) for side in sides)
    return _joined(a, b, [key], "_ps")


def _kernels(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Align single operations, then sum the differences by kind and name."""
    keys = ["rank", "agent", "kind", "name"]
    sides = [side.assign(occurrence=side.groupby(keys).cumcount()) for side in (a, b)]
    pairs = sides[0].merge(
        sides[1], on=[*keys, "occurrence"], how="outer", suffixes=("_a", "_b"), indicator="on"
    )
    pairs["both"] = pairs["on"] == "both"
    pairs["difference_ps"] = (pairs["duration_ps_b"] - pairs["duration_ps_a"]).where(pairs["both"], 0)
    pairs["only_a"], pairs["only_b"] = pairs["on"] == "left_only", pairs["on"] == "right_only"
    summed = pairs.groupby(["kind", "name"], as_index=False).agg(
        a_ps=("duration_ps_a", "sum"),
        b_ps=("duration_ps_b", "sum"),
        difference_ps=("difference_ps", "sum"),
        matched=("both", "sum"),
        only_a=("only_a", "sum"),
        only_b=("only_b", "sum"),
    )
    return _ranked(summed.astype({"a_ps": "int64", "b_ps": "int64", "difference_ps": "int64"}))


def _collectives(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Align operations that both sides have."""
    both = _own(a, "a").merge(_own(b, "b"), on=["communicator", "sequence", "operation"])
    both["difference_ps"] = both["b_ps"] - both["a_ps"]
    both["a_against_b"] = (both["a_ps"] - both["b_ps"]) / both["b_ps"].where(both["b_ps"] > 0)
    return both.sort_values(["communicator", "sequence"], kind="stable", ignore_index=True)


def _own(rows: pd.DataFrame, side: str) -> pd.DataFrame:
    """Return own time (last start to latest end), skew (first to last start), ranks and end of every operation."""
    keys = ["communicator", "sequence", "operation"]
    groups = rows.groupby(keys, as_index=False).agg(
        first=("start_ps", "min"), last=("start_ps", "max"), end=("end_ps", "max"), ranks=("rank", "nunique")
    )
    own, skew = groups["end"] - groups["last"], groups["last"] - groups["first"]
    columns = {
        f"{side}_ps": own,
        f"skew_{side}_ps": skew,
        f"ranks_{side}": groups["ranks"],
        f"end_{side}_ps": groups["end"],
    }
    return groups[keys].assign(**columns)


def _both(a: pd.DataFrame | None, b: pd.DataFrame | None, keys: list[str], unit: str) -> pd.DataFrame:
    """Return `_joined` of what both sides have, and no rows where one of them has nothing to compare."""
    empty = pd.DataFrame({name: [] for name in (*keys, "value")})
    return _joined(empty, empty, keys, unit) if a is None or b is None else _joined(a, b, keys, unit)


def _joined(a: pd.DataFrame, b: pd.DataFrame, keys: list[str], unit: str) -> pd.DataFrame:
    """Put the column `value` of two sides beside each other; a missing one counts as 0."""
    both = a.merge(b, on=keys, how="outer", suffixes=("_a", "_b")).fillna({"value_a": 0, "value_b": 0})
    both = both.astype({"value_a": "int64", "value_b": "int64"})
    both = both.rename(columns={"value_a": f"a{unit}", "value_b": f"b{unit}"})
    both[f"difference{unit}"] = both[f"b{unit}"] - both[f"a{unit}"]
    return _ranked(both)


def _ranked(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort by the size of the difference, which one column holds."""
    column = next(name for name in rows.columns if name.startswith("difference"))
    order = rows[column].abs().sort_values(ascending=False, kind="stable").index
    return rows.loc[order].reset_index(drop=True)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain values, with None for what is missing."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]
