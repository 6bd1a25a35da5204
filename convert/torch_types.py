"""PyTorch's element types under NCCL's names."""

import re

_TYPES: dict[str, tuple[str, int]] = {
    "float": ("float32", 4),
    "double": ("float64", 8),
    "half": ("float16", 2),
    "bfloat16": ("bfloat16", 2),
    "int": ("int32", 4),
    "long": ("int64", 8),
    "longint": ("int64", 8),
    "char": ("int8", 1),
    "signedchar": ("int8", 1),
    "byte": ("uint8", 1),
    "unsignedchar": ("uint8", 1),
    "bool": ("uint8", 1),
    "float8e4m3fn": ("float8e4m3", 1),
    "float8e5m2": ("float8e5m2", 1),
    # Of PyTorch only; NCCL moves them as bytes.
    "float8e4m3fnuz": ("float8e4m3fnuz", 1),
    "float8e5m2fnuz": ("float8e5m2fnuz", 1),
    "float8e8m0fnu": ("float8e8m0fnu", 1),
    "short": ("int16", 2),
}
_LEFT_OUT = re.compile(r"c10::|[ _]")


def element_type(name: str) -> tuple[str, int] | None:
    """Return NCCL's name of a type that PyTorch writes (`c10::Half`, `unsigned char`) and its bytes, or None."""
    return _TYPES.get(_LEFT_OUT.sub("", name).lower())
