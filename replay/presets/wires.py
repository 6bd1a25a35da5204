"""What one direction of a link is: rate, latency, headers. Every constant with its source.

Rates are raw; the usable rate follows from the headers: raw * payload / (payload + header).

Vendors publish no one-way latency of NVLink or xGMI. NCCL's model gives 0.6 us for a whole step of its fastest
protocol over NVLink (hwLat, Ring/LL, src/graph/tuning.cc); half of that is taken as the path from GPU to GPU,
and collectives take the other half as processing, so that a step is as long as NCCL says. What travels outside
of collectives (flags of fused kernels) rests on this estimate.
"""

from dataclasses import dataclass, replace

NS = 1000  # picoseconds
PATH_PS = 300 * NS  # GPU to GPU in a box; see above


@dataclass(frozen=True)
class Wire:
    """One direction of a link."""

    rate_mb_per_s: int
    latency_ps: int
    header_bytes: int = 0
    payload_bytes: int = 0

    @property
    def usable_mb_per_s(self) -> float:
        """Rate that is left for payload when every packet is full."""
        full = self.payload_bytes or 1
        return self.rate_mb_per_s * full / (full + self.header_bytes)

    def times(self, count: int) -> "Wire":
        """Return `count` of these side by side, taken as one."""
        return replace(self, rate_mb_per_s=self.rate_mb_per_s * count)

    def after(self, latency_ps: int) -> "Wire":
        """Return the same with another latency."""
        return replace(self, latency_ps=latency_ps)

    def at(self, rate_mb_per_s: int) -> "Wire":
        """Return the same at another rate."""
        return replace(self, rate_mb_per_s=rate_mb_per_s)

    def args(self) -> tuple[int, int, int, int]:
        """Return what FabricBuilder.link takes after the two nodes."""
        return self.rate_mb_per_s, self.latency_ps, self.header_bytes, self.payload_bytes


# NVLink2 (V100) and NVLink3 (A100): 25 GB/s a link and direction. SMs write at most 128 B a packet (nccl-tests
# issue 149); packets' overhead leaves about 80 % (nccl issue 1054): NCCL's SM70_NVLINK_BW and SM80_NVLINK_BW are
# 20.0 GB/s (src/graph/topo.h). 32 B a packet give 25 * 128 / 160 = 20.0.
NVLINK2 = NVLINK3 = Wire(25_000, PATH_PS, header_bytes=32, payload_bytes=128)

# NVLink4 (H100, H200): 25 GB/s; NCCL's SM90_NVLINK_BW is 20.6; 371 to 377 of 450 are measured (nccl issue 1264).
# 27 B a packet give 25 * 128 / 155 = 20.65, and 371.6 for 18 links.
NVLINK4 = Wire(25_000, PATH_PS, header_bytes=27, payload_bytes=128)

# NVLink5 (B200, GB200): 50 GB/s, two lanes of 200 Gb/s (NVIDIA: 1.8 TB/s both ways over 18 links); NCCL's
# SM100_NVLINK_BW is 40.1. The 32 B a packet of NVLink2 and 3 give 50 * 128 / 160 = 40.0.
NVLINK5 = Wire(50_000, PATH_PS, header_bytes=32, payload_bytes=128)

# MI250X xGMI: 16 lanes of 25 Gb/s, 50 GB/s a link (ROCm's page on the MI250); RCCL's MI200_XGMI_WIDTH is 36.
# 50 B for 128 B give 50 * 128 / 178 = 36.0; as for the MI300X the split into packets is chosen for that rate.
XGMI_MI250X = Wire(50_000, PATH_PS, header_bytes=50, payload_bytes=128)

# MI300X xGMI: 16 lanes of 32 Gb/s, 64 GB/s a direction (AMD's CDNA3 white paper), about 48 usable (rccl 1210).
# 43 B for 128 B give 64 * 128 / 171 = 47.9; the split into packets is chosen for that rate, not documented.
XGMI_MI300X = Wire(64_000, PATH_PS, header_bytes=43, payload_bytes=128)

# MI355X xGMI: about 153 GB/s both ways a link are reported (no page of AMD's own was found), which is 16 lanes of
# 38.4 Gb/s, 76.8 GB/s a direction. Packets as on the MI300X: 76.8 * 128 / 171 = 57.5.
XGMI_MI355X = Wire(76_800, PATH_PS, header_bytes=43, payload_bytes=128)

# PCIe x16: 8 (gen 3), 16 (gen 4) or 32 (gen 5) GT/s a lane, 128b/130b. A packet carries at most 128 B on common
# hosts, with 24 B of framing, sequence number, 64-bit header and CRC (4 + 16 + 4; PCI Express Base
# Specification): 84 %, within the 82 to 86 % seen. 500 ns is an estimate, NIC included: no source gives it
# alone. Two of them and one switch make 1.5 us from GPU to GPU; between hosts, 0.8 us is measured for small
# InfiniBand messages.
PCIE3 = Wire(15_754, 500 * NS, header_bytes=24, payload_bytes=128)
PCIE4 = Wire(31_508, 500 * NS, header_bytes=24, payload_bytes=128)
PCIE5 = Wire(63_015, 500 * NS, header_bytes=24, payload_bytes=128)
PCIE6 = PCIE5.times(2)  # 64 GT/s a lane; its flit mode's own overheads are taken as those of PCIe 5

# 800, 400, 200 and 100 Gb/s, RoCEv2: 82 B a packet (preamble 8, gap 12, Ethernet 14 + 4, IPv4 20, UDP 8, BTH 12,
# ICRC 4), MTU 4096: 98.0, 49.0, 24.5 and 12.3 GB/s. 150 ns a switch (Quantum-2 is below that, Ethernet ones are
# slower) and 20 m of fibre at 5 ns/m.
NET800 = Wire(100_000, 250 * NS, header_bytes=82, payload_bytes=4096)
NET400 = Wire(50_000, 250 * NS, header_bytes=82, payload_bytes=4096)
NET200 = Wire(25_000, 250 * NS, header_bytes=82, payload_bytes=4096)
NET100 = Wire(12_500, 250 * NS, header_bytes=82, payload_bytes=4096)

# Inside a box with PCIe switches a GPU is 250 ns from its switch, the switch as far from the root complex and
# from a NIC: PCIE4's estimate for GPU to NIC, in two halves.
PCIE4_HOP = PCIE4.after(250 * NS)

# Between two sockets: what NCCL counts on for GPU traffic between EPYCs of Zen 3 and 4 (AMD_ZEN34_BW, 24.0;
# for Intel's Sapphire Rapids SRP_QPI_BW is 22.0; src/graph/topo.h), headers already taken off. 100 ns is an
# estimate: about what remote memory takes longer than local.
SOCKETS = Wire(24_000, 100 * NS)
