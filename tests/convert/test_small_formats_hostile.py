"""Broken and hostile files of the smaller formats end in a right answer or a named error, never in anything else.

`EIDOLA_MUTATIONS` sets how many a format (120 unless told).
"""

import gzip
import io
import os
import random
import re
import resource

import numpy as np
import pytest

from eidola.convert import convert, find_format
from eidola.schemas import InputError, UsageError, check

from . import test_flight_recorder as flight
from . import test_kernel_buffers as buffers
from . import test_nccl_texts as texts

MUTATIONS = int(os.environ.get("EIDOLA_MUTATIONS", "120"))
WHOLE_EVERY = 15
NUMBERS = (b"0", b"-1", b"1e999", b"9" * 30, b"18446744073709551615", b"NaN", b"null", b"[]", b'"x"', b"0x7")


def flight_recorder(folder):
    flight.dump(folder, 0, [flight.entry(1, duration_ms=2.0), flight.entry(2, "started")], world=2)
    p2p = flight.entry(1, p2p=1, name="nccl:recv 1<-0")
    flight.dump(folder, 1, [flight.entry(1), p2p, flight.entry(2, "scheduled")], world=2)


def nccl_example(folder):
    for rank in range(2):
        body = texts.all_reduce(1000, 0, rank, clocks=True) + texts.all_reduce(2000, 1, rank)
        texts.dump(folder, rank, body)


def nccl_inspector(folder):
    for rank in range(2):
        body = "".join(
            texts.line(i, rank, verbose=i != 2, kind=("AllReduce", "AllGather")[i % 2]) for i in range(4)
        )
        texts.log(folder, rank, body)


def npkit(folder):
    buffers.npkit(folder, 0)
    buffers.npkit(folder, 1)


def flashinfer(folder):
    folder.mkdir()
    (folder / "rank0.bin").write_bytes(buffers.buffer(buffers.flash, rounds=2).tobytes())
    np.save(folder / "rank1.npy", buffers.buffer(buffers.mirage, rounds=2).view(np.uint64).ravel())


def iris(folder):
    folder.mkdir()
    for rank in range(2):
        events = [buffers.iris_event("put", 10 + i, 3, rank, 1 - rank, payload_size=8) for i in range(4)]
        buffers.iris(folder / f"t_rank{rank}.json", events, rank)


SAMPLES = {
    "flight-recorder": flight_recorder,
    "nccl-example": nccl_example,
    "nccl-inspector": nccl_inspector,
    "npkit": npkit,
    "flashinfer": flashinfer,
    "iris": iris,
}


def mutate(content: bytes, draw: random.Random) -> bytes:
    data = bytearray(content)
    kind = draw.randrange(7)
    at = draw.randrange(len(data) + 1)
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        for _ in range(draw.choice((1, 1, 8))):
            if data:
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        return bytes(data)
    if kind == 2:
        return bytes(data[:at] + bytes(draw.randrange(256) for _ in range(draw.randrange(1, 20))) + data[at:])
    if kind == 3:
        end = draw.randrange(len(data) + 1)
        return bytes(data[:at] + data[min(at, end) : max(at, end)] * draw.choice((0, 3)) + data[end:])
    if kind == 4 and (found := [*re.finditer(rb"\d+", data)]):
        number = draw.choice(found)
        return bytes(data[: number.start()] + draw.choice(NUMBERS) + data[number.end() :])
    if kind == 5:
        depth = draw.choice((50, 100_000))
        return bytes(data[:at] + draw.choice((b"[", b'{"a":', b"]", b"(", b"}")) * depth + data[at:])
    return gzip.compress(bytes(data))[: draw.randrange(20, 4000)]


@pytest.mark.parametrize("name", SAMPLES)
def test_any_mutation_ends_in_an_answer_or_a_named_error(name, tmp_path):
    SAMPLES[name](tmp_path / "d")
    kind = find_format(name)
    files = [path for path in sorted((tmp_path / "d").iterdir()) if path.stat().st_size]
    draw = random.Random(name)
    refused = 0
    messages: set[str] = set()
    for index in range(MUTATIONS):
        file = draw.choice(files)
        whole = file.read_bytes()
        file.write_bytes(mutate(whole, draw))
        try:
            tasks = kind.plan(files, [])
            records = [record for task in tasks for record in kind.read(task, len(tasks) == 1)]
            assert all(len(record.spans["span"]) == len(record.spans["name"]) > 0 for record in records)
            if index % WHOLE_EVERY == 0:
                convert(kind, files, tmp_path / "t", overwrite=True)
                assert [problem for problem in check(tmp_path / "t") if problem.severity == "error"] == []
        except (InputError, UsageError) as error:
            refused += 1
            messages.add(str(error))
        finally:
            file.write_bytes(whole)
    assert 0 < refused < MUTATIONS
    unclear = [text for text in messages if str(tmp_path) not in text and "different runs" not in text]
    assert unclear == []


def bombs():
    """Kilobytes that want to be gigabytes, as the readers of each format would meet them."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as file:
        for _ in range(100):
            file.write(b"\n" * (1 << 20))
    spaces = gzip.compress(b"[" + b" " * (90 << 20), 9)
    shape = str((1 << 45,))
    header = f"{{'descr': '<u8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\1" * 64
    return {
        "lines": packed.getvalue(),
        "spaces": spaces,
        "shape": array,
        "zeros": gzip.compress(bytes(100 << 20)),
    }


BOMBS = bombs()


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", SAMPLES)
def test_what_unpacks_to_gigabytes_is_refused_in_bounded_memory(name, bomb, tmp_path):
    SAMPLES[name](tmp_path / "d")
    files = sorted((tmp_path / "d").iterdir())
    target = next(file for file in files if file.stat().st_size > 100)
    target.write_bytes(BOMBS[bomb])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        convert(find_format(name), [target, *(f for f in files if f != target)], tmp_path / "t")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10
    assert not (tmp_path / "t").exists()
