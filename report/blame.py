"""On whom each GPU waits: who came last to its collectives, or who raised its flags."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .flags import NOBODY, Flags

Ints = npt.NDArray[np.int64]
Blame = dict[int, tuple[int, int]]  # of a GPU: on whom it waited most, and how long in picoseconds
_ALONE = ("send", "recv")  # operations without a last one to come


def by_flags(found: Flags) -> Blame:
    """Return for each GPU the one that released most of its waits, and for how much of their time."""
    known = (found.releaser != NOBODY) & (found.released_ps > 0)
    return _most(found.rank[known], found.releaser[known], found.released_ps[known])


def by_last(rows: pa.Table, start: str, keys: Sequence[str], unit_ps: int) -> Blame:
    """Return for each GPU the one that it waited for most in collectives, because that one started last.

    `rows` has the columns rank, operation, `start` in units of `unit_ps`, and `keys`, which tell operations apart.
    """
    rows = rows.filter(pc.invert(pc.is_in(rows["operation"].cast(pa.string()), value_set=pa.array(_ALONE))))
    if not rows.num_rows:
        return {}
    group = np.zeros(rows.num_rows, np.int64)
    for key in keys:
        codes = np.asarray(
            rows[key].combine_chunks().cast(pa.string()).dictionary_encode().indices.fill_null(-1)
        )
        group = np.unique(group * (int(codes.max()) + 2) + codes + 1, return_inverse=True)[1].astype(np.int64)
    rank, began = rows["rank"].to_numpy(), rows[start].to_numpy()
    order = np.lexsort((began, group))
    group, rank, began = group[order], rank[order], began[order]
    last = np.append(np.flatnonzero(np.diff(group)), len(group) - 1)
    late = np.repeat(last, np.diff(np.concatenate(([-1], last))))
    waited = (began[late] - began) * unit_ps
    counts = waited > 0
    return _most(rank[counts], rank[late][counts], waited[counts])


def said(late: Blame, rank: int, waiting_ps: int) -> str:
    """Say who cost GPU `rank` most of its waiting by coming late, if one did: `, most for GPU 7, which ...`."""
    whom, time_ps = late.get(rank, (0, 0))
    return f", most for GPU {whom}, which came late to collectives" if 2 * time_ps > waiting_ps else ""


def _most(rank: Ints, on: Ints, waited_ps: Ints) -> Blame:
    """Return of each rank the one with the largest sum, the lowest of several."""
    span = int(on.max(initial=0)) + 1
    pair, inverse = np.unique(rank.astype(np.int64) * span + on, return_inverse=True)
    total = np.zeros(len(pair), np.int64)
    np.add.at(total, inverse, waited_ps)
    order = np.lexsort((pair, -total, pair // span))
    ranks, first = np.unique(pair[order] // span, return_index=True)
    best = order[first]
    return {int(who): (int(pair[at] % span), int(total[at])) for who, at in zip(ranks, best, strict=True)}
