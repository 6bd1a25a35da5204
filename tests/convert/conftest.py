"""Small Kineto traces made to order, and the real ones where they are."""

import gzip
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from eidola.capture import nccl
from eidola.capture.host.build import compiler
from eidola.convert import convert
from eidola.convert.formats import Format
from eidola.schemas import MissingError, check
from eidola.schemas.errors import EidolaError

NCCL = Path(__file__).parents[1] / "capture" / "nccl_driver.c"
TRACES = Path(__file__).resolve().parents[2] / "../shared/traces"


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Return the path of a shared real trace, or skip where it is absent."""

    def find(name: str) -> Path:
        path = TRACES / name
        if not path.exists():
            pytest.skip(f"shared trace {name} is absent")
        return path

    return find


@pytest.fixture(scope="session")
def nccl_in_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library that plays NCCL in the process that loads it (tests/capture/nccl_driver.c)."""
    try:
        command = compiler()[0]
    except MissingError as error:
        pytest.skip(str(error))
    built = tmp_path_factory.mktemp("nccl") / "driver.so"
    flags = [
        "-std=c11",
        "-D_GNU_SOURCE",
        "-shared",
        "-fPIC",
        f"-I{Path(nccl.__file__).parent}",
        "-pthread",
        "-ldl",
    ]
    subprocess.run([command, str(NCCL), "-o", str(built), *flags], check=True, capture_output=True)
    return built


def launch(
    correlation: int, ts: Any, dur: Any = 5, tid: int = 100, name: str = "cudaLaunchKernel"
) -> dict[str, Any]:
    return {
        "ph": "X", "cat": "cuda_runtime", "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur,
        "args": {"External id": correlation, "cbid": 211, "correlation": correlation},
    }  # fmt: skip


def kernel(
    correlation: int, ts: Any, dur: Any, stream: int = 7, name: str = "gemm", **args: Any
) -> dict[str, Any]:
    return {
        "ph": "X", "cat": "kernel", "name": name, "pid": 0, "tid": stream, "ts": ts, "dur": dur,
        "args": {"device": 0, "stream": stream, "correlation": correlation, "grid": [4, 1, 1], **args},
    }  # fmt: skip


def collective(
    correlation: int, ts: Any, dur: Any, operation: str = "allreduce", **args: Any
) -> dict[str, Any]:
    given = {
        "Collective name": operation,
        "In msg nelems": 1024,
        "Out msg nelems": 1024,
        "Group size": 2,
        "dtype": "Float",
        "In split size": "[]",
        "Out split size": "[]",
        "Process Group Name": "0",
        "Process Group Description": "default_pg",
        "Process Group Ranks": "[0, 1]",
        **args,
    }
    return kernel(correlation, ts, dur, 20, "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevComm*)", **given)


def document(
    events: Sequence[dict[str, Any]], rank: int | None = 0, world: int | None = 2, **more: Any
) -> dict[str, Any]:
    info = (
        {"backend": "nccl"}
        | ({} if rank is None else {"rank": rank})
        | ({} if world is None else {"world_size": world})
    )
    properties = [{"id": 0, "name": "NVIDIA H100 80GB HBM3", "numSms": 132, "totalGlobalMem": 85520809984}]
    head = {"schemaVersion": 1, "deviceProperties": properties, "distributedInfo": info}
    return {**head, "traceEvents": list(events), "baseTimeNanoseconds": 1_700_000_000_000_000_000, **more}


def rank_events(shift_us: float = 0, early_us: float = 0, operations: int = 5) -> list[dict[str, Any]]:
    """A rank whose clock is `shift_us` ahead and that starts its collectives `early_us` early: ends agree."""
    events: list[dict[str, Any]] = []
    for i in range(operations):
        base = 1000.0 + 700 * i + shift_us
        events += [
            launch(10 * i + 1, base), kernel(10 * i + 1, base + 10, 20.5),
            launch(10 * i + 2, base + 40), collective(10 * i + 2, base + 100 - early_us, 200 + early_us),
        ]  # fmt: skip
    return events


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a document (a dict, or its text) under a name; `.gz` names are compressed."""

    def save(name: str, content: dict[str, Any] | str | bytes) -> Path:
        text = json.dumps(content) if isinstance(content, dict) else content
        data = text.encode() if isinstance(text, str) else text
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return save


class Make:
    """The builders above, for tests to take as one fixture."""

    launch = staticmethod(launch)
    kernel = staticmethod(kernel)
    collective = staticmethod(collective)
    document = staticmethod(document)
    rank_events = staticmethod(rank_events)


@pytest.fixture(scope="session")
def make() -> type[Make]:
    return Make


def mutate(data: bytes, seed: int) -> bytes:
    """Return `data` cut short, with flipped bits, with pieces copied over others, or with extreme numbers."""
    draw = Random(seed)
    broken = bytearray(data)
    how = draw.randrange(4)
    if how == 0:
        return data[: draw.randrange(len(data))]
    for _ in range(draw.randrange(1, 12)):
        at, other = draw.randrange(len(data)), draw.randrange(len(data))
        if how == 1:
            broken[at] ^= 1 << draw.randrange(8)
        elif how == 2:
            length = draw.randrange(1, 200)
            broken[at : at + length] = broken[other : other + length]
        else:
            broken[at : at + 8] = draw.choice(
                [b"\xff" * 8, b"\0" * 8, b"9" * 8, b"[" * 8, b"\x7f" + b"\xff" * 7]
            )
    return bytes(broken)


@pytest.fixture(scope="session")
def convert_damaged() -> Callable[[Format, Path, int, Path], None]:
    """Damage a file by `seed`; converted, it gives a trace that keeps the schema or an error that names it."""

    def damaged(kind: Format, path: Path, seed: int, out: Path) -> None:
        path.write_bytes(mutate(path.read_bytes(), seed))
        try:
            convert(kind, [path], out)
        except EidolaError as error:
            refused = str(error)
        else:
            assert not [p for p in check(out) if p.severity == "error"]
            return
        assert path.name in refused
        assert not out.exists()

    return damaged
