"""Gloo operations in the profiler's traces -> collectives."""

import json
import sys

import pytest

from eidola.convert.captured import captured
from eidola.schemas import Trace

pytest.importorskip("torch", reason="captures a real PyTorch job")

OPERATIONS = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
rank, t = dist.get_rank(), torch.ones(4)
pieces = [torch.zeros(4), torch.zeros(4)]
dist.all_reduce(t)
(dist.send if rank == 0 else dist.recv)(t, 1 - rank)
dist.all_gather(pieces, t)
dist.broadcast(t, 1)
dist.reduce(t, 1)
dist.barrier()
dist.reduce_scatter_tensor(torch.zeros(2, dtype=torch.int64), torch.ones(4, dtype=torch.int64))
dist.all_to_all_single(torch.zeros(4), t)
dist.gather(t, pieces if rank == 0 else None, 0)
dist.all_reduce(torch.zeros(8, dtype=torch.float64), async_op=True).wait()
dist.all_reduce(torch.zeros(2), group=dist.new_group([0, 1]))
dist.destroy_process_group()
"""


@pytest.fixture(scope="module", params=["light", "windows"])
def table(tmp_path_factory, capture_run, request):
    """The collectives of a job, as the recorder saw them, and as a window alone does."""
    folder = tmp_path_factory.mktemp("operations")
    (folder / "script.py").write_text(OPERATIONS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "script.py"]
    nothing = {"XDG_CACHE_HOME": str(folder / "cache"), "PATH": str(folder), "CXX": ""}
    done = capture_run(folder, *torchrun, environment=None if request.param == "light" else nothing)
    assert done.returncode == 0, done.stderr
    assert ("no C++ compiler" in done.stderr) == (request.param == "windows")
    return Trace(captured(folder / "raw", folder / "t.eidola")).read("collectives").to_pandas()


def test_operations_sizes_and_roots_are_the_scripts(table):
    expected = [
        ("all_reduce", "float32", 16, None),
        ("all_gather", "float32", 16, None),
        ("broadcast", "float32", 16, 1),
        ("reduce", "float32", 16, 1),
        ("barrier", None, None, None),
        ("all_reduce", "int64", 32, None),  # Gloo's reduce_scatter
        ("all_to_all", "float32", 16, None),
        ("gather", "float32", 16, 0),
        ("all_reduce", "float64", 64, None),
    ]
    collectives = table[~table.operation.isin(["send", "recv"])]
    (other,) = set(collectives.communicator) - {"0"}
    assert table[table.communicator == other].size_bytes.tolist() == [8, 8]
    table = collectives[collectives.communicator == "0"]
    for rank in (0, 1):
        own = table[(table["rank"] == rank) & ~table.operation.isin(["send", "recv"])].sort_values("sequence")
        assert own.sequence.tolist() == list(range(len(expected)))
        columns = own[["operation", "dtype", "size_bytes", "peer"]].astype(object)
        assert [tuple(row) for row in columns.where(columns.notna(), None).values] == expected


def test_a_send_and_its_receive_name_each_other(table):
    sides = table[table.operation.isin(["send", "recv"])]
    found = {(r.rank, r.operation, int(r.peer), int(r.size_bytes)) for r in sides.itertuples()}
    assert found == {(0, "send", 1, 16), (1, "recv", 0, 16)}
    assert sides.sequence.nunique() == 1


def test_every_collective_was_launched_before_it_began(table):
    assert (table.launch_ns <= table.start_ns).all()
    assert (table.start_ns <= table.end_ns).all()


@pytest.mark.parametrize("damage", [b"", b"not json", None])
def test_a_damaged_rank_is_named(tmp_path, damage):
    from eidola.schemas import InputError

    raw = tmp_path / "raw"
    raw.mkdir()
    entry = {
        "rank": 0,
        "restart": 0,
        "file": "rank00000.0.json",
        "trace": "x.gz",
        "sealed": "exit",
        "gap": None,
    }
    manifest = {"format": 1, "kind": "torch", "backend": "host", "ranks": [entry]}
    (raw / "capture.json").write_text(json.dumps(manifest))
    if damage is not None:
        (raw / "rank00000.0.json").write_bytes(damage)
    with pytest.raises(InputError, match=r"rank00000\.0\.json cannot be read"):
        captured(raw, tmp_path / "t.eidola")
    assert not (tmp_path / "t.eidola").exists()


def test_workers_that_started_in_another_order_are_joined_with_their_own_calls():
    """Of two operations on two threads the second began first; the profiler's numbers tell whose they are."""
    from eidola.convert.captured_window import Rank, Span, join_by_order, top_level

    def span(name, tid, start_ns, made, elements):
        args = {"Record function id": made, "Input type": ["float"], "Input Dims": [[elements]]}
        return Span(name, "host_call", tid, start_ns, start_ns + 10, args)

    calls = [span("c10d::allreduce_", 1, 0, 1, 4), span("c10d::allreduce_", 1, 20, 3, 8)]
    workers = [span("gloo:all_reduce", 2, 55, 2, 4), span("gloo:all_reduce", 3, 50, 4, 8)]
    record = {"groups": [{"name": "0", "ranks": [0], "description": None}], "world_size": 1}
    rank = Rank(record, top_level([*calls, *workers]), calls)
    join_by_order(rank)
    assert [(p.launch_ns, p.start_ns, p.size_bytes, p.sequence) for p in rank.parts] == [
        (0, 55, 16, 0),
        (20, 50, 32, 1),
    ]
