"""A figure: what was measured, beside a baseline, on which machine, with which versions."""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPEATS = 3
LIBRARIES = ("eidola-sim", "numpy", "numba", "pyarrow", "simpy", "typer")


@dataclass(frozen=True)
class Figure:
    """`ratio` is value / baseline; both are null where there is nothing to compare with."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    baseline_name: str | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.baseline if self.baseline else None

    def entry(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio, "machine": machine(), "versions": versions()}

    def line(self) -> str:
        text = f"{self.name}: {number(self.value)} {self.unit}"
        if self.baseline is None or self.ratio is None:
            return text
        return f"{text}  ({number(self.ratio)} x {self.baseline_name}, {number(self.baseline)})"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@cache
def machine() -> dict[str, Any]:
    found = [line.split(":")[1].strip() for line in lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [int(line.split()[1]) // 1024 for line in lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "cpu": found[0] if found else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_mib": memory[0] if memory else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def lines(file: str) -> list[str]:
    return Path(file).read_text().splitlines() if Path(file).is_file() else []


@cache
def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}


def measure(script: str, *args: object, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a script of this folder in a process of its own; return the JSON that it prints last."""
    command = [sys.executable, str(HERE / script), *map(str, args)]
    done = subprocess.run(command, env=os.environ | (env or {}), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def median(rows: Iterable[dict[str, Any]], key: str) -> float:
    return float(statistics.median(row[key] for row in rows))
