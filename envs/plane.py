"""What is drawn of an environment in the plane beside its trajectories."""

from typing import NamedTuple

import numpy as np


class Plane(NamedTuple):
    """A square, and in it what there is of a goal, paths to follow, a shaded box and walls."""

    low: float  # of both coordinates, as `high`
    high: float
    ticks: np.ndarray  # where lines are drawn
    goal: np.ndarray | None  # [2], (x, y)
    paths: tuple[np.ndarray, ...] = ()  # [C, 2] each: corners
    box: tuple[tuple[float, float], tuple[float, float]] | None = None  # its lower left and upper right corner
    walls: tuple[np.ndarray, ...] = ()  # [2, 2] each: both ends
