"""Published measurements: what was measured on which machine, what the replay predicts, and how far off it is."""

from typing import TYPE_CHECKING

from ...schemas.lazy import attach

if TYPE_CHECKING:
    from .case import Case, case_of
    from .measurements import Measurement, read_measurements
    from .predict import Prediction, predict
    from .score import Score, score

__all__ = [
    "Case",
    "Measurement",
    "Prediction",
    "Score",
    "case_of",
    "predict",
    "read_measurements",
    "score",
]

__getattr__ = attach(
    __name__,
    case="Case case_of",
    measurements="Measurement read_measurements",
    predict="Prediction predict",
    score="Score score",
)
