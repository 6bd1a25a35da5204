"""Which network joins a row's boxes: how many NICs, how fast, of what kind, and what libraries never do over it."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Transport:
    """NICs of one kind, as NCCL's plugin for them runs them.

    `carries`: what a NIC carries of its rate, besides headers. `latency_us`: of a link from a NIC to its switch,
    beyond a fabric's own; two make a hop. `without`: algorithms and protocols that its plugin or its documented
    settings switch off. `tree_chunk_bytes`: of a channel, where those settings fix it. `message_us`: what each
    message of a tree takes of its NIC, beyond its bytes. `nvls_tree_chunk_bytes`: of a channel at most, where its
    plugin sets that.
    """

    carries: float = 0.93
    latency_us: float = 0.0
    without: tuple[str, ...] = ()
    tree_chunk_bytes: int = 0
    message_us: float = 0.0
    nvls_tree_chunk_bytes: int = 0


NO_LL = "ll", "ll128"
NO_NVLS = "nvls", "nvls_tree"
TRANSPORTS = {
    "ib": Transport(),
    "roce": Transport(),
    "slingshot": Transport(),
    "efa": Transport(latency_us=9.0, nvls_tree_chunk_bytes=512 * 1024),
    "efa of A100": Transport(latency_us=4.5, without=NO_LL, message_us=6.0),
    "tcpxo": Transport(0.94, 4.5, (*NO_LL, *NO_NVLS), 2**20),
    "tcpx": Transport(0.5, 180.0, (*NO_LL, *NO_NVLS, "tree")),
    "tcp": Transport(0.5, 25.0),
}
"""Calibrated: 0.93 on TOGETHER_B200_scale and LAMBDAx2 (InfiniBand), A4x2_ar (RoCE), P5x2 and STAS_P6B200 (EFA),
0.94 and 4.5 us on A3MEGAx2 (TCPXO), 0.5 and 180 us on A3HIGHx2 (TCPX, which copies through host memory; TCP is
taken to carry as much), 9 us on P5x2, 4.5 us and the 6 us of a message on P4DEx2. 25 us of TCP is an estimate.
Switched off: LL and LL128 by aws-ofi-nccl on p3dn, p4d and p4de (force_proto_simple, src/platform-aws.c); by
Google's settings for TCPXO (NCCL_PROTO=Simple, NCCL_ALGO=Ring,Tree, NCCL_NVLS_ENABLE=0, chunks of an eighth of
NCCL_BUFFSIZE=8388608) and TCPX (NCCL_PROTO=Simple, NCCL_ALGO=Ring), as users' job files have them.
aws-ofi-nccl sets NCCL_NVLSTREE_MAX_CHUNKSIZE to 512 KiB on AWS's boxes (1.11 to 1.15, as users' logs have it)."""
ALONE = 0.75
"""With one GPU a box its NIC carries less both ways at once: NCCL counted on 0.7 (2.10, src/graph/tuning.cc)."""
_NAMES = (
    ("tcpxo", r"tcpxo|fastrak"), ("tcpx", r"tcpx"), ("efa", r"\befa|\bsrd\b|aws-ofi"),
    ("slingshot", r"slingshot|\bcxi\b|cassini"), ("efa", r"\bofi\b|libfabric"),
    ("tcp", r"\btcp\b|sockets?\b"),
    ("roce", r"roce|spectrum|pollara|ainic|thor ?\d?\b|\banp\b|bnxt"),
    ("ib", r"\bib\b|infiniband|ndr|hdr|xdr|\bedr"),
    ("tcp", r"(?:\b|^)(?:1|2|5|10|25|40|50|100) ?gb?e\b"),
    ("roce", r"ethernet|eth\b|gbe\b"), ("ib", r"cx-?\d|mlx"),
)  # fmt: skip
"""Kinds by what names them; the first that fits."""
GBIT = {"xdr": 800, "ndr": 400, "hdr100": 100, "hdr": 200, "edr": 100, "fdr": 56, "slingshot": 200, "cx-8": 800,
        "cx8": 800, "connectx-8": 800, "cx-7": 400, "cx7": 400, "connectx-7": 400, "cx-6": 200, "connectx-6": 200,
        "pollara": 400, "thor2": 400}  # fmt: skip
"""Gb/s of a NIC by its name."""
_RATE = r"(\d+(?:\.\d+)?) ?g(?:b(?:ps|it|/s|e)?|bit/s|ib)?\b"
_NAMED = "|".join(sorted(GBIT, key=len, reverse=True))


def transport_of(text: str, generation: str) -> str:
    """Return the kind of network that a text names; InfiniBand where none is."""
    name = next((name for name, pattern in _NAMES if re.search(pattern, text)), "ib")
    return "efa of A100" if name == "efa" and generation in ("volta", "ampere") else name


def nics_of(text: str, gpus: int) -> tuple[int, float]:
    """Return NICs of a box whose `gpus` take part, and GB/s of each; 0 for what is not said.

    More NICs than GPUs are bundled: a GPU's share of them is one.
    """
    if all_gbit := _together(text):
        return 0, all_gbit / 8 / gpus
    count, gbit = _counted(text)
    if count and re.search(r"(?:per|a|/) ?(?:gpu|gcd)\b", text):
        count *= gpus
    if not count:
        return 0, gbit / 8
    nics = min(count, gpus)
    while gpus % nics:
        nics -= 1
    return nics, count * gbit / 8 / nics


def _together(text: str) -> float:
    """Return Gb/s of a whole box, where only that is said: more than any one NIC has."""
    if re.search(rf"\d ?[x*] ?{_RATE}", text):
        return 0
    if found := re.search(r"(\d+(?:\.\d+)?) ?t(?:bps|b/s|bit)", text):
        return 1000 * float(found.group(1))
    rates = [float(rate) for rate in re.findall(rf"(?<![\d.]){_RATE}", text)]
    return max((rate for rate in rates if rate > 800), default=0)


def _counted(text: str) -> tuple[int, float]:
    """Return how many NICs of how many Gb/s a text names; 0 for what it does not say."""
    if found := re.search(rf"(\d+) ?[x*] ?(?:dual[- ]port )?{_RATE}", text):
        return int(found.group(1)), float(found.group(2))
    if found := re.search(rf"{_RATE} ?(?:ib |ndr |roce )?[x*] ?(\d+)\b", text):
        return int(found.group(2)), float(found.group(1))
    named = re.search(
        rf"(?<![\d.-])(\d+) ?[x*]? ?(?:nvidia |mellanox |amd |broadcom )*(?:dual )?({_NAMED})(\d*)", text
    )
    rate = re.search(rf"(?<![\d.]){_RATE}", text)
    if named:
        said = float(rate.group(1)) if rate and float(rate.group(1)) <= 800 else 0.0
        return int(named.group(1)), float(named.group(3) or 0) or said or GBIT[named.group(2)]
    if rate and float(rate.group(1)) <= 800:
        return 0, float(rate.group(1))
    short = re.search(rf"({_NAMED})(\d{{3}})?", text)
    return 0, float(short.group(2) or GBIT[short.group(1)]) if short and not rate else 0.0
