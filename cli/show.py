"""How the replay commands print: short tables, the answer first."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .durations import us
from .progress import working
from .tables import say, show_table

if TYPE_CHECKING:
    import pandas as pd

    from ..replay import Comparison, Confirmation, Explanation, Fabric
    from ..replay.cuts import Cut, Paths
    from ..replay.routes import Routes
    from ..schemas import Results

_SHOWN = 5
_CLOCK_PS = 1000  # a capture counts whole nanoseconds
_CAUSE = ["cause", "us", "share"]
_GPU = ["GPU", "end us", "computed us", "exposed us", "flag reads"]
_LINK = ["link", "busy us", "share", "bytes", "queued us"]
_FACTS = {
    "makespan_ps": "makespan, us", "gpus": "GPUs", "captured_ranks": "captured ranks", "backends": "captured on",
    "fabric": "fabric", "mode": "mode", "wait": "wait", "routing": "routing", "messages": "messages",
    "waits": "waits", "flag_reads": "flag reads", "engine": "engine", "stalled": "stalled",
}  # fmt: skip
# Of collectives, in --json only.
_DETAIL = ["skew_a_ps", "skew_b_ps", "ranks_a", "ranks_b", "end_a_ps", "end_b_ps"]


def show_run(results: "Results") -> None:
    """Print who waited for what and how much, which link, the law and what was extrapolated, and the hash."""
    from ..replay import explain

    summary = results.summary
    if "messages" in results.tables():
        with working("walking the critical path"):
            explanation = explain(results)
        say(explanation.sentence)
        show_table("critical path", _CAUSE, _causes(explanation, _SHOWN))
    else:
        say(f"The run takes {us(summary['makespan_ps'])} us; it recorded no messages to explain it by.")
    show_table("GPUs that waited longest", _GPU, _gpus(results))
    show_table("busiest links", _LINK, _links(results, int(summary["makespan_ps"])))
    for key in ("law", "extrapolated", "notes", "causality_violations"):
        if value := summary.get(key):
            for line in value if isinstance(value, list) else [value]:
                say(f"{key.replace('_', ' ')}: {line}")
    if summary.get("wait") == "ideal" and summary.get("waits"):
        say("wait: ideal, which reads no flag; --wait spin and --wait monitor count reads")
    say(f"hash: {results.manifest.get('results_hash', '')}")
    say(f"{results.path}: `eidola replay explain {results.path}` says more")


def show_facts(summary: dict[str, Any]) -> None:
    """Print what ran: a line a fact of a run's summary."""
    for key, what in _FACTS.items():
        value = summary.get(key)
        if value in (None, [], {}):
            continue
        if key == "makespan_ps":
            value = us(value)
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        say(f"{what}: {value:,}" if isinstance(value, int) else f"{what}: {value}")


def _links(results: "Results", makespan_ps: int) -> list[list[Any]]:
    """Return the busiest links; none where the fabric has none."""
    if "links" not in results.tables():
        return []
    rows = results.read("links", ["link", "name", "busy_ps", "wire_bytes", "queued_ps"])
    rows = rows.sort_by([("busy_ps", "descending"), ("link", "ascending")]).slice(0, _SHOWN).to_pylist()
    return [
        [
            r["name"],
            us(r["busy_ps"]),
            f"{r['busy_ps'] / max(makespan_ps, 1):.1%}",
            f"{r['wire_bytes']:,}",
            us(r["queued_ps"]),
        ]
        for r in rows
        if r["busy_ps"]
    ]


def _gpus(results: "Results") -> list[list[Any]]:
    rows = results.read("gpus").to_pylist()
    rows.sort(key=lambda row: (-row["exposed_ps"], row["rank"]))
    return [
        [str(r["rank"]), us(r["end_ps"]), us(r["compute_ps"]), us(r["exposed_ps"]), f"{r['flag_reads']:,}"]
        for r in rows[:_SHOWN]
    ]


def show_explanation(explanation: "Explanation") -> None:
    """Print the causes of a run's length."""
    say(explanation.sentence)
    show_table(
        "causes, summed over GPUs, links and flags",
        ["cause", "us", "share"],
        _causes(explanation, explanation.top),
    )
    single = [[str(c), us(c.duration_ps), f"{c.share:.1%}"] for c in explanation.causes[: explanation.top]]
    show_table("single causes", _CAUSE, single)
    for title, times in (
        ("links on the path", explanation.links_ps),
        ("flags waited for", explanation.flags_ps),
    ):
        show_table(
            title, ["", "us"], [[name, us(time)] for name, time in list(times.items())[: explanation.top]]
        )
    steps = len(explanation.path)
    say(f"the path has {steps:,} segments; --json lists them")


def show_confirmations(found: "Sequence[Confirmation]") -> None:
    """Print what making each cause twice as fast gave, beside what its share of the path promised."""
    rows = [
        [str(c.cause), c.change, *("-" if t is None else us(t) for t in (c.expected_ps, c.saved_ps))]
        for c in found
    ]
    show_table("run again with each twice as fast", ["cause", "change", "expected us less", "us less"], rows)


def _causes(explanation: "Explanation", top: int) -> list[list[Any]]:
    return [[str(cause), us(cause.duration_ps), f"{cause.share:.1%}"] for cause in explanation.grouped[:top]]


