"""The probe record: what a fused kernel notes of itself, 32 bytes a record, little-endian.

`include/eidola_probe.h` is the same layout for C, CUDA and HIP, with each kind's fields. A raw capture carries
this description in its `capture.json`, so that a reader needs nothing else.
"""

from typing import Any

import numpy as np

FIELDS = (
    ("time", "<u8"),
    ("kind", "<u1"),
    ("name", "<u1"),
    ("peer", "<u2"),
    ("flag", "<u4"),
    ("value", "<u8"),
    ("extra", "<u8"),
)
RECORD = np.dtype(list(FIELDS))
COUNTS = np.dtype([("emitted", "<u8"), ("kept", "<u8")])  # beside a workgroup's buffer
KINDS = {
    "phase_begin": 1,
    "phase_end": 2,
    "data_write": 3,
    "flag_write": 4,
    "wait_begin": 5,
    "wait_end": 6,
    "anchor": 7,
}


def description() -> dict[str, Any]:
    """Return the record's fields and kinds, as `capture.json` carries them."""
    return {"fields": [list(field) for field in FIELDS], "kinds": dict(KINDS)}
