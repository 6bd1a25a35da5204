"""Double binary tree: half of the data flows up and down either of two trees, in chunks, as NCCL does it.

A tree joins boxes; inside a box its data runs along a chain from the box's head (NCCL's trees within a node are
chains as well). Where every member stands alone, both trees are over members.
"""

from .operation import Call, Ring, Track
from .work import Work, first_alone

Parents = list[int]
"""Parent of each group rank; -1: the root."""

_DOWN = 3
"""Slot that the parent raises; slots 0 to 2 are the children's (a chain's next and two of a binary tree)."""


def all_reduce(work: Work) -> list[Track]:
    """Reduce up to the root, then broadcast down: two agents a member and tree."""
    tracks: list[Track] = []
    for ring in work.rings():
        both = _trees(work, ring.order)
        shares = work.split(ring.size_bytes, [1] * len(both))
        for parents, share in zip(both, shares, strict=True):
            tracks += _up_and_down(work, parents, ring.part(share, len(both)))
    return tracks


def binary_tree(size: int) -> Parents:
    """Return NCCL's tree of alternating leaves and nodes, with 0 as root (ncclGetBtree, src/graph/trees.cc).

    A node's lowest set bit is its level: its parent has that bit cleared and the next one set, or, where there is
    no such node, only that bit cleared.
    """
    parents = [-1]
    for node in range(1, size):
        bit = node & -node
        up = (node ^ bit) | (bit << 1)
        parents.append(up if up < size else node ^ bit)
    return parents


def double_tree(size: int) -> tuple[Parents, Parents]:
    """Return the tree and its mirror image (even sizes) or its shift by one (odd), as ncclGetDtree does."""
    first = binary_tree(size)
    if size % 2 == 0:
        return first, [size - 1 - p if p >= 0 else -1 for p in reversed(first)]
    return first, [(p + 1) % size if p >= 0 else -1 for p in [first[-1], *first[:-1]]]


def _trees(work: Work, order: list[int]) -> list[Parents]:
    """Return the trees over a ring's boxes; one chain where there is one box, and one tree of two members."""
    boxes = work.by_box(order)
    made = []
    for heads in {tuple(tree): tree for tree in double_tree(len(boxes))}.values():
        parents = [-1] * work.size
        for box, up in zip(boxes, heads, strict=True):
            for member, before in zip(box[1:], box, strict=False):
                parents[member] = before
            parents[box[0]] = boxes[up][0] if up >= 0 else -1
        made.append(parents)
    return made


def _up_and_down(work: Work, parents: Parents, part: Ring) -> list[Track]:
    """Return the track up and the track down; the root turns data around on its way up."""
    children: list[list[int]] = [[] for _ in parents]
    for member, above in enumerate(parents):
        if above >= 0:
            children[above].append(member)
    flag, chunks = work.flags(_DOWN + 1, "tree"), work.chunks(part.size_bytes)
    up: Track = [[] for _ in parents]
    down: Track = [[] for _ in parents]
    for p, parent in enumerate(parents):
        slot = children[parent].index(p) if parent >= 0 else 0
        to_parent = [(parent, slot)] if parent >= 0 else []
        to_children = [(c, _DOWN) for c in children[p]]
        arrivals = list(range(len(children[p])))
        up[p] = _relay(work, p, part, flag, arrivals, to_parent or to_children)
        if to_parent and to_children:
            down[p] = _relay(work, p, part, flag, [_DOWN], to_children)
        elif to_parent:
            down[p] = [work.call([work.wait(_DOWN, chunks)], flags=flag)]
    return [up, down]


def _relay(
    work: Work, p: int, part: Ring, flag: int, arrivals: list[int], to: list[tuple[int, int]]
) -> list[Call]:
    """Return calls that forward every chunk, once it has come into all slots `arrivals`, to (member, slot) each."""
    chunks = work.chunks(part.size_bytes)
    big, small, large = work.slices(part.size_bytes, chunks)
    network = any(work.leaves_box(p, member) for member, _ in to)
    onward = tuple((member - p, slot) for member, slot in to)
    stretches = first_alone(((0, large, big), (large, chunks - large, small)))
    return [
        {"block": _block(work, part, first, size, tuple(arrivals), onward, network), "repeat": count,
         "group": work.group(), "position": p, "flag_offset": flag}
        for first, count, size in stretches if count
    ]  # fmt: skip


def _block(
    work: Work, part: Ring, first: int, size: int, arrivals: tuple[int, ...], onward: tuple[tuple[int, int], ...],
    network: bool,
) -> int:  # fmt: skip
    """Return the block of one chunk; members in like places share it."""
    key = first, size, part.mb_per_s, arrivals, onward, network
    if key not in work.blocks:
        ops = [work.wait(slot, 1 + first, expected_step=1) for slot in arrivals]
        ops += work.step(size, part, network=network, first=first == 0)
        ops += [work.write(distance, size, slot) for distance, slot in onward]
        work.blocks[key] = work.builder.block(ops)
    return work.blocks[key]
