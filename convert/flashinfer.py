"""Buffers of FlashInfer's and Mirage's in-kernel profilers -> a trace: phases of every thread block.

A buffer is an array of 8-byte entries, as raw little-endian bytes or a NumPy file of `buffer.cpu().numpy()`. The
first holds blocks and groups; entry 1 + k * blocks * groups + block * groups + group is the k-th event of a block's
group: a tag u32 and the low half of %globaltimer, in ns, which wraps after 4.29 s. Tags, by bits, from 0 up:

    FlashInfer     type 2, event 10, block and group 12, SM 8    flashinfer-ai/flashinfer at 004903ca8289,
                                                                 flashinfer/profiler/__init__.py (`decode_tag`)
    its older one  type 2, event 10, block and group 20          at 40db3fadfd5f, include/flashinfer/profiler.cuh
    Mirage         type 2, event 9, block and group 11, count 10 mirage-project/mirage at 14d9fda85db9,
    its older one  type 2, event 9, block and group 8, count 13  include/mirage/persistent_kernel/profiler.h

Which it is shows in the places: an entry's own place must be the block and group that its tag says. Names of events
are one a line in a text file beside the buffer, NAME.events; without it they are numbers.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..schemas.errors import InputError
from .brackets import Brackets
from .files import find_files, read_bytes
from .formats import Format, Head, read_head
from .rank import RankRecord
from .sources import rank_in_name

_WRAP = 1 << 32
_MOST_TRACKS = 1 << 20
_NPY = b"\x93NUMPY"
_ARRAY = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|[\x02\x03]\x00....)\{'descr': '<[iu]([48])', 'fortran_order': False, "
    rb"'shape': \(([\d, ]{1,64})\), \} *\n",
    re.DOTALL,
)
"""The head of a NumPy file of integers (numpy.lib.format), with their number of bytes and the array's shape."""
_BEGIN, _END, _INSTANT = 0, 1, 2
Words = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Layout:
    """How a tag is cut: bits of the event, of block and group, and whether the rest is the SM."""

    name: str
    event_bits: int
    track_bits: int
    sm: bool

    def tracks(self, tags: Words) -> npt.NDArray[np.int64]:
        """Return block and group of each tag, as one number."""
        return ((tags >> np.uint32(2 + self.event_bits)) & np.uint32((1 << self.track_bits) - 1)).astype(
            np.int64
        )

    def events(self, tags: Words) -> npt.NDArray[np.int64]:
        """Return the event of each tag."""
        return ((tags >> np.uint32(2)) & np.uint32((1 << self.event_bits) - 1)).astype(np.int64)


LAYOUTS = (
    Layout("FlashInfer's", 10, 12, True),
    Layout("Mirage's", 9, 11, False),
    Layout("an older FlashInfer's", 10, 20, False),
    Layout("an older Mirage's", 9, 8, False),
)


