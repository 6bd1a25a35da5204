"""Published measurements: how rows are read, mapped to machines and methods, and written back."""

import csv
import os
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

from eidola.replay.presets import preset
from eidola.replay.scoring import Measurement, case_of, predict, read_measurements, score
from eidola.replay.scoring.launch import iteration_us
from eidola.schemas import InputError

HEADER = ("table_id,system,ranks,interconnect,library_version,algorithm_or_env,operation,size_bytes,time_us,"
          "algbw_GBps,busbw_GBps,in_place,source_url")  # fmt: skip


def row(**cells):
    base = {"system": "H100 SXM, 8 per node, 1 node", "ranks": "8", "interconnect": "NVLink4 NVSwitch",
            "library_version": "NCCL 2.27.3", "algorithm_or_env": "default", "operation": "all_reduce",
            "size_bytes": "1048576"}  # fmt: skip
    return Measurement(base | cells, 2)


@pytest.mark.parametrize(
    ("system", "interconnect", "ranks", "machine", "boxes"),
    [
        ("H100 SXM, 8 per node, 2 nodes (AWS p5.48xlarge)", "NVLink4 NVSwitch + 32x100G EFA (3200 Gb/s)", 16,
         ("hgx-h100", 8, 50), 2),
        ("A100 40GB, 8 per node, 2 nodes (AWS p4d.24xlarge, EKS)", "NVLink3 NVSwitch + 4x100G EFA", 16,
         ("hgx-a100", 4, 12.5), 2),
        ("AWS p5en.48xlarge x 4 nodes", "16x200G EFA", 32, ("hgx-h200", 8, 50), 4),
        ("8xH100 SXM5", "", 8, ("hgx-h100", 0, 0), 1),
        ("AWS p5en.48xlarge \u00d78", "EFAv3 16\u00d7200Gbps", 64, ("hgx-h200", 8, 50), 8),
        ("4 nodes x 8 H200", "8 x 400 Gb/s InfiniBand NDR", 32, ("hgx-h200", 8, 50), 4),
        ("32 x nodes of 8x B200 SXM", "CX-7 NDR", 256, ("hgx-b200", 0, 50), 32),
        ("B200, 1 GPU + 1 NIC per node, 2 nodes (GCP A4)", "1x400G RoCE per GPU", 2,
         ("hgx-b200", 1, 50), 2),
        ("HGX B300, 8/node", "NVLink5 + 8x800G XDR", 64, ("hgx-b300", 8, 100), 8),
        ("GB200 NVL72, 4 per tray, 18 trays", "NVLink5 MNNVL", 72, ("gb200-nvl72", 0, 0), 1),
        ("GB300 NVL72, 2 racks", "NVLink5 MNNVL + 4x800G XDR", 144, ("gb300-nvl72", 0, 100), 2),
        ("MI300X, 8 per node, 2 nodes", "xGMI mesh + 8x400G mlx5 RoCE", 16, ("mi300x", 8, 50), 2),
        ("AMD Instinct MI325X OAM", "xGMI", 8, ("mi325x", 0, 0), 1),
        ("gfx950 (MI350X/MI355X), 8 per node, 1 node", "xGMI mesh (7 links)", 8, ("mi355x", 0, 0), 1),
        ("MI250X, 4 of 8 GCDs", "xGMI, 1 to 4 links per pair", 4, ("mi250x", 0, 0), 1),
        ("NVIDIA A800-SXM4-80GB", "NVLink3 NVSwitch", 8, ("hgx-a800", 0, 0), 1),
        ("H800 SXM5, 8 per node, 2 nodes", "NVLink + 8x400G IB", 16, ("hgx-h800", 8, 50), 2),
        ("H100 80GB HBM3, 8 per node, 1 or 2 nodes", "NVLink4 + IB NDR", 16, ("hgx-h100", 0, 50), 2),
        ("DGX-1 V100, 8 GPUs", "NVLink2 hybrid cube mesh", 8, ("dgx1-v100", 0, 0), 1),
        ("GCP A3 Mega", "8x200G GPUDirect-TCPXO", 16, ("hgx-h100", 8, 25), 2),
        ("AWS p4d.24xlarge", "400 Gbps EFA", 32, ("hgx-a100", 4, 12.5), 4),
        ("AWS p3dn.24xlarge, 2 nodes", "", 16, ("dgx1-v100", 1, 12.5), 2),
        ("Azure ND96isr_H100_v5 x 4", "", 32, ("hgx-h100", 8, 50), 4),
        ("OCI BM.GPU4.8, 2 nodes", "", 16, ("hgx-a100", 8, 25), 2),
        ("DGX-2, 16 V100", "NVSwitch", 16, ("dgx2-v100", 0, 0), 1),
        ("DGX-2 V100, 16 per node, 2 nodes", "NVSwitch + 8x100G IB EDR", 32, ("dgx2-v100", 8, 12.5), 2),
        ("Perlmutter, A100, 4 per node, 2 nodes", "NVLink3 + 4x200G Slingshot", 8, ("a100-quad", 4, 25), 2),
        ("JUPITER GH200, 4 per node, 16 nodes", "4x NDR200", 64, ("hopper-quad", 4, 25), 16),
        ("GH200, 1 per node, 8 nodes", "400G NDR", 8, ("hopper-quad", 0, 50), 8),
        ("El Capitan MI300A, 4 per node, 2 nodes", "xGMI + 4x200G Slingshot", 8, ("mi300a", 4, 25), 2),
        ("MI308X, 8 GPUs of one node", "xGMI mesh", 8, ("mi300x", 0, 0), 1),
        ("GB200 NVL72, 4 per tray, 32 trays", "NVLink5 MNNVL + 4x400G IB", 128, ("gb200-nvl72", 0, 50), 2),
        ("GB200, 4 per tray, 2 trays", "4x400G RoCE, MNNVL disabled", 8, ("gb200-nvl72", 0, 50), 2),
        ("8x L40S, 1 node", "PCIe Gen4", 8, ("pcie", 0, 0), 1),
        ("L40S, 4 per node, 2 nodes", "PCIe4 + 2x200G RoCE", 8, ("pcie", 2, 25), 2),
        ("RTX PRO 6000 Blackwell, 8 per node", "PCIe Gen5 switches", 8, ("pcie5", 0, 0), 1),
        ("H100 PCIe, 8 per node", "PCIe Gen5", 8, ("pcie5", 0, 0), 1),
        ("H100, 8 per node, 128 nodes", "8x400G IB NDR", 1024, ("hgx-h100", 8, 50), 128),
    ],
)  # fmt: skip
def test_machines_are_read_from_what_their_authors_wrote(system, interconnect, ranks, machine, boxes):
    case = case_of(row(system=system, interconnect=interconnect, ranks=str(ranks)))
    assert not isinstance(case, str), case
    found = case.machine
    assert (found.preset, found.nics, found.nic_gb_per_s) == machine
    assert (found.boxes, found.gpus) == (boxes, ranks)
    assert preset(found.preset, ranks, **case.settings).gpus == ranks


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"system": "8 GPUs of some cloud"}, "no preset"),
        ({"system": "TPU v5e", "interconnect": "ICI"}, "no preset"),
        ({"system": "Gaudi3, 8 per node", "library_version": "HCCL"}, "not known"),
        ({"system": "A100 PCIe, 2 GPUs", "interconnect": "NVLink bridge"}, "bridges"),
        ({"interconnect": "host memory, no P2P"}, "host memory"),
        ({"system": "RTX 4090, 8 GPUs", "interconnect": "PCIe Gen4, no P2P"}, "host memory"),
        ({"algorithm_or_env": "NCCL_P2P_DISABLE=1"}, "host memory"),
        ({"system": "H100 NVL, 4 GPUs", "interconnect": "NVLink bridges", "ranks": "4"}, "bridges"),
        ({"ranks": ""}, "ranks is not stated"),
        ({"size_bytes": ""}, "no size"),
        ({"operation": "ep_dispatch"}, "ep_dispatch"),
        ({"operation": ""}, "operation"),
        ({"library_version": "DeepEP V2"}, "expert-parallel"),
        ({"library_version": "QuickReduce", "algorithm_or_env": "QR-FP8"}, "compresses"),
        ({"library_version": "my own kernels"}, "not known"),
        ({"ranks": "1"}, "one rank"),
        ({"ranks": "17", "system": "H100, 8 per node, 2 nodes"}, "17 GPUs of one"),
        ({"system": "MI250X, 16 ranks (GCDs), 1 node", "ranks": "16"}, "no preset"),
    ],
)
def test_a_row_that_cannot_be_mapped_says_why(cells, reason):
    assert reason in case_of(row(**cells))


