"""What a row ran: operation, forced algorithm and protocol, groups side by side, and what started it."""

import re
from dataclasses import dataclass

OPERATIONS = {
    "allreduce": "all_reduce", "allgather": "all_gather", "reducescatter": "reduce_scatter", "sendrecv": "shift",
    "alltoall": "all_to_all", "collectivepermute": "shift", "broadcast": "broadcast", "bcast": "broadcast",
    "reduce": "reduce", "gather": "gather", "scatter": "scatter",
}  # fmt: skip
"""Names in benchmarks, without signs between words; a `shift` sends to the next rank and receives from the last."""
REDUCE_OR_GATHER = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce")
"""Operations that have algorithms to choose from; others are sends and receives."""
ALGORITHMS = {"ring": "ring", "tree": "tree", "nvls": "nvls", "nvlstree": "nvls_tree", "collnetdirect": "sharp",
              "collnet": "sharp", "collnetchain": "sharp", "sharp": "sharp"}  # fmt: skip
_SWITCHED_OFF = r"(nvls|collnet)(?:_enable)? ?(?:= ?0|(?:is )?(?:disabled|off)\b)"
LARGE_BYTES = 16 * 2**20
"""From this size on an algorithm that is only reported (`default (Ring)`) is taken as what ran."""


@dataclass(frozen=True)
class Method:
    """How a row's operation runs. Empty: as the library chooses.

    `forced` algorithm at every size, `seen` one for large sizes; `without` algorithms that are switched off.
    `groups` of `group_ranks` side by side (0: as the row says). `harness` is what starts the operations: `mpi` (a
    process a GPU, launches run ahead), `single` (one process for all GPUs), `torch` (a script that times each
    operation by itself) or `xla`.
    """

    operation: str
    pattern: str = ""
    forced: str = ""
    seen: str = ""
    protocol: str = ""
    channels: int = 0
    without: tuple[str, ...] = ()
    groups: int = 1
    group_ranks: int = 0
    harness: str = "mpi"
    library: str = "nccl"


def method_of(operation: str, library: str, env: str) -> Method | str:
    """Return the method, or the reason why it cannot be replayed."""
    name = re.sub(r"[^a-z0-9]", "", operation.lower())
    if name not in OPERATIONS:
        return f"operation {operation!r} is none that is replayed with its size"
    text, of = env.lower(), library.lower()
    custom = _custom(of, text)
    if isinstance(custom, Method):
        return Method(OPERATIONS[name], forced=custom.forced, harness=custom.harness, library="custom")
    if custom:
        return custom
    groups = re.search(r"(\d+) ?group\(?s?\)? ?of ?(\d+)", text)
    without = _without(text)
    stripped = re.sub(r"(nvls|collnet|sharp)(_enable)? ?= ?\d", " ", re.sub(_SWITCHED_OFF, " ", text))
    forced, seen = _algorithm(stripped) if OPERATIONS[name] in REDUCE_OR_GATHER else ("", "")
    return Method(
        OPERATIONS[name],
        pattern=_pattern(text),
        forced=forced,
        seen=seen,
        protocol=_protocol(stripped),
        channels=_channels(text, OPERATIONS[name]),
        without=without,
        groups=int(groups.group(1)) if groups else 1,
        group_ranks=int(groups.group(2)) if groups else 0,
        harness=_harness(of, text),
        library="rccl" if "rccl" in of or "rocm" in of else "nccl",
    )


def _custom(library: str, env: str) -> "Method | str":
    """Return the algorithm of a kernel that is neither NCCL's nor RCCL's, why it is not known, or nothing."""
    both = library + " " + env
    if re.search(r"(qr|quick ?reduce)[- ]?(fp8|q\d|int\d)|quanti[sz]|\bfp8\b|\bint[48]\b", both):
        return "a kernel that compresses what it sends; its reduction of bytes is not modelled"
    if re.search(r"deepep|mori|uccl|pplx|nvshmem|deep_ep", both):
        return "an expert-parallel or one-sided library, not a collective of NCCL or RCCL"
    if re.search(r"msccl ?\+\+|mscclpp", both):
        return "kernels of MSCCL++ by number, which no program here stands for"
    if "double_tree" in both or "double tree" in both:
        return "a kernel of Triton-distributed that no program here stands for"
    if re.search(r"hierarchical", both):
        return "a hierarchical kernel over PCIe islands, which no program here stands for"
    if "multimem" in both:
        return Method("", forced="nvls", harness="graph")
    if re.search(r"one[- ]?shot|1[- ]?stage", both):
        return Method("", forced="one_shot_get", harness="graph")
    if re.search(r"two[- ]?shot|2[- ]?stage", both):
        return Method("", forced="two_shot_get", harness="graph")
    if "custom all-reduce" in both or "custom allreduce" in both:
        return Method("", forced="custom", harness="graph")
    if re.search(
        r"nccl|rccl|rocm|cuda|throughputs? rounded|torch|\bofi\b|xla|not stated|unknown|n/a|^\W*$", library
    ):
        return ""
    return f"library {library!r} is not known"


