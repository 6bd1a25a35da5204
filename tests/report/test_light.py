"""The speed of light of collectives: closed forms on known fabrics, and no replayed operation beats it."""

import pyarrow as pa
import pytest

from eidola.replay import replay
from eidola.report.collectives import replayed
from eidola.report.light import Light, crossing
from eidola.schemas import Results

from .runs import US, ring, saved, star
from .test_browser import SAMPLE

MIB = 1 << 20
DDP = SAMPLE.parents[1] / "gloo_ddp_4/trace.eidola"


def star_links(gpus, rate=50_000):
    ends = [(f"gpu {g}", "switch") for g in range(gpus)] + [("switch", f"gpu {g}") for g in range(gpus)]
    return pa.table(
        {
            "source": [a for a, _ in ends],
            "destination": [b for _, b in ends],
            "rate_mb_per_s": [rate] * len(ends),
            "latency_ps": [US] * len(ends),
        }
    )


@pytest.mark.parametrize(
    ("operation", "crossing_bytes"),
    [
        ("all_reduce", MIB),
        ("broadcast", MIB),
        ("reduce", MIB),
        ("all_gather", 3 * MIB),
        ("reduce_scatter", 3 * MIB // 4),
        ("all_to_all", 3 * MIB // 4),
        ("barrier", 0),
    ],
)
def test_bytes_over_the_cut_around_a_gpu_and_two_links_latency(operation, crossing_bytes):
    bound = Light(star_links(4), 1).bound_ps(operation, MIB, range(4))
    assert bound == -(-crossing_bytes * 1_000_000 // 50_000) + 2 * US


def test_what_is_not_known_has_no_bound():
    light = Light(star_links(4), 1)
    assert light.bound_ps("unknown", MIB, range(4)) is None
    assert light.bound_ps("all_to_allv", MIB, range(4)) is None
    assert light.bound_ps("all_reduce", MIB, [2]) is None
    assert Light(star_links(0), 1).bound_ps("all_reduce", MIB, range(4)) is None


def test_a_narrow_box_limits_and_only_groups_that_leave_it():
    """Two boxes of two GPUs, with one NIC of a tenth of the rate each."""
    ends = [
        ("gpu 0", "nvswitch 0"),
        ("gpu 1", "nvswitch 0"),
        ("gpu 2", "nvswitch 1"),
        ("gpu 3", "nvswitch 1"),
    ]
    inside = [*ends, *((b, a) for a, b in ends)]
    nics = [("nvswitch 0", "nic 0.0"), ("nvswitch 1", "nic 1.0")]
    inside += [*nics, *((b, a) for a, b in nics)]
    across = [("nic 0.0", "leaf"), ("leaf", "nic 0.0"), ("nic 1.0", "leaf"), ("leaf", "nic 1.0")]
    rates = [50_000] * len(inside) + [5_000] * len(across)
    pairs = inside + across
    links = pa.table(
        {"source": [a for a, _ in pairs], "destination": [b for _, b in pairs], "rate_mb_per_s": rates,
         "latency_ps": [1] * len(pairs)}
    )  # fmt: skip
    light = Light(links, 2)
    assert light.bound_ps("all_reduce", MIB, [0, 1]) == -(-MIB * 1_000_000 // 50_000) + 2
    assert light.bound_ps("all_reduce", MIB, range(4)) == -(-MIB * 1_000_000 // 5_000) + 2


@pytest.mark.parametrize("ranks", [2, 8, 64])
def test_a_cut_and_its_complement_need_the_same(ranks):
    for operation in ("all_reduce", "all_gather", "all_to_all"):
        entering, leaving = crossing(operation, MIB, ranks, 1)
        assert (leaving, entering) == crossing(operation, MIB, ranks, ranks - 1)


def test_no_replayed_operation_is_faster_than_light(tmp_path):
    run = replay(DDP, tmp_path / "ddp", gpus=16, fabric="hgx-h100")
    light = Light(run.read("links"), run.summary["gpus_a_box"])
    operations = replayed(run.read("collectives"), light)
    assert operations
    assert all(o.predicted_ps >= o.light_ps for o in operations if o.light_ps is not None)


def test_a_ring_of_whole_buffers_takes_its_steps(tmp_path):
    run = Results(saved(ring(4, 6), star(4), tmp_path / "run"))
    (operation,) = replayed(run.read("collectives"), Light(run.read("links"), 1))
    assert operation.light_ps == -(-4 * MIB * 1_000_000 // 50_000) + 2 * US
    assert operation.predicted_ps >= operation.light_ps
