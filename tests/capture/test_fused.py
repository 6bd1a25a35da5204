"""The three fused kernels on CPU threads: what they compute, and the protocol read off their probe records."""

from dataclasses import replace

import numpy as np
import pytest

from eidola.capture import EmbeddingAllToAll, GemmAllToAll, GemvAllReduce
from eidola.capture.fused.cpu import run
from eidola.capture.raw import usable_cores
from eidola.capture.records import KINDS
from eidola.schemas import CaptureError, UsageError

EMBEDDINGS = [
    EmbeddingAllToAll(gpus=2, batch=128, workgroups=3, tile_samples=8),
    EmbeddingAllToAll(gpus=3, batch=90, tables=3, dimension=5, pooling=2, tile_samples=7, iterations=5),
]
GEMMS = [
    GemmAllToAll(gpus=2, rows=64, columns=48, inner=16, tile_rows=16, tile_columns=16, workgroups=4),
    GemmAllToAll(
        gpus=3, rows=99, columns=50, inner=9, tile_rows=8, tile_columns=7, workgroups=3
    ),  # ragged tiles
]


def plain_embeddings(spec):
    """(rank, iteration, source, sample, table, element), pooled one bag at a time."""
    inputs, length = spec.inputs(), spec.batch // spec.gpus
    shape = (spec.gpus, spec.iterations, spec.gpus, length, spec.tables, spec.dimension)
    result = np.zeros(shape)
    for source, rank in enumerate(inputs):
        for iteration, sample, table in np.ndindex(spec.iterations, spec.batch, spec.tables):
            bag = rank["indices"][iteration, sample, table]
            pooled = sum(rank["weights"][table, row] for row in bag)
            result[sample // length, iteration, source, sample % length, table] = pooled
    return result


@pytest.mark.parametrize("spec", EMBEDDINGS, ids=lambda s: f"{s.gpus}x{s.batch}")
def test_every_owner_has_its_samples_pooled_from_every_rank(spec, c_compiler):
    expected = plain_embeddings(spec)
    assert np.array_equal(run(spec).outputs.reshape(expected.shape), expected)


@pytest.mark.parametrize("spec", GEMMS, ids=lambda s: f"{s.gpus}x{s.rows}x{s.columns}")
def test_every_owner_has_its_rows_of_every_ranks_product(spec, c_compiler):
    outputs = run(spec).outputs.reshape(spec.gpus, spec.iterations, spec.gpus, -1)
    length = spec.rows // spec.gpus
    for source, rank in enumerate(spec.inputs()):
        for iteration in range(spec.iterations):
            product = rank["left"].astype(float) @ rank["right"][iteration].astype(float)
            for owner in range(spec.gpus):
                rows, at = product[owner * length : (owner + 1) * length], 0
                for top in range(0, length, spec.tile_rows):
                    for left in range(0, spec.columns, spec.tile_columns):
                        tile = rows[top : top + spec.tile_rows, left : left + spec.tile_columns]
                        there = outputs[owner, iteration, source, at : at + tile.size]
                        assert np.array_equal(there.reshape(tile.shape), tile)
                        at += tile.size


def of_kind(records, *kinds):
    return records[np.isin(records["kind"], [KINDS[kind] for kind in kinds])]


@pytest.mark.parametrize("spec", [*EMBEDDINGS, *GEMMS], ids=lambda s: f"{s.name}-{s.gpus}")
def test_a_scatter_writes_each_slice_once_then_one_flag_a_peer_and_workgroup(spec, c_compiler):
    result = run(spec)
    covered = np.zeros((spec.gpus, spec.gpus, spec.result_words), int)  # peer, writer, word
    for rank, workgroups in enumerate(result.records):
        for number, records in enumerate(workgroups):
            flags = of_kind(records, "flag_write")
            assert flags[["peer", "flag", "value"]].tolist() == [
                ((rank + hop) % spec.gpus, rank * spec.workgroups + number, epoch)
                for epoch in range(1, spec.iterations + 1)
                for hop in range(1, spec.gpus)
            ]
            pending = None
            for record in of_kind(records, "data_write", "flag_write"):
                if record["kind"] == KINDS["data_write"]:
                    assert pending in (None, record["peer"])
                    pending = record["peer"]
                    first = record["extra"] // 4
                    covered[record["peer"], rank, first : first + record["value"] // 4] += 1
                else:
                    assert pending in (None, record["peer"])
                    pending = None
    slices = np.zeros_like(covered)
    share = spec.result_words // spec.gpus
    for writer in range(spec.gpus):
        slices[:, writer, writer * share : (writer + 1) * share] = spec.iterations
        slices[writer, writer] = 0
    assert np.array_equal(covered, slices)


@pytest.mark.parametrize("spec", [*EMBEDDINGS, *GEMMS], ids=lambda s: f"{s.name}-{s.gpus}")
def test_every_wait_ends_after_the_flag_that_it_waits_for(spec, c_compiler):
    result = run(spec)
    every = [records for rank in result.records for records in rank]
    raised = {
        (int(r["peer"]), int(r["flag"]), int(r["value"])): int(r["time"])
        for records in every
        for r in of_kind(records, "flag_write")
    }
    seen = {
        (rank, int(r["flag"]), int(r["value"])): int(r["time"])
        for rank, workgroups in enumerate(result.records)
        for records in workgroups
        for r in of_kind(records, "wait_end")
    }
    assert raised.keys() == seen.keys()
    assert len(seen) == spec.iterations * spec.gpus * (spec.gpus - 1) * spec.workgroups
    assert all(raised[key] <= seen[key] for key in seen)


@pytest.mark.parametrize("spec", [EMBEDDINGS[0], GEMMS[0]], ids=lambda s: s.name)
def test_a_flag_that_never_comes_is_named(spec, c_compiler):
    mute = replace(spec, mute_rank=1, deadline_s=0.2, iterations=1)
    with pytest.raises(
        CaptureError, match=rf"rank 0, .*\({spec.regions[0]} from rank 1\): expected 1, seen 0"
    ):
        run(mute)


def test_thread_cpu_time_and_oversubscription_are_recorded(c_compiler):
    ranks = usable_cores() + 1
    many = run(replace(EMBEDDINGS[0], gpus=ranks, batch=ranks, workgroups=1))
    assert many.details["oversubscribed"]
    assert all(0 < rank["cpu_ns"] <= rank["end_ns"] - rank["start_ns"] for rank in many.ranks)


@pytest.mark.parametrize("spec", [GemvAllReduce(gpus=2, rows=64, columns=8), EMBEDDINGS[0], GEMMS[0]])
def test_probes_can_be_compiled_out(spec, c_compiler):
    off = run(spec, "-DEIDOLA_PROBES_OFF")
    assert not off.emitted.any()
    assert np.array_equal(off.outputs, run(spec).outputs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EmbeddingAllToAll(gpus=3, batch=64), "no multiple of gpus"),
        (lambda: EmbeddingAllToAll(pooling=2**23), "exact sums"),
        (lambda: GemmAllToAll(rows=0), "rows is 0"),
        (lambda: GemmAllToAll(inner=2**21), "exact sums"),
        (lambda: GemmAllToAll(gpus=1), "at least 2"),
    ],
)
def test_shapes_that_make_no_sense_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_the_recorded_command_runs_the_same():
    spec = GemmAllToAll(gpus=2, rows=64, seed=5)
    assert spec.command("host") == (
        "eidola capture kernel gemm-alltoall --backend host --gpus 2 -m 64 -n 256 -k 64 --tile-rows 32 "
        "--tile-columns 32 --workgroups 8 --iterations 3 --seed 5"
    )
