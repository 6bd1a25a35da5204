"""The programs in docs/examples run, at a smaller size, and say what they should."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ten_thousand_gpus_says_what_limits(capsys):
    found = example("ten_thousand_gpus").main(64, 64 << 20)
    shown = capsys.readouterr().out
    assert "64 GPUs, 896 messages, ring and simple" in shown  # 8 rails, 8 members, 2 * (8 - 1) steps
    assert "nic" in shown
    # a ring is bound by its NICs: each sends 2 * 7/8 of the buffer at 50 GB/s
    assert found["on_time_us"] - 1000 >= 2 * 7 / 8 * (64 << 20) / 50_000
    assert 0.9 < found["busiest"] <= 1


def test_one_late_gpu_delays_its_rail_and_no_other():
    found = example("ten_thousand_gpus").main(64, 64 << 20)
    assert found["late_us"] == pytest.approx(found["on_time_us"] + 100)
