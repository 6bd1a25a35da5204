"""Fabrics by name."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ...schemas import UsageError
from ..fabric import Fabric, FabricBuilder
from ..fabric_toml import load
from .boxes import BOXES
from .scaleout import fat_tree, rail_optimised

__all__ = ["fabric", "load", "preset", "preset_names"]

SCALE_OUT = {"rail-optimised": rail_optimised, "fat-tree": fat_tree}


def ideal(gpus: int) -> Fabric:
    """Every write lands one picosecond after it was posted."""
    return FabricBuilder("ideal", gpus).build()


def star(gpus: int, rate_gb_per_s: float = 50, latency_us: float = 1) -> Fabric:
    """GPU to switch to GPU, each link of this rate and latency; no headers, cut-through."""
    builder = FabricBuilder("star", gpus)
    switch = builder.node("switch")
    wire = round(rate_gb_per_s * 1000), round(latency_us * 1_000_000)
    down = []
    for gpu in range(gpus):
        up, back = builder.duplex(gpu, switch, *wire)
        builder.rule(gpu, 0, gpus, [[up]])
        down.append([back])
    builder.rule(switch, 0, gpus, down, stride=1)
    return builder.build()


def boxes(
    name: str,
    gpus: int,
    box: str = "hgx-h100",
    scale_out: str = "rail-optimised",
    leaf_ports: int = 64,
    sharp: bool = False,
) -> Fabric:
    """Boxes of one kind; with more GPUs than one has, on a scale-out network."""
    if box not in BOXES:
        raise UsageError(f"--fabric {name}: no box {box!r}; boxes are {', '.join(BOXES)}")
    if scale_out not in SCALE_OUT:
        raise UsageError(f"--fabric {name}: no scale_out {scale_out!r}; use {' or '.join(SCALE_OUT)}")
    if leaf_ports < 2 * BOXES[box].nics:
        raise UsageError(
            f"--fabric {name}: leaf_ports {leaf_ports} cannot hold one {box}, which needs {2 * BOXES[box].nics}"
        )
    return SCALE_OUT[scale_out](name, BOXES[box], gpus, leaf_ports, sharp)


_PRESETS: dict[str, Callable[..., Fabric]] = {
    "ideal": ideal,
    "star": star,
    **{name: partial(boxes, name, box=name) for name in BOXES},
    **{name: partial(boxes, name, scale_out=name) for name in SCALE_OUT},
}


def preset_names() -> tuple[str, ...]:
    """Return the names that `preset` knows."""
    return tuple(_PRESETS)


def preset(name: str, gpus: int, **overrides: Any) -> Fabric:
    """Return the named fabric with `gpus` endpoints; see docs/fabrics.md.

    `overrides`: `rate_gb_per_s` and `latency_us` of `star`; `scale_out` (rail-optimised, fat-tree), `leaf_ports`, `sharp` (leaves and spines can reduce)
    and, for presets that are a network, `box`.

    Raises UsageError for an unknown name or override, and for fewer than one GPU.
    """
    if name not in _PRESETS:
        raise UsageError(f"no fabric {name!r}; use {', '.join(_PRESETS)}, or the path of a TOML file")
    if gpus < 1:
        raise UsageError(f"--fabric {name}: {gpus} GPUs; give at least 1")
    known = list(inspect.signature(_PRESETS[name]).parameters)[1:]
    if unknown := sorted(set(overrides) - set(known)):
        allowed = f"it has {', '.join(known)}" if known else "it has none"
        raise UsageError(f"--fabric {name} has no setting {', '.join(unknown)}; {allowed}")
    return _PRESETS[name](gpus, **overrides)


def fabric(name_or_path: str | Path, gpus: int, **overrides: Any) -> Fabric:
    """Return a preset, or what a TOML file describes, which must have at least `gpus` endpoints.

    Raises UsageError for an unknown name; InputError for a file that cannot be used.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        return preset(str(name_or_path), gpus, **overrides)
    found = load(path)
    if overrides or found.gpus < gpus:
        what = f"takes no settings, but {', '.join(overrides)} was given" if overrides else (
            f"has {found.gpus} GPUs, {gpus} are needed; add the missing ones"
        )  # fmt: skip
        raise UsageError(f"--fabric {path}: {what}")
    return found
