"""What `eidola inspect` says of peer writes, of waits on flags, and of links."""

import json

import pytest
from typer.testing import CliRunner

from eidola.cli.main import app
from eidola.cli.traffic import waits_by_rank, writes_by_pair
from eidola.schemas import Trace, TraceWriter


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Rank 1 raises flags 4 and 5 of rank 0, 5 from two workgroups; rank 0 waits for them and for flag 6."""
    path = tmp_path_factory.mktemp("traffic") / "t"
    with TraceWriter(path) as writer:
        for rank in range(2):
            writer.write("ranks", rank, {"backend": ["gpu"], "model": ["H100"]})
        writer.write("links", 0, {
            "peer": [1, 1], "kind": ["nvlink", "pcie"], "count": [18, 1],
            "rate_bytes_per_s": [26_562_500_000, None],
        })  # fmt: skip
        writer.write("writes", 0, {
            "peer": [1], "issue_ns": [0], "size_bytes": [64], "kind": ["data"], "origin": ["measured"],
        })  # fmt: skip
        writer.write("writes", 1, {
            "peer": [0, 0, 0, 0], "workgroup": [3, 3, 3, 7], "issue_ns": [10, 20, 30, 30],
            "size_bytes": [4096, 8, 8, 8], "region": ["partials", "ready", None, None], "flag": [None, 4, 5, 5],
            "kind": ["data", "flag", "flag", "flag"], "origin": ["measured"] * 4,
        })  # fmt: skip
        writer.write("waits", 0, {
            "flag": [4, 4, 5, 6], "expected": [1, 2, 1, 1], "start_ns": [0, 100, 200, 300],
            "end_ns": [50, 130, 210, None], "polls": [5, 3, 1, None],
        })  # fmt: skip
    return path


def test_waits_are_summed_by_rank_and_the_longest_flag_is_named(path):
    (row,) = waits_by_rank(Trace(path))
    assert (row["rank"], row["waits"], row["time_ns"], row["polls"]) == (0, 4, 90, 9)
    assert (row["longest_flag"], row["longest_flag_ns"]) == (4, 80)
    assert row["longest_flag_name"] == "flag 4 (ready, workgroup 3 of rank 1)"


def test_a_flag_that_several_raise_has_its_number_for_a_name(tmp_path):
    with TraceWriter(tmp_path / "t") as writer:
        writer.write("ranks", 0, {"backend": ["gpu"]})
        writer.write("waits", 0, {"flag": [9], "expected": [1], "start_ns": [0], "end_ns": [5]})
    assert waits_by_rank(Trace(tmp_path / "t"))[0]["longest_flag_name"] == "flag 9"


def test_writes_are_summed_by_pair_the_most_bytes_first(path):
    assert writes_by_pair(Trace(path)) == [
        {"rank": 1, "peer": 0, "writes": 4, "bytes": 4120},
        {"rank": 0, "peer": 1, "writes": 1, "bytes": 64},
    ]


def test_the_terminal_shows_flags_pairs_and_links(path):
    text = CliRunner().invoke(app, ["inspect", str(path)]).stdout
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "0 4 0.1 9 flag 4 (ready, workgroup 3 of rank 1) 0.1" in lines
    assert "1 0 4 4,120" in lines
    assert "0 1 nvlink 18 26.6 -" in lines
    assert "0 1 pcie 1 - -" in lines
    assert "ranks, gpu, H100" in lines


def test_json_holds_the_links_as_captured(path):
    found = json.loads(CliRunner().invoke(app, ["inspect", str(path), "--json"]).stdout)
    assert [(k["kind"], k["count"], k["rate_bytes_per_s"]) for k in found["links"]] == [
        ("nvlink", 18, 26_562_500_000),
        ("pcie", 1, None),
    ]


def test_a_name_cannot_steer_the_terminal(tmp_path):
    with TraceWriter(tmp_path / "t") as writer:
        writer.write("ranks", 0, {"backend": ["gpu"], "model": ["\x1b[2Jred\x07"]})
        writer.write("communicators", 0, {
            "communicator": ["[bold]a\x1b[31m\nb"], "group_rank": [0], "group_size": [1], "name": ["\u202eevil"],
        })  # fmt: skip
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "t")])
    assert shown.exit_code == 0
    assert not {"\x1b", "\x07", "\u202e"} & set(shown.stdout)
    assert r"\x1b[2Jred\x07" in shown.stdout
    assert r"[bold]a\x1b[31m\nb" in shown.stdout
