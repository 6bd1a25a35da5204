"""A small valid input of each format, from the builders that the tests of its reader use."""

import importlib
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import robustness_mutations as mutations

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Seed:
    """How a format's input is made in a folder, which of its files are damaged (a glob), and how."""

    make: Callable[[Path], None]
    files: str
    mutations: Mapping[str, mutations.Mutation]
    companions: str | None = None
    """Where the format `kineto` is given companions: their glob."""
    given: bool = False
    """Whether the files are given by name, as where the format looks for others in a folder."""
    whole: Callable[[bytes], bool] = lambda data: False
    """Of a format that tells neither how many records it has nor where they end: whether these are whole."""


def builders(name: str) -> ModuleType:
    """Import a module of tests/convert by its file; the modules may import one another."""
    package = sys.modules.setdefault("robustness_builders", ModuleType("robustness_builders"))
    package.__path__ = [str(ROOT / "tests" / "convert")]
    return importlib.import_module(f"robustness_builders.{name}")


def _kineto(folder: Path) -> None:
    make = builders("conftest")
    for rank in range(2):
        events = make.rank_events(shift_us=3.0 * rank, operations=3)
        (folder / f"rank{rank}.json").write_text(json.dumps(make.document(events, rank=rank)))


def _execution_trace(folder: Path) -> None:
    made, conftest = builders("test_execution_trace"), builders("conftest")
    events = [made.host(1000 + 100 * i, i + 1, "allreduce", 64 * i) for i in range(3)]
    kernels = [conftest.collective(50 + i, 1050 + 100 * i, 20) for i in range(3)]
    document = conftest.document([*(e for pair in events for e in pair), *kernels])
    (folder / "rank0.json").write_text(json.dumps(document))
    nodes = [made.new_node(10 + i, i + 1, "allreduce", 64 * i) for i in range(3)]
    (folder / "et_rank0.json").write_text(json.dumps(made.new_trace(nodes)))


def _flight_recorder(folder: Path) -> None:
    made = builders("test_flight_recorder")
    for rank in range(2):
        made.dump(folder, rank, [made.entry(1, duration_ms=2.5), made.entry(2), made.entry(3)], world=2)


def _nccl_plugin(folder: Path) -> None:
    """Run the plugin under the tests' stand-in for NCCL; needs a C compiler."""
    made = builders("test_nccl_plugin")
    include = Path(made.nccl.__file__).parent
    flags = ["-std=c11", "-D_GNU_SOURCE", f"-I{include}", "-pthread", "-ldl"]
    folder.rmdir()
    with tempfile.TemporaryDirectory() as built:
        program = Path(built) / "driver"
        subprocess.run(
            [made.compiler()[0], made.DRIVER, "-o", program, *flags], check=True, capture_output=True
        )
        made.run(program, folder, 6)


def _captured(name: str) -> Callable[[Path], None]:
    return lambda folder: (
        shutil.copytree(ROOT / "sample_traces" / name / "raw", folder, dirs_exist_ok=True) and None
    )


def _rocpd(folder: Path) -> None:
    builders("test_rocpd").job(folder)


def _nsys(folder: Path) -> None:
    builders("test_nsys").two_ranks(folder / "report.sqlite").done()


def _rocprofv3(folder: Path) -> None:
    made = builders("test_rocprofv3")
    for rank in range(2):
        made.save(folder / f"rank{rank}_results.json", made.rank_document(10 + rank, agent=102 + rank))


def _chakra(folder: Path) -> None:
    made = builders("test_chakra")
    for rank in range(2):
        made.write(folder, made.METADATA, *made.STEP, name=f"t.{rank}.et")


def _whole_messages(data: bytes) -> bool:
    try:
        return bool(list(builders("wire").delimited(data)))
    except (AssertionError, IndexError):
        return False


def _chakra_json(folder: Path) -> None:
    made = builders("test_chakra")
    for rank in range(2):
        (folder / f"t.{rank}.json").write_text(made.jsonized(made.STEP))


def _nccl_example(folder: Path) -> None:
    made = builders("test_nccl_texts")
    for rank in range(2):
        body = "".join(made.all_reduce(1000 * (i + 1), i, rank, clocks=i % 2 > 0) for i in range(3))
        made.dump(folder, rank, body)


