"""Make a raw capture of what probes_own_kernel.cu wrote: `eidola convert captured raw -o own.eidola` goes on."""

import numpy as np

from eidola.capture import RankProbes, write_probes

BLOCKS = 16
records = np.fromfile("records.bin", np.uint64).reshape(BLOCKS, -1, 4)  # a record is four words
counts = np.fromfile("counts.bin", np.uint64).reshape(BLOCKS, 2)  # made, kept
writer = RankProbes(records, counts, anchor_hz=10**9)  # NVIDIA's %globaltimer counts nanoseconds
reader = RankProbes(np.zeros((1, 1, 4), np.uint64), np.zeros((1, 2), np.uint64), anchor_hz=10**9)
write_probes("raw", [writer, reader], phases=["scale"], regions=["results"], kernel="scale_to_peer")