def show_comparison(comparison: "Comparison", top: int) -> None:
    """Print what differs between two sides."""
    say(comparison.sentence)
    if comparison.caution:
        say(comparison.caution)
    show_frame("inputs", comparison.inputs, top)
    if comparison.same:
        return
    makespans = [us(comparison.makespan_a_ps), us(comparison.makespan_b_ps), us(comparison.difference_ps)]
    show_table("whole run (us)", ["a", "b", "difference"], [makespans])
    show_frame("causes on the critical path", comparison.causes, top)
    show_frame("the same by name", comparison.named[comparison.named["difference_ps"] != 0], top)
    collectives = comparison.collectives.drop(columns=_DETAIL, errors="ignore")
    show_frame("collectives: own time, last start to latest end", collectives, top)
    for key, value in comparison.errors().items():
        if comparison.same is None and value is not None:
            say(f"error, {key.replace('_', ' ')}: {value:.1%}")
    kernels = comparison.kernels
    least = _CLOCK_PS if comparison.same is None else 1
    changed = kernels["difference_ps"].abs() >= least
    if comparison.same is not None:  # a capture lacks what replay adds, such as the channels of a collective
        changed |= (kernels["only_a"] > 0) | (kernels["only_b"] > 0)
    show_frame("kernels and calls", kernels[changed], top)
    for title, frame in (("links: busy", comparison.links), ("GPUs: flag reads", comparison.flags)):
        show_frame(title, frame[frame[frame.columns[-1]] != 0], top)


def show_frame(title: str, frame: "pd.DataFrame", top: int) -> None:
    """Print the first rows; columns in picoseconds become microseconds."""
    if not len(frame):
        return
    frame = frame.drop(
        columns=[name for name in ("only_a", "only_b") if name in frame and not frame[name].any()]
    )
    header = [str(name).replace("_ps", " us").replace("_", " ") for name in frame.columns]
    cells = [
        [_cell(name, value) for name, value in zip(frame.columns, row, strict=True)]
        for row in frame.itertuples(index=False, name=None)
    ]
    show_table(title, header, cells, top)


def _cell(column: str, value: Any) -> str:
    if column.endswith("_ps"):
        return us(value)
    if isinstance(value, float):
        return "-" if value != value else f"{value:+.1%}"  # only shares are fractions here
    if column in ("rank", "sequence"):
        return str(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def fabric_summary(
    fabric: "Fabric", routes: "Routes", cuts: "list[Cut]", paths: "Paths | None"
) -> dict[str, Any]:
    """Return what `eidola replay fabric` prints: nodes, links by kind of ends, rate and latency, and the checks."""
    kinds = [name.rstrip("0123456789./ ") for name in fabric.node_names]
    columns = (fabric.source, fabric.destination, fabric.rate_mb_per_s, fabric.latency_ps)
    links = Counter(
        (kinds[a], kinds[b], int(rate), int(latency)) for a, b, rate, latency in zip(*columns, strict=True)
    )
    return {
        "name": fabric.name,
        "gpus": fabric.gpus,
        "nodes": dict(Counter(kinds)),
        "links": [
            {"from": a, "to": b, "rate_mb_per_s": rate, "latency_ps": latency, "count": count}
            for (a, b, rate, latency), count in sorted(links.items())
        ],
        "pairs": routes.pairs,
        "pairs_by_links": routes.lengths,
        "busiest_link": fabric.link_name(routes.busiest) if routes.busiest >= 0 else None,
        "pairs_over_busiest_link": routes.busiest_pairs,
        "pairs_are_a_sample": routes.sampled,
        "cuts": [
            {"cut": c.name, "gpus": c.gpus, "mb_per_s": c.mb_per_s, "mb_per_s_a_gpu": round(c.each_mb_per_s)}
            for c in cuts
        ],
        "bisection_mb_per_s": min((c.mb_per_s for c in cuts), default=None),
        "paths": None
        if paths is None
        else {"pairs": paths.pairs, "paths": paths.paths, "links": paths.links},
    }


def show_fabric(summary: dict[str, Any]) -> None:
    """Print a fabric."""
    nodes = ", ".join(f"{count} {kind}" for kind, count in summary["nodes"].items())
    say(f"{summary['name']}: {summary['gpus']} GPUs; nodes: {nodes}")
    rows = [
        [link["from"], link["to"], link["count"], link["rate_mb_per_s"] / 1e3, link["latency_ps"] / 1e3]
        for link in summary["links"]
    ]
    show_table("links", ["from", "to", "links", "GB/s", "latency ns"], rows)
    lengths = ", ".join(f"{count:,} over {links} links" for links, count in summary["pairs_by_links"].items())
    which = "drawn" if summary["pairs_are_a_sample"] else "all"
    say(f"{which} {summary['pairs']:,} pairs have a route{': ' if lengths else ''}{lengths}")
    if summary["busiest_link"]:
        say(f"{summary['busiest_link']} is on the most routes: {summary['pairs_over_busiest_link']:,}")
    rows = [[c["cut"], c["gpus"], c["mb_per_s"] / 1e3, c["mb_per_s_a_gpu"] / 1e3] for c in summary["cuts"]]
    show_table("most that crosses", ["cut", "GPUs", "GB/s", "GB/s a GPU"], rows)
    if summary["paths"]:
        pairs, counts, links = summary["paths"].values()
        rows = [["paths to choose from", *counts], ["links of the shortest", *links]]
        show_table(f"of {pairs} pairs", ["", "min", "median", "max"], rows)