def _nccl_inspector(folder: Path) -> None:
    made = builders("test_nccl_texts")
    for rank in range(2):
        made.log(folder, rank, "".join(made.line(i, rank, verbose=i != 2) for i in range(4)))


def _npkit(folder: Path) -> None:
    for rank in range(2):
        builders("test_kernel_buffers").npkit(folder, rank)
    for empty in folder.glob("*_buf_1"):
        empty.unlink()


def _flashinfer(folder: Path) -> None:
    made = builders("test_kernel_buffers")
    made.buffer(made.flash, rounds=2).tofile(folder / "rank0.bin")
    np.save(folder / "rank1.npy", made.buffer(made.mirage, rounds=2).view(np.uint64).ravel())


def _iris(folder: Path) -> None:
    made = builders("test_kernel_buffers")
    for rank in range(2):
        events = [made.iris_event("put", 10 + i, 3, rank, 1 - rank, payload_size=8) for i in range(4)]
        made.iris(folder / f"t_rank{rank}.json", events, rank)


def pickled(data: bytes, rng: object) -> bytes:
    """Put a pickle that would call a function in place of one."""
    del data, rng
    return b"cposix\nsystem\n(S'touch escaped'\ntR."


def _unpickled(mutation: mutations.Mutation) -> mutations.Mutation:
    """Apply a mutation of JSON to what a pickle holds."""

    def mutate(data: bytes, rng: mutations.Random) -> bytes:
        document = json.loads(mutation(json.dumps(pickle.loads(data)).encode(), rng))
        return pickle.dumps(document, 2)

    return mutate


def _in_a_line(mutation: mutations.Mutation) -> mutations.Mutation:
    """Apply a mutation of JSON to one line of a file of JSON lines."""

    def mutate(data: bytes, rng: mutations.Random) -> bytes:
        lines = data.splitlines(keepends=True)
        at = rng.randrange(len(lines))
        return b"".join([*lines[:at], mutation(lines[at].rstrip(), rng), b"\n", *lines[at + 1 :]])

    return mutate


_PICKLE = {
    **mutations.BINARY,
    "type swapped": _unpickled(mutations.swap_type),
    "code in a pickle": pickled,
}
_GZIP = {name: mutate for name, mutate in mutations.TEXT.items() if name.startswith("gzip")}
_SEVERAL = {name: mutate for name, mutate in mutations.TEXT.items() if name != "type swapped"}
"""Of texts that hold several JSON values."""
_LINES = {**_SEVERAL, "type swapped": _in_a_line(mutations.swap_type)}
SEEDS = {
    "kineto": Seed(_kineto, "rank*.json", mutations.TEXT),
    "execution-trace": Seed(_execution_trace, "et_*.json", mutations.TEXT, "et_*.json"),
    "nsys": Seed(_nsys, "*.sqlite", mutations.SQL),
    "rocpd": Seed(_rocpd, "*.db", mutations.SQL),
    "nccl-plugin": Seed(_nccl_plugin, "*.ring", mutations.BINARY),
    "flight-recorder": Seed(_flight_recorder, "nccl_trace*", _PICKLE),
    "rocprofv3": Seed(_rocprofv3, "*.json", mutations.TEXT),
    "iris": Seed(_iris, "*.json", mutations.TEXT),
    "chakra": Seed(_chakra, "*.et", mutations.BINARY | _GZIP, whole=_whole_messages),
    "chakra, JSON": Seed(_chakra_json, "*.json", _SEVERAL, given=True),
    "nccl-example": Seed(_nccl_example, "*.txt", mutations.TEXT),
    "nccl-inspector": Seed(
        _nccl_inspector, "*.log", _LINES, whole=lambda data: data.endswith((b"}}\n", b"}}"))
    ),
    "npkit": Seed(_npkit, "*", mutations.BINARY, whole=lambda data: len(data) % 16 == 0),
    "flashinfer": Seed(_flashinfer, "*", mutations.BINARY),
    "captured kernel": Seed(_captured("gemv_allreduce_host_2"), "capture.json", mutations.PLAIN_TEXT),
    "captured kernel, probes": Seed(_captured("gemv_allreduce_host_2"), "*.bin", mutations.BINARY),
    "captured torch": Seed(_captured("gloo_ddp_2"), "*.json", mutations.PLAIN_TEXT),
    "captured torch, rings": Seed(_captured("gloo_ddp_2"), "*.ring", mutations.BINARY),
}
