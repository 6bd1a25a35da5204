"""Sampling a real GPU."""

import time

from eidola.capture.telemetry import Sampler
from eidola.convert.telemetry import read_telemetry


def test_a_gpu_draws_power_and_its_energy_and_links_count_up(gpus, tmp_path):
    with Sampler(tmp_path / "telemetry.jsonl", 0.05) as sampler:
        time.sleep(1)
    telemetry = read_telemetry(sampler.path)
    assert len(telemetry.gpus) == len(gpus)
    columns = telemetry.counters(0)
    by_name = {}
    for name, value in zip(columns["name"], columns["value"], strict=True):
        by_name.setdefault(name, []).append(value)
    power = by_name.get("power_mw") or by_name["power_w"]
    assert min(power) > 0
    for name, values in by_name.items():
        if name.endswith(("_kib", "_kb", "_bytes", "_mj")):
            assert values == sorted(values), name
