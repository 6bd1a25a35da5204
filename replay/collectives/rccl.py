"""What RCCL chooses on Instinct GPUs: by size, where NCCL compares models.

Sources, RCCL's develop branch of 2025: src/graph/tuning.cc (tuning_model_5 for gfx942, cdna3; tuning_model_6 for
gfx950, cdna4: llProtoRanges, bwRatio, hwLat, correction factors) and src/rccl_wrap.cc
(rcclUpdateCollectiveProtocol). All-reduces of a whole box of eight are MSCCL's all-pairs up to a size; above it is
a ring.
"""

KIB, MIB = 1024, 1024 * 1024
GENERATIONS = ("cdna2", "cdna3", "cdna4")

ALL_PAIRS_BYTES = 4 * MIB
"""All-reduce of eight GPUs of a box; calibrated on QR_MI300X, whose times follow all-pairs up to here."""
LL_BYTES = {
    "all_gather": {"cdna3": 96 * KIB, "cdna4": 88_448},
    "reduce_scatter": {"cdna3": 352_128, "cdna4": MIB},
}
"""In one box, bytes a rank up to which LL is taken (SingleNode cut-offs of rcclUpdateCollectiveProtocol)."""
LL_ALL_REDUCE_BYTES = 352 * KIB
"""In one box: where 12 us + 14 steps of 0.8 us + LL's 0.08 of the bandwidth meet 17 us + 14 steps of 2.1 us."""
NETWORK = {
    "cdna3": {"reduce_scatter": (655_360, 3_211_264), "all_gather": (98_304, 5_046_272),
              "all_reduce": (MIB, 9_437_184)},
    "cdna4": {"reduce_scatter": (131_071, 4_194_304), "all_gather": (7, 8_388_608),
              "all_reduce": (131_071, 17_660_227)},
}  # fmt: skip
"""Between boxes: largest LL, largest LL128; bytes a rank but for all-reduce (llProtoRanges)."""
MORE_BOXES = 3.8
"""Factor of LL128's limit for all-reduces over more than two boxes."""
TREE_BYTES = 256 * MIB
"""Between boxes a Simple ring has its bandwidth from this size on (ringCorrectionFactor); below, a tree does."""


def choose(generation: str, operation: str, ranks: int, boxes: int, size_bytes: int) -> tuple[str, str]:
    """Return algorithm and protocol; `size_bytes` as NCCL counts them: of all_gather the output."""
    known = generation if generation in NETWORK else "cdna3"
    each = size_bytes // ranks if operation in ("all_gather", "reduce_scatter") else size_bytes
    if boxes == 1:
        if operation == "all_reduce" and ranks == 8 and size_bytes <= ALL_PAIRS_BYTES:
            return "direct", "ll" if size_bytes <= LL_ALL_REDUCE_BYTES else "simple"
        limit = LL_BYTES.get(operation, {}).get(known, LL_ALL_REDUCE_BYTES)
        return "ring", "ll" if each <= limit else "simple"
    ll, ll128 = NETWORK[known].get(operation, (128 * KIB, 8 * MIB))
    if operation == "all_reduce" and boxes > 2:
        ll128 = int(ll128 * MORE_BOXES)
    protocol = "ll" if each <= ll else "ll128" if each <= ll128 else "simple"
    tree = operation == "all_reduce" and size_bytes < TREE_BYTES
    return "tree" if tree else "ring", protocol