@pytest.mark.parametrize(
    ("env", "algorithm", "protocol", "size"),
    [
        ("default", "", "", 2**30),
        ("NCCL_ALGO=allreduce:ring", "ring", "", 8),
        ("NCCL_ALGO=NVLSTree", "nvls_tree", "", 8),
        ("algo=Tree proto=LL128", "tree", "ll128", 8),
        ("NCCL_ALGO=RING NVLS=0 COLLNET=0", "ring", "", 8),
        ("NCCL_ALGO=Tree, QPS_PER_CONNECTION=2", "tree", "", 8),
        ("NCCL_NVLS_ENABLE=0", "", "", 2**30),
        ("NCCL_ALGO=Ring,Tree", "", "", 2**30),
        ("CollNet(SHARP off)", "", "", 2**30),
        ("NCCL_ALGO=^Tree", "", "", 2**30),
        ("TREE/LL128/64ch (before tuning)", "tree", "ll128", 8),
        ("NCCL_PROTO=Simple", "", "simple", 8),
        ("NCCL_ALGO=Ring;NCCL_PROTO=LL", "ring", "ll", 8),
        ("Ring, Simple (forced)", "ring", "simple", 8),
        ("default (NVLS for all_reduce)", "nvls", "", 2**30),
        ("default (NVLS for all_reduce)", "", "", 8),
        ("default (MNNVL, NVLS)", "", "", 2**30),
        ("default (picked Ring)", "ring", "", 2**30),
    ],
)
def test_forced_algorithms_hold_at_every_size_and_reported_ones_for_large_sizes(
    env, algorithm, protocol, size
):
    case = case_of(row(algorithm_or_env=env, size_bytes=str(size)))
    assert (case.algorithm, case.method.protocol) == (algorithm, protocol)


