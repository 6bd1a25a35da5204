"""The scaling verb: N to N is equality, and the laws are what they say."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from eidola.replay import lower, monitor, run, scale, spin
from eidola.schemas import Trace, UsageError

from .programs import star
from .traces import data, ideal, raised, span, waited, write_trace

SAMPLES = Path(__file__).resolve().parents[2] / "sample_traces"
MODES = ("dependent", "timed", "target")


def direct(path, ranks=4, size=6144, phase=1200):
    """A direct kernel: data and a flag to every peer in turn, a local phase, a wait for every peer."""
    rows = {}
    for rank in range(ranks):
        writes, waits = [], []
        for hop in range(1, ranks):
            peer, time = (rank + hop) % ranks, hop * phase // ranks
            writes += [data(peer, time, size // 3, span=0, region="partials") for _ in range(3)]
            writes.append(raised(peer, time, rank, 1, span=0))
            waits.append(waited((rank - hop) % ranks, 1, 2000, 2000, span=2))
        remote = phase * (ranks - 1) // ranks
        spans = [(0, 0, remote), (1, remote, phase), (2, 2000, 2000)]
        rows[rank] = {
            "spans": [span(n, "workgroup 0", a, b, "phase") for n, a, b in spans],
            "writes": writes,
            "waits": waits,
        }
    return write_trace(path, rows)


def assert_equal(one, other):
    for entry in fields(one):
        a, b = getattr(one, entry.name), getattr(other, entry.name)
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            assert all(np.array_equal(a[c], b[c]) for c in a), entry.name
        else:
            assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b, entry.name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("law", ["weak", "strong"])
@pytest.mark.parametrize("replicas", [False, True])
@pytest.mark.parametrize(("sample", "ranks"), [("gemv_allreduce_host_4", 4), ("gloo_ddp_2", 2)])
def test_n_to_n_is_equality_of_programs(sample, ranks, mode, law, replicas):
    trace, fabric = Trace(SAMPLES / sample / "trace.eidola"), star(ranks)
    scaled = scale(trace, ranks, fabric, law=law, replicas=replicas, mode=mode)
    assert_equal(lower(trace, fabric, mode=mode).program, scaled.program)


@pytest.mark.parametrize("gpus", [2, 4, 5, 8, 64])
def test_direct_traffic_addresses_every_peer_and_keeps_its_total(tmp_path, gpus):
    trace = direct(tmp_path / "t")
    program = scale(trace, gpus, ideal(gpus)).program
    rows = program.message_rows()
    flags = rows["flag"] >= 0
    pairs = set(zip(rows["source"][flags].tolist(), rows["destination"][flags].tolist(), strict=True))
    assert pairs == {(a, b) for a in range(gpus) for b in range(gpus) if a != b}
    sent = np.bincount(rows["source"][~flags], rows["size_bytes"][~flags], gpus)
    assert sent.tolist() == [(gpus - 1) * -(-6144 * 4 // gpus)] * gpus
    compute = run(program, ideal(gpus)).final.agents["compute_ps"]
    assert np.abs(compute - compute[0]).max() == 0
    assert compute[0] == pytest.approx(2_000_000, abs=gpus)


def test_the_captured_kernel_runs_at_8_and_256_as_target():
    trace = Trace(SAMPLES / "gemv_allreduce_host_4/trace.eidola")
    for gpus in (8, 256):
        lowered = scale(trace, gpus, ideal(gpus), mode="target")
        waits = 2 * (gpus - 1) * 8 * 3
        assert lowered.program.waits == waits
        reads = {}
        for name, policy in (("spin", spin(500)), ("monitor", monitor(100))):
            reads[name] = int(run(lowered.program, ideal(gpus), wait=policy).final.agents["polls"].sum())
        assert reads["monitor"] == waits < reads["spin"]
        assert any("bytes a peer" in note for note in lowered.notes)


def test_a_ring_stays_a_ring(tmp_path):
    """What addresses one neighbour only keeps its distance, forwards and backwards."""
    rows = {
        rank: {
            "spans": [span(0, "workgroup 0", 0, 100, "phase")],
            "writes": [data((rank + 1) % 4, 50, 64, span=0), data((rank + 3) % 4, 60, 32, span=0)],
        }
        for rank in range(4)
    }
    program = scale(write_trace(tmp_path / "t", rows), 16, ideal(16)).program
    found = program.message_rows()
    distance = (found["destination"] - found["source"]) % 16
    assert set(zip(distance.tolist(), found["size_bytes"].tolist(), strict=True)) == {(1, 64), (15, 32)}


def test_replicas_are_independent_copies(tmp_path):
    trace = direct(tmp_path / "t")
    rows = scale(trace, 12, ideal(12), replicas=True).program.message_rows()
    original = lower(trace, ideal(4)).program.message_rows()
    assert np.array_equal(rows["source"] // 4, rows["destination"] // 4)
    assert np.array_equal(rows["size_bytes"], np.tile(original["size_bytes"], 3))


def test_strong_scaling_divides_compute(tmp_path):
    spans = [span(0, "stream 7", 100, 900), span(1, "thread 1", 0, 80, "host_call")]
    trace = write_trace(tmp_path / "t", {rank: {"spans": spans} for rank in range(2)})
    weak, strong = (run(scale(trace, 8, ideal(8), law=law).program, ideal(8)) for law in ("weak", "strong"))
    assert weak.makespan_ps == 900_000
    assert strong.makespan_ps == 100_000 + 800_000 * 2 // 8
    assert strong.final.agents["compute_ps"].min() == 80_000


@pytest.mark.parametrize(
    ("gpus", "options", "message"),
    [
        (0, {}, "at least one GPU"),
        (6, {"replicas": True}, "no multiple of the 4 ranks"),
        (8, {"law": "sideways"}, "choose weak or strong"),
    ],
)
def test_shapes_that_make_no_sense_are_refused(tmp_path, gpus, options, message):
    with pytest.raises(UsageError, match=message):
        scale(direct(tmp_path / "t"), gpus, ideal(16), **options)


def test_missing_ranks_are_refused_unless_filled(tmp_path):
    rows = {rank: {"spans": [span(0, "stream 7", 0, 100 + rank)]} for rank in (0, 2)}
    for rank in rows:
        rows[rank]["communicators"] = [{"communicator": "world", "group_rank": rank, "group_size": 4}]
    trace = write_trace(tmp_path / "t", rows)
    with pytest.raises(UsageError, match=r"holds 2 of the 4 ranks of its job \(0, 2\).*--fill"):
        scale(trace, 8, ideal(8))
    lowered = scale(trace, 8, ideal(8), fill=True)
    assert any("2 of 4 ranks were not captured" in note for note in lowered.notes)
    assert lowered.program.endpoints == 8
    assert lower(trace, ideal(2)).program.endpoints == 2
