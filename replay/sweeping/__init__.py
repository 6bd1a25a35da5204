"""Sweeps: a grid over arguments of `replay`, each point a run of its own, all results in one table."""

from typing import TYPE_CHECKING

from ...schemas.lazy import attach

if TYPE_CHECKING:
    from .study import Study, read_study
    from .sweep import Sweep, sweep

__all__ = ["Study", "Sweep", "read_study", "sweep"]

__getattr__ = attach(__name__, study="Study read_study", sweep="Sweep sweep")