@pytest.mark.parametrize(
    ("system", "wires", "env", "off"),
    [
        ("H100, 8 per node, 2 nodes", "8x400G IB", "default", ()),
        ("H100, 8 per node, 2 nodes", "8x400G IB", "NCCL_NVLS_ENABLE=0", ("nvls", "nvls_tree")),
        ("H100, 8 per node, 2 nodes", "8x400G IB", "NVLS disabled", ("nvls", "nvls_tree")),
        ("H100, 8 per node, 2 nodes", "8x400G IB", "NCCL_ALGO=Ring,Tree", ("nvls", "nvls_tree", "sharp")),
        ("H100, 8 per node, 2 nodes", "8x400G IB", "NCCL_ALGO=^NVLSTree,Tree", ("nvls_tree", "tree")),
        ("H100, 8 per node, 2 nodes", "8x400G IB", "NCCL_PROTO=^LL128", ("ll128",)),
        ("H100, 8 per node, 2 nodes", "8x400G IB", "NCCL_PROTO=Simple,LL", ("ll128",)),
        ("B200, 8 per node, 2 nodes", "8x400G IB", "CollNet(SHARP off)", ("nvls", "nvls_tree")),
        ("A100, 8 per node, 2 nodes", "4x100G EFA", "default", ("ll", "ll128")),
        ("H100, 8 per node, 2 nodes", "32x100G EFA", "default", ()),
        ("GCP a3-megagpu-8g, 2 nodes", "", "default", ("ll", "ll128", "nvls", "nvls_tree")),
        ("GCP a3-highgpu-8g, 2 nodes", "", "default", ("ll", "ll128", "nvls", "nvls_tree", "tree")),
        ("GCP a3-megagpu-8g, 1 node", "", "default", ()),
    ],
)
def test_what_never_runs_is_read_from_the_row_and_from_its_network(system, wires, env, off):
    ranks = "8" if "1 node" in system else "16"
    case = case_of(row(system=system, interconnect=wires, algorithm_or_env=env, ranks=ranks))
    assert sorted(case.without) == sorted(off)


