"""NVLS: reduction and multicast in the switch of a box (NVLink SHARP); NVLS-tree: boxes joined by trees."""

from collections.abc import Callable

from ...schemas import UsageError
from ..program import compute, wait, write
from .multicast import CHILDREN, PARENT, RESULT, WINDOW, Plane, Rounds, planes, rounds_of, rounds_of_each
from .operation import Call, Track
from .tree import double_tree
from .work import Work

ON_THE_WAY = 3 * WINDOW
"""Chunks of an owner between its switch and the root's answer: every connection on the way, up and down, has
buffers for WINDOW of its own."""

Cut = Callable[[Work, int, int], Rounds]


def all_reduce(work: Work) -> list[Track]:
    """Every owner has its chunks reduced by the switch, and multicast. All members in one box."""
    _one_box(work)
    return all_reduce_tree(work)


def all_reduce_tree(work: Work) -> list[Track]:
    """As in one box; between, owners of the same place in their boxes add up along a double binary tree.

    Each tree carries half of the data at the same time, on channels of its own: a box inside of one tree is a leaf
    of the other, so that no NIC is busier than others.
    """
    boxes = work.boxes()
    switches = [planes(work, box) for box in boxes]
    stripes = min(len(found) for found in switches)
    tracks: list[Track] = []
    trees = double_tree(len(boxes))[: min(len(boxes), 2)]
    shares = work.split(work.operation.size_bytes, [1] * stripes * len(trees))
    for at, share in enumerate(shares):
        stripe, tree = divmod(at, len(trees))
        rounds = rounds_of(work, share, len(boxes[0]))
        made = [
            Plane(work, box, found[stripe], rounds, tree, len(trees))
            for box, found in zip(boxes, switches, strict=True)
        ]
        up: Track = [[] for _ in work.members]
        down: Track = [[] for _ in work.members]
        for plane in made:
            plane.serve_reduction()
            plane.serve_multicast()
        for h in range(len(boxes[0])):
            for b, plane in enumerate(made):
                up[plane.ranks[h]], down[plane.ranks[h]] = _owner(work, made, trees[tree], b, h)
        tracks += [up, down] if len(boxes) > 1 else [up]
    return tracks


def _owner(
    work: Work, made: list[Plane], parents: list[int], b: int, h: int
) -> tuple[list[Call], list[Call]]:
    """Return what the owner at place `h` of box `b` does with what comes from its switch, and from its parent."""
    plane = made[b]
    children = [c for c, above in enumerate(parents) if above == b]
    near = [*children, *([parents[b]] if parents[b] >= 0 else [])]
    group = work.builder.group([*plane.members, plane.switch, *(made[c].members[h] for c in near)])
    peer = {c: plane.n + 1 + at - h for at, c in enumerate(near)}
    turn, proxy_mb_per_s = [(c, PARENT) for c in children], work.tuning.network_lane_mb_per_s
    siblings = [c for c, above in enumerate(parents) if above == parents[b]]
    onward = [(parents[b], CHILDREN + siblings.index(b))] if parents[b] >= 0 else turn

    def calls(arrivals: list[int], to: list[tuple[int, int]], *, asks: bool, lands: bool) -> list[Call]:
        cut = plane.count - WINDOW if asks else 0
        found = []
        for first, count, sizes in plane.spans(1, cut, ON_THE_WAY if asks and not lands else 0):
            ops = [wait(slot, first + 1, expected_step=1) for slot in arrivals]
            if asks and not lands and first >= ON_THE_WAY:  # buffers: an earlier sum has come back
                ops.append(wait(PARENT, first + 1 - ON_THE_WAY, expected_step=1))
            ops += work.step(sizes[h], network=bool(to), first=first == 0)
            if near and proxy_mb_per_s:
                ops.append(compute(-(-sizes[h] * 10**6 // proxy_mb_per_s)))
            ops += [write(peer[c], sizes[h], slot, relative=True) for c, slot in to]
            ops += [plane.hand_up(h, sizes[h])] if lands else []
            ops += [plane.ask(h)] if first < cut else []
            found.append(plane.call(ops, count, h, group))
        return found

    root = parents[b] < 0
    arrivals = [RESULT, *(CHILDREN + at for at in range(len(children)))]
    up = plane.open(h, ahead=min(WINDOW, plane.count)) + calls(arrivals, onward, asks=True, lands=root)
    down = [] if root else calls([PARENT], turn, asks=False, lands=True)
    last = plane.close()
    return (up + last, down) if root else (up, down + last)


def reduce_scatter(work: Work) -> list[Track]:
    """Every owner has its slice reduced by the switch."""
    _one_box(work)
    tracks = []
    for plane in _striped(work, work.operation.size_bytes, rounds_of):
        plane.serve_reduction()
        cut, track = max(0, plane.count - WINDOW), []
        for h in range(plane.n):
            calls = plane.open(h, ahead=min(WINDOW, plane.count))
            for first, count, sizes in plane.spans(cut):
                ops = [wait(RESULT, first + 1, expected_step=1), *work.step(sizes[h])]
                calls.append(plane.call(ops + ([plane.ask(h)] if first < cut else []), count, h))
            track.append(calls)
        tracks.append(track)
    return tracks


def all_gather(work: Work) -> list[Track]:
    """Every member writes its contribution once; the switch multicasts it."""
    _one_box(work)
    tracks = []
    for plane in _striped(work, work.operation.size_bytes, rounds_of_each):
        plane.serve_multicast()
        track = []
        for h in range(plane.n):
            sends = [
                plane.call([*work.step(sizes[h]), plane.hand_up(h, sizes[h])], count, h)
                for _, count, sizes in plane.rounds
            ]
            track.append([*sends, *plane.close()])
        tracks.append(track)
    return tracks


def _striped(work: Work, size_bytes: int, cut: Cut) -> list[Plane]:
    """Return a plane for each of the box's switches, with its share of the data."""
    ranks = list(range(work.size))
    switches = planes(work, ranks)
    shares = work.split(size_bytes, [1] * len(switches))
    return [
        Plane(work, ranks, switch, cut(work, share, work.size))
        for switch, share in zip(switches, shares, strict=True)
    ]


def _one_box(work: Work) -> None:
    if len(work.boxes()) > 1:
        raise UsageError(
            f"{work.operation.operation}: algorithm nvls works inside one box; these {work.size} GPUs stand in "
            f"{len(work.boxes())}: take nvls_tree"
        )
