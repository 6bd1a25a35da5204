"""A reader and a runner of GOAL, written from the language's definition (LogGOPSim, src/LogGOPSim/txt2bin.re).

`run` executes a schedule as LogGOPSim does, with a network that takes LATENCY_NS: an operation starts when what it
requires has ended; a receive takes the message of its source and tag.
"""

import heapq
import re
from collections import defaultdict

LATENCY_NS = 1000
_LINE = re.compile(
    r"^(?P<label>[a-zA-Z][a-zA-Z0-9_]*)(?:"
    r": (?:calc (?P<ns>\d+)|(?P<verb>send|recv) (?P<size>\d+)b (?P<way>to|from) (?P<peer>\d+) tag (?P<tag>\d+))"
    r"(?: cpu (?P<cpu>\d+))?| (?P<dep>requires) (?P<other>[a-zA-Z][a-zA-Z0-9_]*))$"
)


def parse(path):
    """Return the blocks, {label: operation} a rank; asserts that every line is of the language."""
    lines = path.read_text().split("\n")
    match = re.fullmatch(r"num_ranks (\d+)", lines[0])
    blocks, block = [], None
    for line in lines[1:]:
        if not line:
            continue
        assert "irequires" not in line  # which LogGOPSim's times do not follow
        if opened := re.fullmatch(r"rank (\d+) \{", line):
            assert block is None
            assert int(opened[1]) == len(blocks)  # txt2bin lays the ranks out one after another
            block = {}
        elif line == "}":
            assert block
            blocks.append(block)
            block = None
        else:
            found = _LINE.match(line)
            assert found, line
            label = found["label"]
            if found["dep"]:
                block[label][found["dep"]].append(found["other"])
                assert found["other"] in block
            else:
                assert label not in block
                assert int(found["cpu"] or 0) < 255  # LogGOPSim keeps their number in a byte (Parser.hpp)
                assert found["verb"] is None or (found["verb"] == "send") == (found["way"] == "to")
                block[label] = {**found.groupdict(), "requires": []}
    assert block is None
    assert len(blocks) == int(match[1])
    return blocks


def matched(blocks):
    """Return the messages as {(from, to, tag): size}; asserts that each is sent and received once."""
    sides = {"send": {}, "recv": {}}
    for rank, block in enumerate(blocks):
        for operation in block.values():
            if operation["verb"]:
                ends = (rank, int(operation["peer"]))
                key = (*(ends if operation["verb"] == "send" else ends[::-1]), int(operation["tag"]))
                assert key not in sides[operation["verb"]], "a tag is used twice between two ranks"
                assert int(operation["tag"]) < 2**32 - 1
                assert int(operation["size"]) > 0
                sides[operation["verb"]][key] = int(operation["size"])
    assert sides["send"] == sides["recv"]
    return sides["send"]


def run(blocks):
    """Return when each operation ended, {(rank, label): ns}; what is missing could not start."""
    ends, begins, waiting, after = {}, {}, {}, defaultdict(list)
    arrived, posted, queue = {}, {}, []
    for rank, block in enumerate(blocks):
        for label, op in block.items():
            waiting[rank, label] = len(op["requires"])
            for other in op["requires"]:
                after[rank, other].append((rank, label))

    def free(keys, time):
        for key in keys:
            waiting[key] -= 1
            if waiting[key] == 0:
                heapq.heappush(queue, (time, 0, key))

    for key, count in list(waiting.items()):
        if count == 0:
            heapq.heappush(queue, (0, 0, key))
    while queue:
        time, ending, key = heapq.heappop(queue)
        if ending:
            ends[key] = time
            free(after[key], time)
            continue
        begins[key] = time
        rank, op = key[0], blocks[key[0]][key[1]]
        if op["ns"] is not None:
            heapq.heappush(queue, (time + int(op["ns"]), 1, key))
        elif op["verb"] == "send":
            heapq.heappush(queue, (time, 1, key))
            message = (rank, int(op["peer"]), op["tag"])
            arrived[message] = time + LATENCY_NS
            if message in posted:
                heapq.heappush(queue, (max(time + LATENCY_NS, begins[posted[message]]), 1, posted[message]))
        else:
            message = (int(op["peer"]), rank, op["tag"])
            posted[message] = key
            if message in arrived:
                heapq.heappush(queue, (max(time, arrived[message]), 1, key))
    return ends