@pytest.mark.parametrize(
    ("wires", "nics", "gb_per_s", "transport"),
    [
        ("8x400G IB NDR", 8, 50, "ib"),
        ("8*400Gb/s InfiniBand", 8, 50, "ib"),
        ("400G x 8 RoCE", 8, 50, "roce"),
        ("1x400G per GPU RoCE", 8, 50, "roce"),
        ("8x CX-7 400 Gb/s", 8, 50, "ib"),
        ("8 ConnectX-7 NICs", 8, 50, "ib"),
        ("CX-7 NDR", 0, 50, "ib"),
        ("4x NDR200", 4, 25, "ib"),
        ("2x HDR100", 2, 12.5, "ib"),
        ("3.2 Tbps RoCE", 0, 50, "roce"),
        ("3200 Gbps InfiniBand", 0, 50, "ib"),
        ("16x200G EFA", 8, 50, "efa"),
        ("4x200G Slingshot 11", 4, 25, "slingshot"),
        ("25 GbE TCP", 0, 3.125, "tcp"),
        ("8x400G AMD Pollara", 8, 50, "roce"),
        ("8x200G GPUDirect-TCPXO", 8, 25, "tcpxo"),
        ("NVLink4", 0, 50, "ib"),
    ],
)
def test_networks_are_read_from_what_their_authors_wrote(wires, nics, gb_per_s, transport):
    found = case_of(row(system="H100, 8 per node, 4 nodes", interconnect=wires, ranks="32")).machine
    assert (found.nics, found.nic_gb_per_s, found.transport) == (nics, gb_per_s, transport)


def test_what_started_the_operations_is_read():
    def harness(library, env):
        return case_of(row(library_version=library, algorithm_or_env=env)).method.harness

    assert harness("NCCL", "default") == "mpi"
    assert harness("NCCL", "-g 8 (one process)") == "single"
    assert harness("NCCL 2.27.7, torch 2.9.1", "default") == "torch"
    assert harness("NCCL through XLA (PjRt)", "default") == "xla"


def test_groups_side_by_side_fill_the_machine():
    case = case_of(row(ranks="2", algorithm_or_env="4 group(s) of 2 at once, F32"))
    assert (case.ranks, case.groups, case.machine.gpus) == (2, 4, 8)


def write(path, *rows):
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


GOOD = 't,"H100 SXM, 8 per node",8,NVLink4,NCCL,default,all_reduce,65536,40.5,1.6,2.8,{},https://x'


def test_the_result_has_the_rows_of_the_file_and_in_place_repetitions_are_one_prediction(tmp_path):
    file = write(
        tmp_path / "m.csv", GOOD.format(0), GOOD.format(1), "u,ENIAC,8,wires,NCCL,default,all_reduce,8,1,,,,"
    )
    made = score(file, tmp_path / "out", jobs=1)
    with (tmp_path / "out" / "validation.csv").open(newline="") as text:
        found = list(csv.DictReader(text))
    with file.open(newline="") as text:
        given = list(csv.DictReader(text))
    assert [{k: f[k] for k in g} for f, g in zip(found, given, strict=True)] == given
    assert found[0]["predicted_us"] == found[1]["predicted_us"] != ""
    assert (found[0]["covered"], found[0]["fabric"], found[0]["algorithm"] != "") == (
        "true",
        "hgx-h100",
        True,
    )
    assert found[2]["predicted_us"] == ""
    assert "no preset" in found[2]["covered"]
    assert len(made.rows) == 3
    assert "ENIAC" in (tmp_path / "out" / "validation.md").read_text()


def test_a_scored_file_can_be_scored_again(tmp_path):
    first = tmp_path / "first"
    score(write(tmp_path / "m.csv", GOOD.format(0)), first, jobs=1)
    score(first / "validation.csv", tmp_path / "second", jobs=1)
    assert (first / "validation.csv").read_text() == (tmp_path / "second" / "validation.csv").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("a,b\n1,2\n", "no column table_id"),
        (HEADER + ",ranks\n", "ranks twice"),
        (HEADER + "\n1,2\n", "row 2 has 2 cells"),
        (HEADER + "\n" + GOOD.format(0).replace("65536", "64k") + "\n", "row 2, column size_bytes: '64k'"),
        (
            HEADER + "\n" + GOOD.format(0) + "\n" + GOOD.format(0).replace("40.5", "fast") + "\n",
            "row 3, column time_us",
        ),
        (HEADER + "\n" + GOOD.format(0).replace(",8,NV", ",-8,NV") + "\n", "row 2, column ranks: '-8'"),
        (HEADER + '\n"t,1\n', "not a CSV file"),
    ],
)
def test_a_malformed_file_is_one_error_with_row_and_column(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_measurements(tmp_path / "m.csv")


def test_a_file_that_is_no_text_or_not_there_is_an_error(tmp_path):
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "m.csv", tmp_path / "none.csv"):
        with pytest.raises(InputError, match=str(path)):
            read_measurements(path)