def _without(text: str) -> tuple[str, ...]:
    """Return the algorithms and protocols that a row switches off.

    NCCL_NVLS_ENABLE=0 switches both NVLS algorithms off; a CollNet that cannot start leaves rings and trees
    (ncclTopoTuneModel in NCCL's src/graph/tuning.cc).
    """
    off = {ALGORITHMS[a] for a in re.findall(_SWITCHED_OFF, text)}
    if "nvls" in off or re.search(r"collnet ?\(?sharp (is )?off", text):
        off |= {"nvls", "nvls_tree"}
    for variable, known in (("algo", set(ALGORITHMS.values())), ("proto", {"ll", "ll128", "simple"})):
        found = re.search(rf"{variable}\w* ?[=:] ?(?:all\w+: ?)?(\^?)([a-z0-9]+(?:,[a-z0-9]+)*)", text)
        if found and (found.group(1) or "," in found.group(2)):
            named = {ALGORITHMS.get(name, name) for name in found.group(2).split(",")}
            off |= named & known if found.group(1) else known - named
    return tuple(sorted(off))


def _algorithm(text: str) -> tuple[str, str]:
    """Return the algorithm that a row forces, and the one that it reports for large sizes."""
    words = "|".join(sorted(ALGORITHMS, key=len, reverse=True))
    if found := re.search(rf"algo\w* ?[=:] ?(?:all\w+: ?)?({words})\b(?!,[a-z])", text):
        return ALGORITHMS[found.group(1)], ""
    if re.search(r"algo\w* ?[=:] ?(?:all\w+: ?)?(?:\^|[a-z]+,[a-z])|sharp (is )?off|sharp .*failed", text):
        return "", ""
    found = re.search(rf"(?:^|[^a-z])({words})(?![a-z_])", re.sub(r"nvls[ _]tree", "nvlstree", text))
    if not found or "mnnvl" in text:
        return "", ""
    name = ALGORITHMS[found.group(1)]
    reported = re.search(r"default|unset|picked|debug|from|below|\bup\b", text)
    return ("", name) if reported else (name, "")


def _protocol(text: str) -> str:
    """Return the protocol that a row forces."""
    found = re.search(
        r"proto\w* ?[=:] ?(?:all\w+: ?)?(ll128|ll|simple)\b(?!,[a-z])|[/:+, ](ll128|ll|simple)\b", text
    )
    if re.search(r"default|debug|below|picked", text):
        return ""
    return (found.group(1) or found.group(2)) if found else ""


def _channels(text: str, operation: str) -> int:
    """Return how many channels a row sets: of a collective, or of a peer over the network."""
    exchange = operation in ("shift", "all_to_all")
    found = re.search(r"net_peer ?= ?(\d+)" if exchange else r"(\d+) ?ch(?:annels?)?\b", text)
    return int(found.group(1)) if found else 0


def _pattern(text: str) -> str:
    """Return who sends to whom in a permutation."""
    if "<->" in text or "pairs 2i" in text:
        return "pairs"
    return "half" if "n/2" in text else "ring"


def _harness(library: str, env: str) -> str:
    """Return what started the operations."""
    both = library + " " + env
    if re.search(r"\bxla\b|pjrt|\bjax\b", both):
        return "xla"
    if re.search(r"-g ?([2-9]|\d\d)\b|one process|single process", both):
        return "single"
    return "torch" if re.search(r"torch \d|torch.*bench", both) else "mpi"
