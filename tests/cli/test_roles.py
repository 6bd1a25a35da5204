"""What `eidola inspect` says of each rank's role in communication."""

import json

import pytest
from typer.testing import CliRunner

from eidola.cli.main import app
from eidola.cli.roles import SHOWN, extremes, roles
from eidola.schemas import Trace, TraceWriter


def write(path, ranks=3, rounds=4):
    """Rank r starts each collective at 10 r, all end at 500; the last rank's other kernel runs from 450 to 510."""
    with TraceWriter(path) as writer:
        for rank in range(ranks):
            starts = [1000 * i + 10 * rank for i in range(rounds)]
            ends = [1000 * i + 500 for i in range(rounds)]
            spans = [("kernel", *times) for times in zip(starts, ends, strict=True)]
            if rank == ranks - 1:
                spans += [("kernel", 1000 * i + 450, 1000 * i + 510) for i in range(rounds)]
            spans.append(("host_call", 0, 1000 * rounds))
            writer.write("ranks", rank, {"backend": ["gpu"]})
            kinds, begun, ended = zip(*spans, strict=True)
            writer.write("spans", rank, {
                "span": range(len(spans)), "lane": ["stream 1"] * len(spans), "kind": kinds,
                "name": ["k"] * len(spans), "start_ns": begun, "end_ns": ended,
            })  # fmt: skip
            writer.write("collectives", rank, {
                "span": range(rounds), "communicator": ["c"] * rounds, "sequence": range(rounds),
                "operation": ["all_reduce"] * rounds, "start_ns": starts, "end_ns": ends,
            })  # fmt: skip
    return path


def test_last_arrivals_and_exposed_time_have_a_closed_form(tmp_path):
    found = roles(Trace(write(tmp_path / "t")))
    assert [row["last"] for row in found] == [0, 0, 4]
    assert [row["shared"] for row in found] == [4, 4, 4]
    assert [row["communication_ns"] for row in found] == [2000, 1960, 1920]
    assert [row["exposed_ns"] for row in found] == [2000, 1960, 4 * (450 - 20)]
    assert [row["overlapped_ns"] for row in found] == [0, 0, 4 * 50]


def test_nobody_is_last_where_two_start_together_and_alone_is_not_shared(tmp_path):
    with TraceWriter(tmp_path / "t") as writer:
        for rank in range(3):
            parts = [("both", 5)] * (rank < 2) + [(f"own {rank}", 30)]
            writer.write("ranks", rank, {"backend": ["gpu"]})
            writer.write("collectives", rank, {
                "communicator": [name for name, _ in parts], "sequence": [0] * len(parts),
                "operation": ["barrier"] * len(parts), "start_ns": [start for _, start in parts],
                "end_ns": [start + 10 for _, start in parts],
            })  # fmt: skip
    found = roles(Trace(tmp_path / "t"))
    assert [(row["shared"], row["last"], row["exposed_ns"]) for row in found] == [
        (1, 0, 20),
        (1, 0, 20),
        (0, 0, 10),
    ]


@pytest.mark.parametrize("ranks", [SHOWN, 40])
def test_the_table_holds_sixteen_ranks_at_most_and_the_json_all(ranks, tmp_path):
    path = write(tmp_path / "t", ranks=ranks, rounds=1)
    rows = json.loads(CliRunner().invoke(app, ["inspect", str(path), "--json"]).stdout)["roles"]
    assert [row["rank"] for row in rows] == list(range(ranks))
    shown = extremes(rows)
    assert len(shown) <= SHOWN
    assert {0, ranks - 1} <= {row["rank"] for row in shown}
    text = CliRunner().invoke(app, ["inspect", str(path)]).stdout
    text = " ".join(text.split())
    assert "who came last" in text
    assert (f"extremes of {ranks} ranks" in text) == (ranks > SHOWN)


def test_a_trace_without_collectives_has_no_roles(tmp_path):
    with TraceWriter(tmp_path / "t") as writer:
        writer.write("ranks", 0, {"backend": ["gpu"]})
    assert roles(Trace(tmp_path / "t")) == []
