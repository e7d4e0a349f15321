"""What a record keeps of trajectories, to draw them where they happened."""

import itertools
from typing import Any

import numpy as np

from trajclust_jax.data import Codebook, Dataset, Trajectories, dense
from trajclust_jax.lazy import lazy
from trajclust_jax.metrics import match_clusters

plotting = lazy("trajclust_envs.plotting")

SAMPLE = 40  # trajectories of each group that a record keeps
POINTS = 128  # of each at most so many places, as far apart in time as each other


def positions(trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray] | None:
    """Places `[N, T, 2]` at each step and `[N, 2]` after the last one: cells (row, column), or points (x, y).

    None where a picture would show nothing: observations are neither points of a plane nor maps that trajectories
    share.
    """
    observations, final = trajectories.observations, trajectories.final_observations
    if in_the_plane(trajectories):
        return np.asarray(dense(observations)), np.asarray(dense(final))
    if not isinstance(observations, Codebook) or not _are_maps(np.asarray(observations.table)):
        return None
    cells = plotting.cells_from_observations(observations.table)
    return cells[np.asarray(observations.ids)], cells[np.asarray(final.ids)]


def in_the_plane(trajectories: Trajectories) -> bool:
    """Whether observations are points (x, y)."""
    return trajectories.observation_shape == (2,)


def _are_maps(table: np.ndarray) -> bool:
    """Whether observations are grid-world maps `[U, height, width, >= 3]`: walls, one agent, goal."""
    if table.ndim != 4 or table.shape[3] < 3:
        return False
    # The first one alone tells most pictures apart, which are many and large.
    return all(np.isin(maps, (0, 1)).all() and (maps[..., 1].sum((1, 2)) == 1).all() for maps in (table[:1], table))


def sample(dataset: Dataset, groups: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Up to SAMPLE paths of each group, the first ones in the dataset's order; empty where there is no picture, and for
    maps of more than 10 rows or columns.

    A group has the colour of the label that it is matched to: its panel looks like that policy's beside it.
    """
    trajectories = dataset.trajectories
    places = positions(trajectories)
    if places is None:
        return {}
    continuous = in_the_plane(trajectories)
    if not continuous and max(trajectories.observation_shape[:2]) > 10:
        return {}
    if not continuous:  # two digits: row, column
        places = [place @ [10, 1] for place in places]
    steps, final = places
    lengths, paths, members = np.asarray(trajectories.lengths), [], []
    for group in range(len(names)):
        for n in np.flatnonzero(groups == group)[:SAMPLE]:
            every = -(-int(lengths[n]) // POINTS)
            path = np.concatenate([steps[n, : lengths[n] : every], final[n][None]])
            paths.append(path.astype(float).round(2).tolist() if continuous else path.tolist())
            members.append(group)
    counts = np.bincount(groups, minlength=len(names))
    colors = matched_colors(dataset.labels, groups, len(names))
    described = {"names": names, "counts": counts.tolist(), "colors": colors, "groups": members, "paths": paths}
    return described | {"continuous": True} if continuous else described


def matched_colors(labels: np.ndarray, groups: np.ndarray, num_groups: int) -> list[int]:
    """`[G]`: the label matched to each group (Hungarian algorithm); groups without one go on after the labels."""
    table = np.zeros((int(labels.max()) + 1, num_groups), np.int64)
    np.add.at(table, (labels, groups), 1)
    of_group = {int(group): label for label, group in enumerate(match_clusters(table)) if group >= 0}
    others = itertools.count(len(table))
    return [of_group[group] if group in of_group else next(others) for group in range(num_groups)]
