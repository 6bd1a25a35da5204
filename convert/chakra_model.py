"""What a node of a Chakra file is, whatever the file's version."""

from dataclasses import dataclass
from typing import Any

TYPES = (
    "INVALID_NODE", "METADATA_NODE", "MEM_LOAD_NODE", "MEM_STORE_NODE", "COMP_NODE", "COMM_SEND_NODE",
    "COMM_RECV_NODE", "COMM_COLL_NODE", "STORAGE_NODE", "BATCH_NODE", "CHECKPOINT_NODE",
)  # fmt: skip
COLLECTIVES = (
    "all_reduce", "reduce", "all_gather", "gather", "scatter", "broadcast", "all_to_all", "reduce_scatter",
    "reduce_scatter", "barrier",
)  # fmt: skip
"""The schema's name of each CollectiveCommType (8 is REDUCE_SCATTER_BLOCK)."""
POINT_TO_POINT = {"COMM_SEND_NODE": "send", "COMM_RECV_NODE": "recv"}


@dataclass
class Node:
    """One node of any version.

    Its type is an index of TYPES; times are nanoseconds, 0 where the file has none. `dependencies` must end
    before it starts; `callers` have begun: PyTorch's converter gives the call stack as control dependencies.
    """

    id: int
    name: str
    type: int
    dependencies: tuple[int, ...]
    callers: tuple[int, ...]
    start_ns: int
    duration_ns: int
    attributes: dict[str, Any]
    inputs: str = ""
