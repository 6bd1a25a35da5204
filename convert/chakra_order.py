"""When nodes of a Chakra file start: as the file tells, else laid out by what they depend on."""

from collections import defaultdict
from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from ..schemas.errors import InputError
from .chakra_attributes import OWN, number_in
from .chakra_model import Node
from .chakra_nodes import LATEST_NS, ChakraFile
from .chakra_spans import lane_of


def lay_out(file: ChakraFile, nodes: Sequence[Node], notes: list[str]) -> None:
    """Give nodes their start: exact where this project exported it, else in microseconds, else laid out."""
    origin = number_in(file.metadata, f"{OWN}origin_ns", -LATEST_NS) or 0
    for node in nodes:
        start, duration = (number_in(node.attributes, OWN + name) for name in ("start_ns", "duration_ns"))
        node.start_ns = (node.start_ns if start is None else start) + origin
        node.duration_ns = node.duration_ns if duration is None else duration
        if max(node.start_ns, node.start_ns + node.duration_ns) > LATEST_NS:
            raise InputError(
                f"{file.path}: node {node.id} has a time beyond 146 years; write the trace again"
            )
    if not any(node.dependencies for node in nodes):
        for node in nodes:  # a file with one kind of dependency means it as order
            node.dependencies = node.callers
    if len(nodes) > 1 and all(node.start_ns == origin for node in nodes):
        _schedule(file, nodes)
        notes.append(
            f"{file.path.name} holds durations and no start times: nodes were laid out by their dependencies"
        )
    elif f"{OWN}origin_ns" not in file.metadata:
        notes.append(f"{file.path.name} has times in whole microseconds")
    missing = sum(other not in file.nodes for node in nodes for other in node.dependencies)
    if missing:
        notes.append(
            f"{file.path.name}: {missing} dependencies are on nodes that it does not hold; they were left out"
        )


def _schedule(file: ChakraFile, nodes: Sequence[Node]) -> None:
    """Start each node when its dependencies have ended, its callers begun and its lane is free, by (ready, id).

    Callers that depend on what they call, as converters write them, do not count.
    """
    by_id = {node.id: node for node in nodes}
    ended = {n.id: [o for o in n.dependencies if o in by_id] for n in nodes}
    begun = {n.id: [o for o in n.callers if o in by_id and o != n.id] for n in nodes}
    followers: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    for node in nodes:
        for other in ended[node.id]:
            followers[other].append((node.id, True))
        for other in begun[node.id]:
            followers[other].append((node.id, False))
    left = {n.id: [len(begun[n.id]), len(ended[n.id])] for n in nodes}
    ready = dict.fromkeys(by_id, 0)
    free: dict[str, int] = defaultdict(int)
    queue = [(0, number) for number, counts in left.items() if counts == [0, 0]]
    parked = [number for number, (calls, waits) in left.items() if calls and not waits]
    heapify(queue)
    heapify(parked)
    placed: set[int] = set()
    while queue or parked:
        time, number = heappop(queue) if queue else (-1, heappop(parked))
        if number in placed:
            continue
        placed.add(number)
        node = by_id[number]
        lane = lane_of(node)
        node.start_ns = max(time, ready[number], free[lane])
        free[lane] = end = node.start_ns + node.duration_ns
        for other, waits in followers[number]:
            ready[other] = max(ready[other], end if waits else node.start_ns)
            left[other][waits] -= 1
            if left[other] == [0, 0]:
                heappush(queue, (ready[other], other))
            elif left[other][1] == 0:
                heappush(parked, other)
    if len(placed) < len(nodes):
        stuck = min(set(by_id) - placed)
        raise InputError(f"{file.path}: node {stuck} depends on itself through others; write the trace again")
