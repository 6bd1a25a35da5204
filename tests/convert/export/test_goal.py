"""GOAL exports, read by a reader of the language and run: everything is matched, and nothing waits for ever."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eidola.convert import kineto
from eidola.convert.export import export
from eidola.convert.export.expansion import Collective
from eidola.schemas import ResultsWriter, Trace, TraceWriter
from eidola.schemas.errors import UsageError

from . import goal
from .test_chakra import COLL, COMP, files_of

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "sample_traces"
SHARED = ROOT / "../shared/traces"


def exported(source, folder):
    report = export("goal", source, folder / "x.goal")
    return goal.parse(folder / "x.goal"), report


def captured_ns(path):
    spans = Trace(path).read("spans", ["start_ns", "end_ns"])
    return max(spans["end_ns"].to_pylist()) - min(spans["start_ns"].to_pylist())


@pytest.fixture(scope="module")
def v100(tmp_path_factory):
    if not SHARED.exists():
        pytest.skip("shared trace kineto/v100_dlrm_8ranks is absent")
    path = tmp_path_factory.mktemp("v100") / "v100.eidola"
    kineto(
        [SHARED / "kineto/v100_dlrm_8ranks"],
        path,
        execution_traces=[SHARED / "execution_trace/v100_dlrm_8ranks"],
    )
    return path


def test_the_8_ranks_of_a_v100_job_exchange_what_their_collectives_say_and_end_when_captured(v100, tmp_path):
    blocks, report = exported(v100, tmp_path)
    messages = goal.matched(blocks)
    rows = Trace(v100).read("collectives").to_pylist()
    reduced = [
        r["size_bytes"] for r in rows if r["operation"] == "all_reduce"
    ]  # each rank sends 2 * 7 / 8 of it
    exchanged = sum(
        sum(r["in_split_bytes"]) - r["in_split_bytes"][r["rank"]]
        if r["in_split_bytes"]
        else r["size_bytes"] * 7 // 8
        for r in rows
        if r["operation"].startswith("all_to_all")
    )
    assert sum(messages.values()) == sum(reduced) * 14 // 8 + exchanged
    ends = goal.run(blocks)
    assert len(ends) == sum(map(len, blocks))  # no cycle, no receive left over
    # The network of the test is another one; computing and launching are as captured.
    assert max(ends.values()) == pytest.approx(captured_ns(v100), rel=0.02)
    assert not any("captured time" in line for line in report.lost)


@pytest.mark.parametrize("name", ["gemv_allreduce_host_4", "gloo_ddp_2", "gloo_ddp_4", "gloo_fsdp_2"])
def test_samples_run_to_their_end_and_take_what_was_captured(name, tmp_path):
    path = SAMPLES / name / "trace.eidola"
    if not path.exists():
        pytest.skip(f"sample {name} is absent")
    blocks, _ = exported(path, tmp_path)
    messages = goal.matched(blocks)
    ends = goal.run(blocks)
    assert len(ends) == sum(map(len, blocks))
    assert max(ends.values()) == pytest.approx(captured_ns(path), rel=0.1)
    writes = Trace(path).read("writes", ["size_bytes"])["size_bytes"].to_pylist()
    if writes:
        assert sorted(messages.values()) == sorted(writes)


PARTS = st.integers(2, 9).flatmap(
    lambda n: st.tuples(
        st.sampled_from(
            ["all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce", "all_to_all", "gather", "scatter",
             "barrier"]
        ),
        st.lists(st.integers(0, 3 << 20), min_size=n, max_size=n),
        st.integers(0, n - 1),
    )
)  # fmt: skip


@given(PARTS)
def test_messages_of_a_collective_pair_up_and_carry_its_bytes(drawn):
    operation, sizes, root = drawn
    n = len(sizes)
    if operation in ("all_reduce", "reduce_scatter", "broadcast", "reduce"):
        sizes = [sizes[0]] * n
    collective = Collective(
        operation, [{"size_bytes": s, "in_split_bytes": None, "peer": root} for s in sizes]
    )
    assert collective.known
    sent, received = {}, {}
    for place in range(n):
        for i, message in enumerate(messages := collective.messages(place)):
            assert all(j < i for j in message.after)
            assert message.tag < collective.tags
            if message.sends and operation in ("all_reduce", "all_gather", "reduce_scatter", "barrier"):
                # A ring passes on what came last; a round of a barrier follows the round before it.
                assert all(
                    not messages[j].sends and messages[j].tag == message.tag - 1 for j in message.after
                )
            ends = (place, message.peer) if message.sends else (message.peer, place)
            side = sent if message.sends else received
            assert (*ends, message.tag) not in side
            side[*ends, message.tag] = message.size_bytes
    assert sent == received
    rest = sum(sizes) - sizes[root]
    expected = {
        "all_reduce": 2 * (n - 1) * sizes[0],
        "reduce_scatter": (n - 1) * sizes[0],
        "all_gather": (n - 1) * sum(sizes),
        "broadcast": (n - 1) * sizes[0],
        "reduce": (n - 1) * sizes[0],
        "all_to_all": sum(s - s // n - (i < s % n) for i, s in enumerate(sizes)),
        "gather": rest,
        "scatter": sizes[root] - sizes[root] // n - (root < sizes[root] % n),
        "barrier": n * (n - 1).bit_length(),
    }
    assert sum(sent.values()) == expected[operation]


def test_what_is_computed_waits_for_what_it_needs_and_no_longer(tmp_path):
    """A call of 10 us launches a kernel of 30 that a second stream awaits; a sync sees its end."""
    with TraceWriter(tmp_path / "t.eidola") as writer:
        writer.write("ranks", 0, {"backend": ["gpu"]})
        writer.write("spans", 0, {
            "span": [0, 1, 2, 3], "lane": ["thread 1", "stream 7", "stream 9", "thread 1"],
            "kind": ["host_call", "kernel", "kernel", "host_call"], "name": ["launch", "k", "l", "sync"],
            "start_ns": [1000, 6000, 36_000, 20_000], "end_ns": [11_000, 36_000, 40_000, 41_000],
        })  # fmt: skip
        writer.write("dependencies", 0, {
            "before": [0, 1, 1], "after": [1, 2, 3], "kind": ["launch", "event", "sync"],
            "origin": ["measured"] * 3,
        })  # fmt: skip
    (block,), _ = exported(tmp_path / "t.eidola", tmp_path)
    ends = goal.run([block])
    assert sorted(ends[0, label] for label in block if label.startswith("o")) == [
        10_000,
        35_000,
        39_000,
        40_000,
    ]
    sync = block["o3"]
    assert int(sync["ns"]) == 5000  # what it took after the kernel's end


def test_more_lanes_than_cpus_are_told(tmp_path):
    with TraceWriter(tmp_path / "t.eidola") as writer:
        writer.write("ranks", 0, {"backend": ["gpu"]})
        writer.write("spans", 0, {
            "span": range(256), "lane": [f"workgroup {i}" for i in range(256)], "kind": ["phase"] * 256,
            "name": ["tile"] * 256, "start_ns": [0] * 256, "end_ns": [700] * 256,
        })  # fmt: skip
    (block,), report = exported(tmp_path / "t.eidola", tmp_path)
    assert len(block) == 256
    assert any("256 lanes, and a schedule 255 cpus" in line for line in report.lost)


def test_an_operation_that_lacks_a_rank_keeps_its_time_and_is_told(tmp_path):
    with TraceWriter(tmp_path / "t.eidola") as writer:
        writer.write("ranks", 0, {"backend": ["gpu"]})
        writer.write("spans", 0, {
            "span": [0], "lane": ["stream 7"], "kind": ["kernel"], "name": ["nccl"], "start_ns": [0],
            "end_ns": [700],
        })  # fmt: skip
        writer.write("communicators", 0, {"communicator": ["dp"], "group_rank": [0], "group_size": [2]})
        writer.write("collectives", 0, {
            "span": [0], "communicator": ["dp"], "sequence": [0], "operation": ["all_reduce"],
            "size_bytes": [64], "start_ns": [0], "end_ns": [700],
        })  # fmt: skip
    (block,), report = exported(tmp_path / "t.eidola", tmp_path)
    assert [int(op["ns"]) for op in block.values()] == [700]
    assert any("1 operations that lack ranks" in line for line in report.lost)


def two_ranks(path, sends):
    """Two ranks all-reduce as number 0 of a group; rank 0 then sends, as number 0 of its pairs, to `sends`."""
    with TraceWriter(path) as writer:
        for rank in range(2):
            own = [("all_reduce", None, 0, 700), *(("send", peer, 800, 900) for peer in sends if rank == 0)]
            own += [("recv", rank, 950, 990) for peer in sends if rank == 0 == peer]
            kinds, peers, starts, ends = (list(column) for column in zip(*own, strict=True))
            count = len(own)
            writer.write("ranks", rank, {"backend": ["gpu"]})
            writer.write("spans", rank, {
                "span": range(count), "lane": ["stream 7"] * count, "kind": ["kernel"] * count,
                "name": kinds, "start_ns": starts, "end_ns": ends,
            })  # fmt: skip
            writer.write(
                "communicators", rank, {"communicator": ["dp"], "group_rank": [rank], "group_size": [2]}
            )
            writer.write("collectives", rank, {
                "span": range(count), "communicator": ["dp"] * count, "sequence": [0] * count, "operation": kinds,
                "size_bytes": [64] * count, "peer": peers, "start_ns": starts, "end_ns": ends,
            })  # fmt: skip
    return path


def test_a_send_that_nobody_receives_is_no_collective_of_its_number(tmp_path):
    blocks, report = exported(two_ranks(tmp_path / "t.eidola", [1]), tmp_path)
    assert sum(goal.matched(blocks).values()) == 2 * 64
    assert len(goal.run(blocks)) == sum(map(len, blocks))
    assert any("1 operations that lack ranks" in line for line in report.lost)
    export("chakra", tmp_path / "t.eidola", tmp_path / "et")
    kinds = [[node["type"] for node in nodes.values()] for nodes in files_of(tmp_path / "et").values()]
    assert sorted(map(sorted, kinds)) == [[COMP, COLL], [COLL]]


def test_what_a_rank_sends_itself_goes_through_no_network(tmp_path):
    """ASTRA-sim has no route from a rank to itself."""
    blocks, _ = exported(two_ranks(tmp_path / "t.eidola", [0]), tmp_path)
    assert all(source != target for source, target, _ in goal.matched(blocks))
    ends = goal.run(blocks)
    assert len(ends) == sum(map(len, blocks))
    assert max(ends.values()) >= 2 * goal.LATENCY_NS + (990 - 700)


def test_every_call_that_one_kernel_ran_is_exported_and_all_run_at_once(tmp_path):
    """Three ranks pass around a ring in one kernel each, twice: one after another they would wait for ever."""
    with TraceWriter(tmp_path / "t.eidola") as writer:
        for rank in range(3):
            writer.write("ranks", rank, {"backend": ["gpu"]})
            writer.write("spans", rank, {
                "span": [0, 1, 2], "lane": ["stream 7"] * 3, "kind": ["kernel"] * 3,
                "name": ["SendRecv", "SendRecv", "gemm"], "start_ns": [0, 5000, 9000], "end_ns": [4000, 8000, 9500],
            })  # fmt: skip
            writer.write(
                "communicators", rank, {"communicator": ["pp"], "group_rank": [rank], "group_size": [3]}
            )
            writer.write("collectives", rank, {
                "span": [0, 0, 1, 1], "communicator": ["pp"] * 4, "sequence": [0, 0, 1, 1],
                "operation": ["recv", "send"] * 2, "peer": [(rank + 2) % 3, (rank + 1) % 3] * 2,
                "size_bytes": [64, 64, 128, 128], "start_ns": [0, 0, 5000, 5000],
                "end_ns": [4000, 4000, 8000, 8000],
            })  # fmt: skip
    blocks, _ = exported(tmp_path / "t.eidola", tmp_path)
    assert sorted(goal.matched(blocks).values()) == [64] * 3 + [128] * 3
    ends = goal.run(blocks)
    for rank, block in enumerate(blocks):
        (gemm,) = (label for label, operation in block.items() if operation["ns"] == "500")
        assert ends[rank, gemm] == max(end for (r, _), end in ends.items() if r == rank)


def test_a_run_is_its_messages_and_each_agent_computes_as_long(tmp_path):
    with ResultsWriter(tmp_path / "run") as writer:
        writer.write("agents", {
            "agent": [0, 1, 2], "rank": [0, 1, 1], "name": ["a", "b", "c"], "start_ps": [0] * 3,
            "end_ps": [2_000_000, 12_000_000, 12_500_000], "compute_ps": [2_000_000, 4_000_000, 0],
            "wait_ps": [0, 8_000_000, 0], "writes": [1, 1, 0], "waits": [0, 1, 1], "polls": [0, 1, 1],
        })  # fmt: skip
        writer.write("messages", {
            "message": [0, 1], "agent": [0, 1], "activity": [0, 0], "source_rank": [0, 1],
            "destination_rank": [1, 1], "size_bytes": [4096, 0], "flag": [0, 1], "post_ps": [2_000_000, 12_000_000],
            "start_ps": [2_000_000, 12_000_000], "arrival_ps": [10_000_000, 12_500_000], "queued_ps": [0, 0],
            "bottleneck_link": [0, -1], "released_by": [-1, 0],
        })  # fmt: skip
        writer.write("waits", {
            "wait": [0, 1], "agent": [1, 2], "activity": [0, 0], "rank": [1, 1], "flag": [0, 1],
            "flag_name": [None, None], "expected": [1, 1], "policy": ["event"] * 2, "start_ps": [2_000_000, 0],
            "arrival_ps": [10_000_000, 12_500_000], "end_ps": [10_000_000, 12_500_000], "polls": [1, 1],
            "released_by": [0, 1],
        })  # fmt: skip
    blocks, _ = exported(tmp_path / "run", tmp_path)
    assert goal.matched(blocks) == {(0, 1, 0): 4096}
    ends = goal.run(blocks)
    assert len(ends) == sum(map(len, blocks))
    # 2 us of compute, the test's latency, 2 us of compute; the local flag then frees the third agent.
    assert max(ends.values()) == 2000 + goal.LATENCY_NS + 2000


def test_only_traces_become_lists_of_writes(tmp_path):
    with ResultsWriter(tmp_path / "run") as writer:
        writer.write("agents", {name: [] for name in ("agent", "rank", "name", "start_ps", "end_ps", "compute_ps",
                                                      "wait_ps", "writes", "waits", "polls")})  # fmt: skip
    with pytest.raises(UsageError, match="is a run"):
        export("writes", tmp_path / "run", tmp_path / "w.csv")
