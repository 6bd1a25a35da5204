"""What switches reduce and multicast, and what passes boxes: bytes of every rank, closed forms, refusals."""

import numpy as np
import pytest

from eidola.replay import FabricBuilder, replay, run
from eidola.replay.builder import Builder
from eidola.replay.collectives import Operation, Tuning, expand, routed, tuning
from eidola.replay.presets import preset, preset_names
from eidola.replay.program import compute
from eidola.schemas import UsageError

from .programs import MIB, US
from .test_collectives import program
from .test_lower_collectives import job

GB = 10**9


def switched(gpus: int, boxes: int = 1, planes: int = 1) -> object:
    """Boxes of GPUs behind switches that compute: links of 100 GB/s over all planes, 1 us, without headers."""
    builder = FabricBuilder("switched", gpus * boxes, gpus)
    core = builder.node("core")
    for b in range(boxes):
        low, high = b * gpus, (b + 1) * gpus
        switches = [builder.node(f"switch {b}.{p}", computes=True) for p in range(planes)]
        down: list[list[list[int]]] = [[] for _ in switches]
        for gpu in range(low, high):
            wires = [builder.duplex(gpu, switch, 100_000 // planes, US) for switch in switches]
            builder.rule(gpu, low, high, [[up] for up, _ in wires[:1]])
            for at, (_, back) in enumerate(wires):
                down[at].append([back])
            out, into = builder.duplex(gpu, core, 10_000, US)
            builder.rule(gpu, 0, gpus * boxes, [[out]])
            builder.rule(core, gpu, gpu + 1, [[into]])
        for switch, links in zip(switches, down, strict=True):
            builder.rule(switch, low, high, links, stride=1)
    return builder.build()


def traffic(made) -> tuple[np.ndarray, np.ndarray]:
    """Bytes that each endpoint sends to and gets from others."""
    rows = made.message_rows()
    away = rows["source"] != rows["destination"]
    ends = [np.bincount(rows[side][away], rows["size_bytes"][away], made.endpoints)
            for side in ("source", "destination")]  # fmt: skip
    return ends[0].astype(np.int64), ends[1].astype(np.int64)


@pytest.mark.parametrize("planes", [1, 3])
@pytest.mark.parametrize(("n", "size"), [(2, 10_007), (5, 1 << 20), (8, 3)])
def test_nvls_moves_the_buffer_and_an_nth_more_each_way(n, size, planes):
    fabric = switched(n, planes=planes)
    made = program(fabric, range(n), (Operation("all_reduce", size), Tuning("nvls", chunk_bytes=1000)))
    sent, got = traffic(made)
    assert sent[:n].sum() == got[:n].sum() == (n + 1) * size
    assert np.ptp(sent[:n]) <= planes
    assert sent[n:].sum() == (n + 1) * size
    assert sent[n:].tolist() == got[n:].tolist()
    assert run(made, fabric).blocked() == []


def test_nvls_halves_and_gathers():
    fabric, n, size = switched(4), 4, 40_000
    sent, got = traffic(program(fabric, range(n), (Operation("reduce_scatter", size), Tuning("nvls"))))
    assert (sent[:n].tolist(), got[:n].tolist()) == ([size] * n, [size // n] * n)
    sent, got = traffic(program(fabric, range(n), (Operation("all_gather", size), Tuning("nvls"))))
    assert (sent[:n].tolist(), got[:n].tolist()) == ([size] * n, [size * n] * n)


@pytest.mark.parametrize("n", [4, 8])
def test_nvls_keeps_links_full(n):
    fabric, size = switched(n), 256 * MIB
    how = Tuning("nvls", chunk_bytes=64 * 1024)
    took = run(program(fabric, range(n), (Operation("all_reduce", size), how)), fabric).makespan_ps
    full = size * (n + 1) // n * 10  # picoseconds at 100 GB/s
    assert full < took < 1.08 * full


def test_requests_take_one_header_a_packet():
    fabric = preset("hgx-h100", 8)
    made = program(fabric, range(8), (Operation("reduce_scatter", 8 * 128 * 1000), Tuning("nvls")))
    sizes = np.array(sorted(set(made.message_rows()["size_bytes"].tolist()) - {0}))
    header = int(fabric.header_bytes[0])
    request = sizes[0]
    wire = request + header * -(-request // 128)
    assert wire == pytest.approx(1000 * header, rel=0.01)


def test_a_late_member_holds_everybody_back():
    fabric, n = switched(4), 4
    builder = Builder(fabric.gpus)
    calls = expand(builder, fabric, range(n), Operation("all_reduce", 4000), Tuning("nvls")).calls
    for gpu in range(n):
        agent = builder.agent(gpu, "stream")
        if gpu == 3:
            builder.call(agent, builder.block([compute(1000 * US)]))
        for call in calls[gpu]:
            builder.call(agent, **call)
    ends = run(builder.build(), fabric).final.agents["end_ps"]
    assert (ends > 1000 * US).all()


def test_a_rate_of_reduction_bounds_it():
    fabric, size = switched(4), 4 * MIB
    how = Tuning("nvls", chunk_bytes=MIB // 4, reduce_mb_per_s=40_000)
    took = run(program(fabric, range(4), (Operation("all_reduce", size), how)), fabric).makespan_ps
    assert took > 4 * size * 25  # 4 buffers at 40 GB/s


@pytest.mark.parametrize("boxes", [2, 3, 4])
def test_nvls_tree_crosses_each_box_as_its_trees_say(boxes):
    fabric, n, size = switched(4, boxes), 4 * boxes, 48_000
    made = program(fabric, range(n), (Operation("all_reduce", size), Tuning("nvls_tree", chunk_bytes=1000)))
    rows = made.message_rows()
    gpu = np.minimum(rows["source"], rows["destination"]) < n
    box = np.where(rows["source"] < n, rows["source"] // 4, -1)
    across = gpu & (rows["source"] < n) & (rows["destination"] < n) & (box != rows["destination"] // 4)
    assert rows["size_bytes"][across].sum() == 2 * (boxes - 1) * size
    assert (rows["source"][across] % 4 == rows["destination"][across] % 4).all()
    ends = [run(made, fabric, engine=engine).makespan_ps for engine in ("compiled", "reference")]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("boxes", [4, 8])
def test_nvls_trees_run_at_once_so_that_nics_bound_them(boxes):
    """A box inside one tree is a leaf of the other: 3 halves of its NICs' share go out there, and 1 here."""
    fabric, size = switched(2, boxes), 64 * MIB
    how = Tuning("nvls_tree", chunk_bytes=64 * 1024)
    took = run(program(fabric, range(2 * boxes), (Operation("all_reduce", size), how)), fabric).makespan_ps
    nic = 2 * (size // 2) * 100  # picoseconds at 10 GB/s
    assert nic < took < 1.1 * nic


@pytest.mark.parametrize(("boxes", "passes"), [(2, 4), (4, 8), (32, 8)])
def test_a_proxy_passes_a_chunk_for_each_edge_of_both_trees(boxes, passes):
    fabric, operation = preset("hgx-h100", 8 * boxes), Operation("all_reduce", 4 << 30)
    chunk = 65536 if boxes >= 4 else 131072
    found = tuning(fabric, operation, range(8 * boxes), "nvls_tree")
    assert found.network_lane_mb_per_s == round(chunk / (passes * 0.95))
    large = tuning(fabric, operation, range(8 * boxes), "nvls_tree", nvls_tree_chunk_bytes=524288)
    assert large.network_lane_mb_per_s == round(524288 / (passes * 0.95))
    assert large.chunk_bytes == found.chunk_bytes * 524288 // chunk


@pytest.mark.parametrize("leaf_ports", [64, 16])
def test_sharp_crosses_the_network_once_up_and_once_down(leaf_ports):
    fabric, size, n = preset("hgx-h100", 32, sharp=True, leaf_ports=leaf_ports), 64_000, 32
    made = program(fabric, range(n), (Operation("all_reduce", size), Tuning("sharp", chunk_bytes=1000)))
    rows = made.message_rows()
    up = (rows["source"] < n) & (rows["destination"] >= n)
    assert np.bincount(rows["source"][up], rows["size_bytes"][up]).tolist() == [size // 8] * n
    down = (rows["source"] >= n) & (rows["destination"] < n)
    assert np.bincount(rows["destination"][down], rows["size_bytes"][down]).tolist() == [size // 8] * n
    assert run(made, fabric).blocked() == []


def test_hierarchical_all_reduce_sends_slices_between_boxes():
    fabric, n, size = preset("hgx-h100", 32), 32, 32_000
    rows = program(fabric, range(n), (Operation("all_reduce", size), Tuning("hierarchical"))).message_rows()
    across = rows["source"] // 8 != rows["destination"] // 8
    assert set(np.bincount(rows["source"][across], rows["size_bytes"][across])) == {2 * 3 * size // 8 // 4}
    assert (rows["source"][across] % 8 == rows["destination"][across] % 8).all()


def test_hierarchical_all_to_all_stays_on_rails_and_brings_everything():
    fabric, n, size = preset("hgx-h100", 32), 32, 32_000
    rows = program(fabric, range(n), (Operation("all_to_all", size), Tuning("hierarchical"))).message_rows()
    across = rows["source"] // 8 != rows["destination"] // 8
    assert (rows["source"][across] % 8 == rows["destination"][across] % 8).all()
    assert set(np.bincount(rows["source"][across], rows["size_bytes"][across])) == {size * 24 // 32}


def test_gets_ask_first():
    fabric, n, size = preset("hgx-h100", 8), 8, 80_000
    for algorithm, phases, each in (("one_shot_get", 1, size), ("two_shot_get", 2, size // 8)):
        rows = program(fabric, range(n), (Operation("all_reduce", size), Tuning(algorithm))).message_rows()
        answers = rows["size_bytes"] == each
        assert answers.sum() == phases * n * (n - 1)
        assert len(rows["size_bytes"]) == phases * n * (n - 1) * 3  # barrier, request, answer


def test_a_routing_becomes_bytes():
    """Two boxes of two; eight experts, two a rank; a token goes once to a rank, and once to a box."""
    experts = np.full((4, 2, 3), -1)
    experts[0, 0] = [0, 4, 5]  # itself, rank 2 twice
    experts[0, 1] = [4, 6, 2]  # ranks 2 and 3 in the other box, rank 1
    found = routed(experts, 4, 8, 100, box_gpus=2)
    assert found.split_bytes[0].tolist() == [100, 100, 200, 100]
    assert found.box_bytes[0].tolist() == [200, 200]
    assert not found.split_bytes[1:].any()


@pytest.mark.parametrize(
    ("shape", "experts", "highest", "said"),
    [((3, 2, 1), 8, 0, "shape"), ((4, 2, 1), 6, 0, "6 experts on 4"), ((4, 2, 1), 8, 9, "names expert 9")],
)
def test_routings_that_make_no_sense_are_refused(shape, experts, highest, said):
    with pytest.raises(UsageError, match=said):
        routed(np.full(shape, highest), 4, experts, 100)


def test_forwarding_crosses_the_network_once_a_box():
    n = 16
    fabric, draw = preset("hgx-h100", n), np.random.default_rng(1)
    experts = np.argsort(draw.random((n, 40, 64)), axis=2)[:, :, :8]
    found = routed(experts, n, 64, 1000)
    for name, split in (("dispatch", found.split_bytes), ("combine", found.split_bytes.T)):
        op = Operation(name, 0, split, box_bytes=found.box_bytes)
        made = program(fabric, range(n), (op, Tuning("forwarded")))
        rows = made.message_rows()
        across = rows["source"] // 8 != rows["destination"] // 8
        assert (rows["source"][across] % 8 == rows["destination"][across] % 8).all()
        owner = rows["source" if name == "dispatch" else "destination"][across]
        other = found.box_bytes[np.arange(n), 1 - np.arange(n) // 8]
        assert np.bincount(owner, rows["size_bytes"][across]).tolist() == other.tolist()
        direct = program(fabric, range(n), (op, Tuning("direct"))).message_rows()
        far = direct["source"] // 8 != direct["destination"] // 8
        assert rows["size_bytes"][across].sum() < 0.5 * direct["size_bytes"][far].sum()
        ends = [run(made, fabric, engine=engine).makespan_ps for engine in ("compiled", "reference")]
        assert ends[0] == ends[1]


@pytest.mark.parametrize(("name", "least"), [("hgx-h100", 5), ("hgx-b200", 6)])
def test_nvls_is_picked_where_nccl_was_seen_to_pick_it(name, least):
    if name not in preset_names():
        pytest.skip(f"no preset {name}")
    fabric = preset(name, 8)
    picked = [tuning(fabric, Operation("all_reduce", 8 << 30), range(n)).algorithm for n in range(2, 9)]
    assert picked == ["ring"] * (least - 2) + ["nvls"] * (9 - least)


def test_nvls_starts_at_two_mebibytes_on_hopper():
    """As logged on 8 x H200 with NCCL 2.27.7: Ring with LL below."""
    fabric = preset("hgx-h100", 8)
    small, large = (tuning(fabric, Operation("all_reduce", size), range(8)) for size in (MIB, 2 * MIB))
    assert (small.algorithm, small.protocol, large.algorithm) == ("ring", "ll", "nvls")
    assert tuning(fabric, Operation("all_gather", 1 << 30), range(8)).algorithm == "ring"
    assert tuning(preset("hgx-a100", 8), Operation("all_reduce", 1 << 30), range(8)).algorithm == "ring"
    many = preset("hgx-h100", 64)
    assert tuning(many, Operation("all_reduce", 1 << 30), range(64)).algorithm == "nvls_tree"


def test_results_tell_switches_from_gpus(tmp_path):
    trace = job(tmp_path / "t", ranks=8)
    results = replay(trace, fabric="hgx-h100", algorithms={"all_reduce": "nvls"})
    assert results.summary["gpus"] == 8
    assert results.read("gpus")["rank"].to_pylist() == list(range(8))
    agents = results.read("agents").to_pylist()
    assert {row["rank"] for row in agents if "multicast" in row["name"]} == {8}
    assert "nvswitch 0" in preset("hgx-h100", 8).node_names[8]


def test_a_box_without_a_reducing_switch_says_so(tmp_path):
    with pytest.raises(UsageError, match=r"no switch of fabric hgx-a100 that reduces.*or another algorithm"):
        replay(job(tmp_path / "t"), fabric="hgx-a100", algorithms={"all_reduce": "nvls"})


def test_uneven_boxes_are_refused():
    fabric = preset("hgx-h100", 16)
    with pytest.raises(UsageError, match=r"boxes hold 1 to 2 of the 3 ranks.*take ring"):
        program(fabric, [0, 1, 8], (Operation("all_reduce", 8), Tuning("nvls_tree")))
