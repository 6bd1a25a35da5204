"""Fabrics of the machines that people have, by name; one that nobody named comes from a TOML file."""

from typing import TYPE_CHECKING

from ...schemas.lazy import attach

if TYPE_CHECKING:
    from ..routes import check_routes
    from .catalogue import fabric, load, preset, preset_names

__all__ = ["check_routes", "fabric", "load", "preset", "preset_names"]

__getattr__ = attach(__name__, catalogue="fabric load preset preset_names check_routes")