def recognise(head: Head) -> bool:
    """Whether a file begins with an entry of blocks and groups, and entries whose tags fit their places."""
    words = _words(head.start[: len(head.start) // 8 * 8])
    if words is None or not 1 < _tracks(words) <= _MOST_TRACKS:
        return False
    used = np.flatnonzero(words[1:].any(axis=1))
    return len(used) > 2 and bool(_fits(words, used).max() == len(used))


def plan(paths: Sequence[Path], companions: Sequence[Path]) -> list[Path]:
    """Return the buffers, one a rank."""
    del companions
    return find_files(
        paths, lambda file: recognise(read_head(file)), "profiler buffers of FlashInfer or Mirage"
    )


def read(path: Path, alone: bool) -> list[RankRecord]:
    """Read one rank's buffer. Raises InputError where it is none, is empty, or does not tell its rank."""
    rank = rank_in_name(path)
    if rank is None and not alone:
        raise InputError(f"{path} does not tell its rank; name the file so that it holds rank<N>")
    content = read_bytes(path)
    words = _words(content)
    if words is None or not 0 < _tracks(words) <= _MOST_TRACKS:
        raise InputError(
            f"{path} is no buffer of 8-byte entries that begins with blocks and groups; save the whole profiler "
            "tensor with numpy.save or tofile"
        )
    used = np.flatnonzero(words[1:].any(axis=1))
    fits = _fits(words, used)
    layout = LAYOUTS[int(fits.argmax())]
    if not len(used) or fits.max() * 10 < len(used) * 9:
        raise InputError(
            f"{path}: {fits.max()} of {len(used)} entries have tags that fit their places in any known layout; was "
            "the buffer zeroed before the launch, and the kernel built with its profiler?"
        )
    spans = _spans(words, used, layout, _event_names(path))
    if not spans.rows:
        raise InputError(f"{path} holds no event that begins and ends; profile again with a longer buffer")
    columns = spans.finish()
    return [
        RankRecord(
            rank=rank or 0,
            path=path,
            world_size=None,
            hardware={"backend": "gpu", "vendor": "nvidia"},
            spans=columns,
            edges={},
            parts=[],
            window_ns=spans.window(),
            dropped=dict(spans.dropped),
            notes=[
                *_cut(path, content),
                *([] if rank is not None else [f"{path.name} does not tell its rank; 0 was taken"]),
                f"rank {rank or 0}: tags are {layout.name}; the timer wraps after 4.29 s, so that a longer pause "
                "in a block is shorter here; ranks' times have nothing in common; writes and peers are not told",
            ],
        )
    ]


FORMAT = Format(name="flashinfer", recognise=recognise, plan=plan, read=read)


def _words(content: bytes) -> Words | None:
    """Return entries as pairs of 32-bit words; None where the content cannot be that."""
    if content.startswith(_NPY):
        array = _ARRAY.match(content)
        if array is None:
            return None
        content = content[array.end() :]
        content = content[: len(content) // 8 * 8]
    if len(content) < 16 or len(content) % 8:
        return None
    return np.frombuffer(content, "<u4").reshape(-1, 2)


def _cut(path: Path, content: bytes) -> list[str]:
    """Say so where a NumPy file holds other than its head promises; a plain dump promises nothing."""
    array = _ARRAY.match(content)
    if array is None:
        return []
    promised = int(array[1]) * math.prod(int(n) for n in array[2].split(b",") if n.strip())
    held = len(content) - array.end()
    return [f"{path.name} holds {held} of the {promised} bytes that it promises"] if held != promised else []


def _tracks(words: Words) -> int:
    """Return blocks times groups, as the first entry says."""
    return int(words[0, 0]) * int(words[0, 1])


def _fits(words: Words, used: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return for each layout how many of the `used` entries have a tag that fits their place."""
    places = used % max(_tracks(words), 1)
    tags = words[1:, 0][used]
    typed = (tags & np.uint32(3)) <= _INSTANT
    return np.array([int((typed & (layout.tracks(tags) == places)).sum()) for layout in LAYOUTS])


def _event_names(path: Path) -> list[str]:
    beside = path.with_name(path.name + ".events")
    if not beside.is_file():
        return []
    return [line.strip()[:256] for line in read_bytes(beside).decode("utf-8", "replace").splitlines()]


def _spans(words: Words, used: npt.NDArray[Any], layout: Layout, names: Sequence[str]) -> Brackets:
    """Pair the entries of every block's groups, each in order of place."""
    spans = Brackets()
    places = used % _tracks(words)
    tags, stamps = words[1:, 0][used], words[1:, 1][used].astype(np.int64)
    fit = (layout.tracks(tags) == places) & ((tags & np.uint32(3)) <= _INSTANT)
    if wrong := int((~fit).sum()):
        spans.dropped["entry whose tag does not fit its place"] += wrong
    order = np.flatnonzero(fit)
    order = order[np.argsort(places[order], kind="stable")]
    places, tags, times = places[order], tags[order], _unwrapped(places[order], stamps[order])
    groups = int(words[0, 1])
    sms = (tags >> np.uint32(24)).tolist() if layout.sm else [None] * len(tags)
    rows = zip(
        places.tolist(),
        (tags & np.uint32(3)).tolist(),
        layout.events(tags).tolist(),
        times.tolist(),
        sms,
        strict=True,
    )
    for place, kind, event, time_ns, sm in rows:
        block, group = divmod(place, groups)
        lane = f"workgroup {block} group {group}" + ("" if sm is None else f" on SM {sm}")
        name = names[event] if event < len(names) and names[event] else f"event {event}"
        if kind == _BEGIN:
            spans.begin((place, event), time_ns)
        elif kind == _END:
            spans.end((place, event), time_ns, lane, block, name)
        else:
            spans.instant(time_ns, lane, block, name)
    return spans


def _unwrapped(places: npt.NDArray[np.int64], stamps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return times that go on where the 32-bit timer wraps.

    Within a block's group times only grow; groups began within half a wrap of one another.
    """
    if not len(stamps):
        return stamps
    first = np.flatnonzero(np.r_[True, places[1:] != places[:-1]])
    steps = np.diff(stamps, prepend=stamps[:1]) % _WRAP
    steps[first] = 0
    grown = np.cumsum(steps)
    length = np.diff(np.r_[first, len(stamps)])
    apart = (stamps[first] - stamps[0] + _WRAP // 2) % _WRAP - _WRAP // 2
    begun = stamps[0] + apart - grown[first]
    return np.asarray(grown + np.repeat(begun, length) - min(0, int((stamps[0] + apart).min())))
