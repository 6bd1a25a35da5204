"""The telemetry thread, on the null device and on readings of which the test knows every one."""

import time

import pytest

from eidola.capture.gpus import Gpu, Link, NullBackend, Reading, find_backend
from eidola.capture.telemetry import Sampler
from eidola.convert.telemetry import read_telemetry
from eidola.schemas import CaptureError, InputError, TraceWriter, UsageError, check


class Counting:
    """Two GPUs whose one counter says how often they were read, so that every sample is known."""

    name = "counting"
    missing = None

    def __init__(self):
        self.reads = 0

    def gpus(self):
        return [Gpu(i, "nobody", "counting device", f"uuid-{i}", f"0000:0{i}:00.0", "1") for i in range(2)]

    def links(self):
        return [
            Link(0, 1, "nvlink", 4, 25_000_000_000, True),
            Link(0, None, "nvlink", 2, 25_000_000_000, None),
            Link(1, 0, "nvlink", 4, 25_000_000_000, True),
        ]

    def readings(self):
        self.reads += 1
        return [Reading(gpu, "reads", 10.0 * gpu + self.reads) for gpu in range(2)]

    def close(self):
        self.reads = -1


def until(sampler, samples):
    deadline = time.monotonic() + 30
    while sampler.samples < samples:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_without_a_gpu_it_says_why_and_invents_nothing(tmp_path):
    backend = find_backend()
    if not isinstance(backend, NullBackend):
        pytest.skip("this machine has a GPU")
    assert "NVML: " in backend.missing
    assert "amdsmi: " in backend.missing
    with Sampler(tmp_path / "telemetry.jsonl", 0.001) as sampler:
        until(sampler, 3)
    telemetry = read_telemetry(sampler.path)
    assert (telemetry.source, telemetry.gpus, telemetry.links) == ("none", (), ())
    assert telemetry.missing == backend.missing
    assert all(sample["readings"] == [] for sample in telemetry.samples)
    assert telemetry.counters(0)["value"] == []
    assert set(telemetry.cost()["source"]) == {"telemetry"}


def test_every_sample_and_the_threads_own_cost_become_counters(tmp_path):
    backend = Counting()
    with Sampler(tmp_path / "telemetry.jsonl", 0.001, lambda: backend) as sampler:
        until(sampler, 5)
    assert backend.reads == -1  # the library was let go
    telemetry = read_telemetry(sampler.path)
    for gpu in range(2):
        columns = telemetry.counters(gpu)
        assert set(zip(columns["source"], columns["name"], strict=True)) == {("counting", "reads")}
        assert columns["value"] == [10.0 * gpu + i + 1 for i in range(sampler.samples)]
        assert columns["time_ns"] == sorted(columns["time_ns"])
    cost = telemetry.cost()
    spent = [v for name, v in zip(cost["name"], cost["value"], strict=True) if name == "thread_cpu_ns"]
    assert len(spent) == sampler.samples
    assert spent == sorted(spent)
    assert spent[-1] == sampler.cpu_ns > 0


def test_rows_of_counters_and_links_fit_the_schema(tmp_path):
    with Sampler(tmp_path / "telemetry.jsonl", 0.001, Counting) as sampler:
        until(sampler, 2)
    telemetry = read_telemetry(sampler.path)
    rank_of = {0: 1, 1: 0}
    assert telemetry.links_of(0, rank_of) == {
        "peer": [0],
        "kind": ["nvlink"],
        "count": [4],
        "rate_bytes_per_s": [25_000_000_000],
    }
    with TraceWriter(tmp_path / "t.eidola") as writer:
        for gpu, rank in rank_of.items():
            writer.write("ranks", rank, {"backend": ["host"]})
            writer.write("counters", rank, telemetry.counters(gpu))
            writer.write("links", rank, telemetry.links_of(gpu, rank_of))
    assert check(tmp_path / "t.eidola") == []


def test_what_a_killed_job_leaves_is_read_up_to_its_last_whole_line(tmp_path):
    with Sampler(tmp_path / "telemetry.jsonl", 0.001, Counting) as sampler:
        until(sampler, 3)
    whole = sampler.path.read_bytes()
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(whole[:-10])
    assert len(read_telemetry(cut).samples) == len(read_telemetry(sampler.path).samples) - 1


def test_errors_name_the_file_and_the_flag(tmp_path):
    with pytest.raises(UsageError, match="interval of 0 s"):
        Sampler(tmp_path / "x", 0)
    with (
        pytest.raises(CaptureError, match=r"cannot be written to .*absent/x"),
        Sampler(tmp_path / "absent" / "x"),
    ):
        pass
    (tmp_path / "y").write_text("[1]\n")
    with pytest.raises(InputError, match="y is no telemetry"):
        read_telemetry(tmp_path / "y")
