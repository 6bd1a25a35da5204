"""Fabrics by name."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ...schemas import UsageError
from ..fabric import Fabric, FabricBuilder
from ..fabric_toml import load
from ..routes import check_routes
from .boxes import BOXES
from .clos import three_level
from .dragonfly import dragonfly
from .scaleout import fat_tree, rail_optimised
from .torus import torus

__all__ = ["check_routes", "fabric", "load", "preset", "preset_names"]

SCALE_OUT: dict[str, Callable[..., Fabric]] = {
    "rail-optimised": rail_optimised,
    "fat-tree": fat_tree,
    "fat-tree-3": three_level,
    "dragonfly": dragonfly,
    "torus-2d": partial(torus, dimensions=2),
    "torus-3d": partial(torus, dimensions=3),
}
_BARE = ("torus-2d", "torus-3d")  # networks of GPUs that have a router each, unless `box` names another


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
    box_gpus: int = 0,
    nics: int = 0,
    nic_gb_per_s: float = 0.0,
    nic_latency_us: float = 0.0,
    **settings: Any,
) -> Fabric:
    """Boxes of one kind; with more GPUs than one has, on a scale-out network with its settings.

    `box_gpus`: how many GPUs of a box are there; `nics`, `nic_gb_per_s`, `nic_latency_us`: other NICs; 0: as usual.
    """
    if box not in BOXES:
        raise UsageError(f"--fabric {name}: no box {box!r}; boxes are {', '.join(BOXES)}")
    if scale_out not in SCALE_OUT:
        raise UsageError(f"--fabric {name}: no scale_out {scale_out!r}; use {' or '.join(SCALE_OUT)}")
    if not BOXES[box].nics and scale_out in ("rail-optimised", "fat-tree"):
        raise UsageError(
            f"--fabric {name}: box {box} has no NICs; set scale_out to fat-tree-3, dragonfly or a torus"
        )
    kind = BOXES[box]
    if box_gpus or nics or nic_gb_per_s or nic_latency_us:
        kind = kind.refitted(name, box_gpus, nics, nic_gb_per_s, nic_latency_us)
    return SCALE_OUT[scale_out](name, kind, gpus, **settings)


_PRESETS: dict[str, Callable[..., Fabric]] = {
    "ideal": ideal,
    "star": star,
    **{name: partial(boxes, name, box=name) for name in BOXES if BOXES[name].nics},
    **{
        name: partial(boxes, name, scale_out=name, box="gpu" if name in _BARE else "hgx-h100")
        for name in SCALE_OUT
    },
}


def preset_names() -> tuple[str, ...]:
    """Return the names that `preset` knows."""
    return tuple(_PRESETS)


def preset(name: str, gpus: int, **settings: Any) -> Fabric:
    """Return the named fabric with `gpus` GPUs; see docs/fabrics.md for what it is and for its settings.

    Raises UsageError for an unknown name, an unknown setting or one of a wrong type, and for fewer than one GPU.
    """
    if name not in _PRESETS:
        raise UsageError(f"no fabric {name!r}; use {', '.join(_PRESETS)}, or the path of a TOML file")
    if gpus < 1:
        raise UsageError(f"--fabric {name}: {gpus} GPUs; give at least 1")
    known = _settings(name, settings)
    if unknown := sorted(set(settings) - set(known)):
        allowed = f"it has {', '.join(known)}" if known else "it has none"
        raise UsageError(f"--fabric {name} has no setting {', '.join(unknown)}; {allowed}")
    return _PRESETS[name](
        gpus, **{key: _typed(name, key, value, known[key]) for key, value in settings.items()}
    )


def _settings(name: str, given: dict[str, Any]) -> dict[str, type]:
    """Return the settings of a preset with their types; those of its scale-out network included."""
    make = _PRESETS[name]
    if not (isinstance(make, partial) and make.func is boxes):
        return {p.name: p.annotation for p in list(inspect.signature(make).parameters.values())[1:]}
    network = SCALE_OUT.get(
        given.get("scale_out", make.keywords.get("scale_out", "rail-optimised")), fat_tree
    )
    parameters = list(inspect.signature(network).parameters.values())[3:]
    of_network = {p.name: p.annotation for p in parameters if p.name != "dimensions"}
    of_boxes = {"box_gpus": int, "nics": int, "nic_gb_per_s": float, "nic_latency_us": float}
    return {"box": str, "scale_out": str} | of_boxes | of_network


def _typed(name: str, key: str, value: Any, kind: type) -> Any:
    """Return a setting's value as its type; `true` and `false` stand for themselves."""
    if kind is bool and str(value).lower() in ("true", "false", "0", "1"):
        return str(value).lower() in ("true", "1")
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    raise UsageError(f"--fabric {name}: {key} {value!r} is no {kind.__name__}; give one")


def fabric(name_or_path: str | Path, gpus: int, **overrides: Any) -> Fabric:
    """Return a preset, or what a TOML file describes, which must have at least `gpus` endpoints.

    Raises UsageError for an unknown name; InputError for a file that cannot be used.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        return preset(str(name_or_path), gpus, **overrides)
    found = load(path, gpus)
    if overrides or found.gpus < gpus:
        what = f"takes no settings, but {', '.join(overrides)} was given" if overrides else (
            f"has {found.gpus} GPUs, {gpus} are needed; add the missing ones"
        )  # fmt: skip
        raise UsageError(f"--fabric {path}: {what}")
    return found
