"""All ranks' Chakra nodes, run as ASTRA-sim's HardwareResource.cc lets them with Chakra::FeederV3: one host
operation, one kernel and one communication of a rank at a time, in the order of their ids; receives hold nothing.
Compute takes its captured microseconds; the nth collectives of a group end together, after the shortest of their
captured times (the others waited); messages take none.
"""

import heapq
from collections import defaultdict

COMP, SEND, RECV, COLL = 4, 5, 6, 7  # NodeType


class Machine:
    """`ranks` are the nodes of each by id; `run` returns when the last of them ends and what never ran."""

    def __init__(self, ranks):
        self.ranks = ranks
        self.after = {(r, n): set(node["after"]) for r, nodes in ranks.items() for n, node in nodes.items()}
        self.followers = defaultdict(list)
        for (rank, number), others in self.after.items():
            for other in others:
                self.followers[rank, other].append(number)
        calls = [
            (node["pg_name"], r)
            for r, nodes in ranks.items()
            for node in nodes.values()
            if node["type"] == COLL
        ]
        self.sizes = {group: len({r for other, r in calls if other == group}) for group, _ in calls}
        self.ready, self.busy, self.ends = defaultdict(list), set(), []
        self.calls, self.meetings, self.messages = defaultdict(int), defaultdict(list), {}
        self.time = 0

    def run(self):
        for (rank, number), after in self.after.items():
            if not after:
                self._release(rank, number)
        while self.ends:
            self.time, rank, number = heapq.heappop(self.ends)
            del self.after[rank, number]
            self.busy.discard((rank, self._resource(rank, number)))
            for follower in self.followers[rank, number]:
                self.after[rank, follower].discard(number)
                if not self.after[rank, follower]:
                    self._release(rank, follower)
            self._issue(rank, self._resource(rank, number))
        return self.time, list(self.after)

    def _resource(self, rank, number):
        node = self.ranks[rank][number]
        if node["is_cpu_op"]:
            return "host"
        return {COMP: "kernel", RECV: None}.get(node["type"], "communication")

    def _release(self, rank, number):
        resource = self._resource(rank, number)
        heapq.heappush(self.ready[rank, resource], number)
        self._issue(rank, resource)

    def _issue(self, rank, resource):
        while self.ready[rank, resource] and (rank, resource) not in self.busy:
            number = heapq.heappop(self.ready[rank, resource])
            if resource is not None:
                self.busy.add((rank, resource))
            self._start(rank, number)

    def _start(self, rank, number):
        node = self.ranks[rank][number]
        if node["type"] == COMP:
            self._end(node["duration"], (rank, number))
        elif node["type"] == COLL:
            self._meet(rank, number)
        else:
            message = node["comm_src"], node["comm_dst"], node["comm_tag"]
            other = self.messages.pop(message, None)
            if other is None:
                self.messages[message] = rank, number
            if node["type"] == SEND or other is not None:
                self._end(0, (rank, number))
            if node["type"] == SEND and other is not None:
                self._end(0, other)

    def _meet(self, rank, number):
        group = self.ranks[rank][number]["pg_name"]
        meeting = self.meetings[group, self.calls[group, rank]]
        self.calls[group, rank] += 1
        meeting.append((rank, number))
        if len(meeting) == self.sizes[group]:
            nodes = [self.ranks[r][n] for r, n in meeting]
            assert len({(n["comm_type"], n["comm_size"], n["eidola.sequence"]) for n in nodes}) == 1
            for there in meeting:
                self._end(min(n["duration"] for n in nodes), there)

    def _end(self, duration, there):
        heapq.heappush(self.ends, (self.time + duration, *there))
