"""A small valid input of each format, from the builders that the tests of its reader use."""

import importlib
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import robustness_mutations as mutations
import robustness_same as same

ROOT = Path(__file__).resolve().parents[2]
Maker = Callable[[Path], None]
Kinds = Mapping[str, mutations.Mutation]
Whole = Callable[[bytes], bool]
NEVER: Whole = lambda data: False  # noqa: E731  a default with a name


@dataclass(frozen=True)
class Seed:
    """How a format's input is made in a folder, which of its files are damaged (a glob), and how."""

    make: Maker
    files: str
    mutations: Kinds
    companions: str | None = None
    """Where the format `kineto` is given companions: their glob."""
    given: bool = False
    """Whether the files are given by name, as where the format looks for others in a folder."""
    whole: Whole = NEVER
    """Of a format that tells neither how many records it has nor where they end: whether these are whole."""
    small: Maker | None = None
    """Makes a job that converts faster: one rank of two, or without the windows of a capture."""
    shared: str = " "
    """Where each file is of one rank, but for these: damage to others leaves the other rank as it is."""


def builders(name: str) -> ModuleType:
    """Import a module of tests/convert by its file; the modules may import one another."""
    package = sys.modules.setdefault("robustness_builders", ModuleType("robustness_builders"))
    package.__path__ = [str(ROOT / "tests" / "convert")]
    return importlib.import_module(f"robustness_builders.{name}")


def _without(make: Callable[[Path], None], peer: str) -> Callable[[Path], None]:
    """Make a job, and leave the files of its second rank out."""

    def small(folder: Path) -> None:
        make(folder)
        for path in folder.glob(peer):
            path.unlink()

    return small


def _kineto(folder: Path) -> None:
    make = builders("conftest")
    for rank in range(2):
        events = make.rank_events(shift_us=3.0 * rank, operations=3)
        (folder / f"rank{rank}.json").write_text(json.dumps(make.document(events, rank=rank)))


def _execution_trace(folder: Path) -> None:
    made, conftest = builders("test_execution_trace"), builders("conftest")
    (folder / "rank0.json").write_text(json.dumps(made.job(conftest, (5, 7, 9))))
    (folder / "et_rank0.json").write_text(json.dumps(made.new_trace(made.NODES)))


def _flight_recorder(folder: Path) -> None:
    made = builders("test_flight_recorder")
    for rank in range(2):
        made.dump(folder, rank, [made.entry(1, duration_ms=2.5), made.entry(2), made.entry(3)], world=2)


def _flight_recorder_json(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as made:
        _flight_recorder(Path(made) / "d")
        for file in builders("test_flight_recorder").as_json(Path(made) / "d").iterdir():
            shutil.copy(file, folder)


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


def _rings_of_a_rank(folder: Path) -> None:
    """Make a capture of one rank of two, of its rings alone: what the light level writes."""
    _captured("gloo_ddp_2")(folder)
    for path in {*folder.glob("*.gz"), *folder.glob("rank00001.*")}:
        path.unlink()
    for name, change in (("rank00000.0.json", {"windows": []}), ("capture.json", {})):
        held = json.loads((folder / name).read_text()) | change
        if "command" in held:
            held["ranks"] = held["ranks"][:1]
        (folder / name).write_text(json.dumps(held))


def _rocpd(folder: Path) -> None:
    builders("test_rocpd").job(folder)


def _nsys(folder: Path) -> None:
    builders("test_nsys").two_ranks(folder / "report.sqlite").done()


def _nsys_rank(folder: Path) -> None:
    builders("test_nsys").two_ranks(folder / "report.sqlite", pids=(10,)).done()


def _rocprofv3(folder: Path) -> None:
    made = builders("test_rocprofv3")
    for rank in range(2):
        made.save(folder / f"rank{rank}_results.json", made.rank_document(10 + rank, agent=102 + rank))


def _chakra(folder: Path) -> None:
    made = builders("test_chakra")
    for rank in range(2):
        made.write(folder, made.METADATA, *made.STEP, name=f"t.{rank}.et")


def _chakra_typed(folder: Path) -> None:
    made = builders("test_chakra")
    value = {bool: (4, 0), int: (6, 2), str: (7, 3)}
    gemm = made.typed(1, "gemm", 4, [], [("is_host_op", False), ("runtime", 40)], value)
    reduced = made.typed(2, "ar", 7, [1], [("comm_type", 0), ("comm_size", 256), ("runtime", 9)], value)
    for rank in range(2):
        made.write(folder, gemm, reduced, name=f"t.{rank}.et")


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


def _ends_in_a_brace(data: bytes) -> bool:
    return data.endswith(b"}")


def _whole_lines(data: bytes) -> bool:
    return data.endswith((b"}}\n", b"}}"))


def _nccl_inspector(folder: Path) -> None:
    made = builders("test_nccl_texts")
    for rank in range(2):
        made.log(folder, rank, "".join(made.line(i, rank, verbose=i != 2) for i in range(4)))


def _nccl_inspector_44(folder: Path) -> None:
    made = builders("test_nccl_inspector_versions")
    for rank in range(2):
        sent = made.pair(("Send", "Recv")[rank], 1 - rank, 9000)
        made.dump(folder, rank, "v4.4", [*(made.all_reduce(i) for i in range(3)), sent], pairs=1)


def _npkit(folder: Path) -> None:
    for rank in range(2):
        builders("test_kernel_buffers").npkit(folder, rank)
    for empty in folder.glob("*_buf_1"):
        empty.unlink()


def _whole_entries(data: bytes) -> bool:
    return not data.startswith(b"\x93NUMPY") and len(data) % 8 == 0


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
    same.SAME: same.pickled,
}
_SEVERAL = {name: mutate for name, mutate in mutations.PACKABLE.items() if name != "type swapped"}
"""Of texts that hold several JSON values."""
_LINES = {**_SEVERAL, "type swapped": _in_a_line(mutations.swap_type), same.SAME: same.lines}
_CHAKRA = mutations.PACKABLE_BINARY | {same.SAME: same.messages}


