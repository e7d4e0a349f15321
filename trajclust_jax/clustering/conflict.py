"""Conflicts between trajectories: the distance and the total of the PG-Kmeans paper's appendix A.2.

Two trajectories conflict when they take different actions at the same observation, so that no deterministic
stationary policy can have made both (Eq. 9). D(W), the number of conflicting pairs within clusters (Eq. 12), is a
score that needs no labels: 0 means that one policy could have made each cluster.

Host-side and exact, for discrete actions. Time does not enter: an observation met twice is the same observation.
"""

import numpy as np
from numpy.typing import ArrayLike

from trajclust_jax.data import Codebook, Trajectories
from trajclust_jax.data.codebook import encode


def conflict_distance(trajectories: Trajectories, first: int, second: int) -> int:
    """d of Eq. 9: 1 if the two trajectories take different actions at some observation, else 0.

    A trajectory that itself takes two actions at one observation has distance 1 to itself.
    """
    rows, actions = _steps(trajectories)
    lengths = np.asarray(trajectories.lengths)
    one, other = (set(zip(rows[n, : lengths[n]], actions[n, : lengths[n]], strict=True)) for n in (first, second))
    return int(any(s == t and a != b for s, a in one for t, b in other))


def total_conflict(trajectories: Trajectories, assignments: ArrayLike, memory_budget: int = 64 * 2**20) -> int:
    """D(W) of Eq. 12 for assignments `[N]`: the ordered pairs (i, j) within a cluster, i = j among them, with d = 1.

    No N x N matrix exists. For each observation s and action a, a row of bits marks the cluster's trajectories that
    take another action at s; those that conflict with i are the union of the rows of i's steps. Rows are made for as
    many trajectories at a time as `memory_budget` bytes allow, and only for observations at which the cluster's actions
    differ. O(N^2 T / 8) bytes of work at worst, next to none for a clustering without conflicts.
    """
    rows, actions = _steps(trajectories)
    assignments = np.asarray(assignments)
    if assignments.shape != (len(rows),) or not np.issubdtype(assignments.dtype, np.integer):
        raise ValueError(
            f"assignments must be [{len(rows)}] integers, not {assignments.dtype}{list(assignments.shape)}"
        )
    mask = np.asarray(trajectories.mask)
    return sum(
        _within(rows[members], actions[members], mask[members], trajectories.num_actions, memory_budget)
        for members in (assignments == k for k in np.unique(assignments))
    )


def conflict_rate(trajectories: Trajectories, assignments: ArrayLike) -> float:
    """D(W) as a share of the ordered pairs within clusters: 0 without conflicts, 1 if every pair conflicts."""
    return total_conflict(trajectories, assignments) / int((np.bincount(np.asarray(assignments)) ** 2).sum())


def _steps(trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray]:
    """Observation numbers and actions `[N, T]` of all steps.

    Raises:
        ValueError: continuous actions.
    """
    if not trajectories.discrete:
        raise ValueError("conflicts are defined for discrete actions; these are continuous")
    if not isinstance(trajectories.observations, Codebook):
        trajectories = encode(trajectories)
    return np.asarray(trajectories.observations.ids), np.asarray(trajectories.actions)


def _within(rows: np.ndarray, actions: np.ndarray, mask: np.ndarray, num_actions: int, memory_budget: int) -> int:
    """Conflicting ordered pairs among these trajectories `[n, T]`."""
    taken = np.zeros((rows[mask].max() + 1, num_actions), bool)
    taken[rows[mask], actions[mask]] = True
    contested = taken.sum(1) > 1
    who, when = np.nonzero(mask & contested[np.where(mask, rows, 0)])
    if not len(who):
        return 0
    number = np.cumsum(contested) - 1
    num_cells = int(contested.sum()) * num_actions
    cell = number[rows[who, when]] * num_actions + actions[who, when]
    who, cell = np.divmod(np.unique(who * num_cells + cell), num_cells)  # each (trajectory, observation, action) once
    first = np.flatnonzero(np.diff(who, prepend=-1))  # of each trajectory that meets a contested observation
    count = np.diff(first, append=len(who))
    first, count = first[np.argsort(-count)], -np.sort(-count)  # the longest first

    total, width = 0, max(8, memory_budget // num_cells)
    for left in range(0, len(rows), width):  # pairs (any i, j in a block of columns)
        block = slice(*np.searchsorted(who, (left, left + width)))
        takes = np.zeros((num_cells, min(width, len(rows) - left)), bool)
        takes[cell[block], who[block] - left] = True
        takes = takes.reshape(-1, num_actions, takes.shape[1])
        takes_another = takes.sum(1, keepdims=True, dtype=np.int16) > takes
        bits = np.packbits(takes_another.reshape(num_cells, -1), axis=1)
        size = max(1, memory_budget // bits.shape[1])
        for top in range(0, len(first), size):
            begin, steps = first[top : top + size], count[top : top + size]
            union = bits[cell[begin]]
            for t in range(1, steps[0]):
                some = np.searchsorted(-steps, -t)  # trajectories with more than t steps
                union[:some] |= bits[cell[begin[:some] + t]]
            total += int(np.bitwise_count(union).sum())
    return total
