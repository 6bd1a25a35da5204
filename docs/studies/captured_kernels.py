"""Fused kernels captured on CPU threads against their dependent replay: flag waves, launches, polls."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from eidola.replay import replay, spin
from eidola.replay.polling import captured_period_ns
from eidola.schemas import Trace

KERNELS = (
    "gemv_allreduce_host_2",
    "gemv_allreduce_host_4",
    "embedding_alltoall_host_2",
    "gemm_alltoall_host_2",
)
_ORDER = ["rank", "workgroup", "nth"]


def waves(trace: Trace) -> pd.DataFrame:
    """Return a row a rank, launch and exchange: predicted and captured end of its latest wait, in us.

    `could_us` is when it could have ended in the capture: all its flags raised and all its workgroups waiting.
    """
    begin_ns = trace.read("spans", ["start_ns"])["start_ns"].to_numpy().min()
    raised = trace.read("writes", ["peer", "flag", "value", "issue_ns"]).to_pandas().dropna()
    seen = trace.read("waits", ["rank", "workgroup", "flag", "expected", "start_ns", "end_ns"]).to_pandas()
    raised = raised.rename(columns={"peer": "rank", "value": "expected"}).astype("int64")
    both = _in_order(seen, "start_ns").merge(raised, on=["rank", "flag", "expected"])
    both = both.merge(_replayed(trace), on=_ORDER, suffixes=("", "_replayed"))
    peers = len(trace.ranks()) - 1
    both["exchange"] = both["nth"] // peers  # counted over all launches
    both["could_ns"] = both[["start_ns", "issue_ns"]].max(axis=1)
    found = both.groupby(["rank", "expected", "exchange"], as_index=False)[
        ["end_ps", "end_ns", "could_ns"]
    ].max()
    return found.assign(
        predicted_us=found["end_ps"] / 1e6,
        captured_us=(found["end_ns"] - begin_ns) / 1e3,
        could_us=(found["could_ns"] - begin_ns) / 1e3,
    )


def _replayed(trace: Trace) -> pd.DataFrame:
    """Return the waits of a dependent replay on `ideal`, with their workgroups."""
    run = replay(trace, fabric="ideal")
    names = run.read("agents", ["name"])["name"].to_pandas()
    rows = run.read("waits", ["rank", "agent", "start_ps", "end_ps"]).to_pandas()
    rows["workgroup"] = names.to_numpy()[rows["agent"].to_numpy()]
    rows["workgroup"] = rows["workgroup"].str.removeprefix("workgroup ").astype("int64")
    return _in_order(rows, "start_ps").drop(columns=["agent", "start_ps"])


def _in_order(rows: pd.DataFrame, start: str) -> pd.DataFrame:
    """Return the rows with each workgroup's waits numbered in the order in which they began."""
    rows = rows.sort_values(["rank", "workgroup", start], kind="stable", ignore_index=True)
    return rows.assign(nth=rows.groupby(["rank", "workgroup"]).cumcount())


def wave_rows() -> Iterator[tuple[str, ...]]:
    """Yield a row of the table a capture."""
    for name in KERNELS:
        found = waves(Trace(_path(name)))
        error = found["predicted_us"] - found["captured_us"]
        noticed = found["captured_us"] - found["could_us"]
        ends = found.groupby("expected")[["predicted_us", "captured_us"]].max()
        launches = ends["predicted_us"] - ends["captured_us"]
        lengths = ends["captured_us"].diff().fillna(ends["captured_us"])
        step = ends.iloc[-1]
        yield (
            name, f"{len(found)}", *(f"{abs(error).quantile(q):,.0f}" for q in (0.5, 1)),
            f"{noticed.max():,.0f}", *(f"{abs(error + noticed).quantile(q):,.1f}" for q in (0.5, 1)),
            " ".join(f"{us:+,.0f}" for us in launches), " ".join(f"{us:,.0f}" for us in lengths),
            f"{step['predicted_us'] / step['captured_us'] - 1:+.1%}",
        )  # fmt: skip


def poll_rows() -> Iterator[tuple[str, ...]]:
    """Yield each target's predicted flag reads beside those that the capture counted."""
    for name in KERNELS:
        trace = Trace(_path(name))
        period = captured_period_ns(trace)
        counted = trace.read("waits", ["rank", "polls"]).to_pandas().groupby("rank")["polls"].sum()
        for rank, captured in counted.items():
            results = replay(trace, mode="target", targets=(rank,), fabric="ideal", wait=spin(period))
            predicted = results.read("gpus", ["flag_reads"])["flag_reads"][rank].as_py()
            yield (
                name,
                rank,
                f"{period:,.0f}",
                f"{predicted:,}",
                f"{captured:,}",
                f"{predicted / captured:.2f}",
            )


def _path(name: str) -> Path:
    return Path(__file__).resolve().parents[2] / "sample_traces" / name / "trace.eidola"