def _ranks(make: Maker, files: str, peer: str, kinds: Kinds, shared: str = " ", whole: Whole = NEVER) -> Seed:
    """Return a job of two ranks of a file or more each; the small one is without those of `peer`."""
    return Seed(make, files, kinds, whole=whole, small=_without(make, peer), shared=shared)


def _captured_seed(name: str, files: str, kinds: Kinds) -> Seed:
    return Seed(_captured(name), files, kinds, small=_rings_of_a_rank if "ddp" in name else None, shared="*")


_JSON, _BINARY = mutations.PACKABLE_JSON, mutations.BINARY
SEEDS = {
    "kineto": _ranks(_kineto, "rank*.json", "rank1*", _JSON),
    "execution-trace": Seed(_execution_trace, "et_*.json", _JSON, "et_*.json", whole=_ends_in_a_brace),
    "nsys": Seed(_nsys, "*.sqlite", mutations.SQL, small=_nsys_rank, shared="*"),
    "rocpd": _ranks(_rocpd, "*.db", "11_*", mutations.SQL),
    "nccl-plugin": _ranks(_nccl_plugin, "*.ring", "nccl.rank00001*", _BINARY),
    "flight-recorder": _ranks(_flight_recorder, "nccl_trace*", "*_1", _PICKLE),
    "flight-recorder, JSON": _ranks(_flight_recorder_json, "nccl_trace*", "*_1.json", _JSON),
    "rocprofv3": _ranks(_rocprofv3, "*.json", "rank1*", _JSON),
    "iris": _ranks(_iris, "*.json", "*rank1*", _JSON),
    "chakra": _ranks(_chakra, "*.et", "t.1.*", _CHAKRA, whole=_whole_messages),
    "chakra, typed": _ranks(_chakra_typed, "*.et", "t.1.*", _CHAKRA, whole=_whole_messages),
    "chakra, JSON": replace(_ranks(_chakra_json, "*.json", "t.1.*", _SEVERAL), given=True),
    "nccl-example": _ranks(_nccl_example, "*.txt", "*4001*", mutations.PACKABLE),
    "nccl-inspector": _ranks(_nccl_inspector, "*.log", "*pid1*", _LINES, whole=_whole_lines),
    "nccl-inspector, 4.4": _ranks(_nccl_inspector_44, "*.log", "*pid1*", _LINES, whole=_whole_lines),
    "npkit": _ranks(_npkit, "*", "*rank_1*", _BINARY, "*.h", whole=lambda data: len(data) % 16 == 0),
    "flashinfer": _ranks(_flashinfer, "*", "rank1*", _BINARY, whole=_whole_entries),
    "captured kernel": _captured_seed("embedding_alltoall_host_2", "capture.json", mutations.COPIED_JSON),
    "captured kernel, probes": _captured_seed("embedding_alltoall_host_2", "*.bin", _BINARY),
    "captured torch": _captured_seed("gloo_ddp_2", "*.json", mutations.COPIED_JSON),
    "captured torch, rings": _captured_seed("gloo_ddp_2", "*.ring", _BINARY),
}
SHARES = {name: 2 for name in SEEDS if name.startswith("captured")}
"""Formats of two kinds of files: how many entries share the mutations of one format."""