GOLDEN = Path(__file__).parents[1] / "data" / "scoring_golden.csv"
ASKED = [
    ("A100, 8 per node", 8, "NVLink3 NVSwitch", "NCCL", "default"),
    ("H100 SXM, 8 per node", 8, "NVLink4 NVSwitch", "NCCL", "NCCL_ALGO=Ring"),
    ("B200, 8 per node", 8, "NVLink5 NVSwitch", "NCCL", "-g 8 (one process)"),
    ("MI300X, 8 per node", 8, "xGMI mesh", "RCCL", "default"),
    ("H100 SXM, 8 per node, 2 nodes", 16, "NVLink4 + 8x400G IB", "NCCL", "default"),
    ("H200, 8 per node, 2 nodes", 16, "NVLink4 + 16x200G EFA", "NCCL", "default"),
]


def test_predicted_rows_are_those_of_the_golden_file(tmp_path):
    """`EIDOLA_REFRESH=1 pytest tests/replay/test_scoring.py` writes it anew, after a change that is meant."""
    rows = [
        f't,"{system}",{ranks},"{wires}",{library},"{env}",{operation},{size},,,,,'
        for system, ranks, wires, library, env in ASKED
        for operation in ("all_reduce", "all_gather", "alltoall")
        for size in (1024, 1 << 20, 1 << 26)
    ]
    score(write(tmp_path / "m.csv", *rows), tmp_path / "out", jobs=1)
    found = (tmp_path / "out" / "validation.csv").read_text()
    if os.environ.get("EIDOLA_REFRESH"):
        GOLDEN.write_text(found)
    assert found == GOLDEN.read_text()


def test_more_bytes_never_take_less_time_by_much():
    """A change of protocol or algorithm may gain a little, as it does in NCCL."""
    sizes = [1 << power for power in range(3, 31, 3)]
    took = [predict(case_of(row(size_bytes=str(size)))).predicted_us for size in sizes]
    assert all(later > 0.9 * sooner for sooner, later in pairwise(took))


def test_a_launch_is_the_benchmarks_and_not_the_kernels():
    kernel = case_of(row())
    single = case_of(row(algorithm_or_env="-g 8 (one process)"))
    framework = case_of(row(library_version="NCCL through XLA"))
    assert iteration_us(kernel, 50) < iteration_us(single, 50)
    assert iteration_us(kernel, 50) < iteration_us(framework, 50)
    assert iteration_us(single, 1) == pytest.approx(4.5 * 8)  # launches in turn take longer than the kernels
    grown = [iteration_us(case, 1000) - iteration_us(case, 500) for case in (kernel, single, framework)]
    assert grown == pytest.approx([500] * 3)


@pytest.mark.parametrize("env", ["NCCL_ALGO=Ring", "NCCL_ALGO=Tree", "NCCL_ALGO=NVLSTree"])
@pytest.mark.parametrize("size", [1024, 2**24])
def test_many_boxes_are_replayed_as_fewer_and_grow(monkeypatch, env, size):
    asked = row(system="H100, 8 per node, 16 nodes", ranks="128", interconnect="8x400G IB",
                algorithm_or_env=env, size_bytes=str(size))  # fmt: skip
    whole = predict(case_of(asked)).predicted_us
    monkeypatch.setattr(import_module("eidola.replay.scoring.predict"), "MOST_RANKS", 64)
    assert predict(case_of(asked)).predicted_us == pytest.approx(whole, rel=0.03)


@pytest.mark.parametrize("operation", ["all_reduce", "all_gather", "alltoall"])
@pytest.mark.parametrize(
    ("system", "wires", "nic_gb_per_s", "boxes"),
    [
        ("H100, 8 per node", "8x400G IB", 50, 2),
        ("A100, 8 per node", "8x200G IB", 25, 4),
        ("MI300X, 8 per node", "8x400G RoCE", 50, 2),
        ("Perlmutter, A100, 4 per node", "4x200G Slingshot", 25, 4),
    ],
)
def test_no_prediction_beats_the_links(operation, system, wires, nic_gb_per_s, boxes):
    """Data of other boxes crosses a box's NICs at least once; of a reduction at least its own result does."""
    size, per = 2**30, 4 if "4 per" in system else 8
    asked = row(system=f"{system}, {boxes} nodes", interconnect=wires, ranks=str(per * boxes),
                operation=operation, size_bytes=str(size))  # fmt: skip
    case = case_of(asked)
    crossing = {"all_reduce": size, "all_gather": size * (boxes - 1) / boxes,
                "alltoall": size * per * (boxes - 1) / boxes}[operation]  # fmt: skip
    assert predict(case).predicted_us > crossing / (per * nic_gb_per_s * 1000)
