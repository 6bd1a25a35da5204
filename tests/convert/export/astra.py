"""One rank's Chakra nodes, run as ASTRA-sim's HardwareResource.cc lets them: one host operation, one kernel, one
communication at a time, each taking its captured microseconds.
"""

import heapq
from collections import defaultdict

COMP = 4  # NodeType


def run(nodes):
    """Return when the last node ends, in microseconds; asserts that all of them run."""
    after = {number: set(node["after"]) for number, node in nodes.items()}
    followers = defaultdict(list)
    for number, others in after.items():
        for other in others:
            followers[other].append(number)
    ready, busy, ends, time, done = {n for n in after if not after[n]}, set(), [], 0, 0

    def resource(number):
        return "host" if nodes[number]["is_cpu_op"] else nodes[number]["type"] == COMP

    while ready or ends:
        for number in sorted(ready):
            if resource(number) not in busy:
                busy.add(resource(number))
                ready.discard(number)
                heapq.heappush(ends, (time + nodes[number]["duration"], number))
        time, number = heapq.heappop(ends)
        busy.discard(resource(number))
        done += 1
        for follower in followers[number]:
            after[follower].discard(number)
            ready |= set() if after[follower] else {follower}
    assert done == len(nodes)
    return time
