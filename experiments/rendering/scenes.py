"""Pictures of trajectories where they happened."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from trajclust_experiments.cells.sample import in_the_plane, positions
from trajclust_jax.data import REGISTRY, Trajectories
from trajclust_jax.lazy import lazy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")
envs = lazy("trajclust_envs")


def sample_figure(sample: dict[str, Any], dataset: str) -> "Figure":
    """A record's sample in the environment of its registered dataset, one panel a found cluster (or true policy)."""
    paths = np.zeros((len(sample["paths"]), max(map(len, sample["paths"])), 2))
    for row, path in zip(paths, sample["paths"], strict=True):
        row[: len(path)] = path if sample.get("continuous") else np.stack(np.divmod(path, 10), axis=-1)
    lengths, groups = np.array([len(path) for path in sample["paths"]]), np.array(sample["groups"])
    names = sample["names"]
    if names[0] == "cluster 1":  # the first records count clusters from 1, all else from 0
        names = [f"cluster {k}" for k in range(len(names))]
    shared = {"names": names, "counts": sample["counts"], "colors": sample.get("colors")}
    env = envs.make(REGISTRY[dataset].environment)
    if sample.get("continuous"):
        return plotting.draw_paths(paths, lengths, groups, plane=env.plane, **shared)
    params = env.default_params
    places = getattr(params, "ball_places", getattr(params, "specials", None))
    floor = {"walls": params.walls, "goal": params.goal, "places": places}
    return plotting.draw_trajectories(paths.astype(int), lengths, groups, **floor, **shared)


def clusters_figure(trajectories: Trajectories, assignments: ArrayLike) -> "Figure | None":
    """A user's trajectories, one panel a cluster that has any; None where `positions` has none."""
    places = positions(trajectories)
    if places is None:
        return None
    steps, final = places
    used, groups = np.unique(assignments, return_inverse=True)
    shared = {"names": [f"cluster {k}" for k in used], "colors": used.tolist()}
    lengths = np.asarray(trajectories.lengths)
    if in_the_plane(trajectories):
        figure = plotting.draw_paths(steps, lengths, groups, final_positions=final, **shared)
        figure.supxlabel("first observation", fontsize=8)
        figure.supylabel("second observation", fontsize=8)
    else:
        first = np.asarray(trajectories.observations.table)[0]
        goal = np.argwhere(first[..., 2])
        floor = {"walls": first[..., 0].astype(bool), "goal": goal[0] if len(goal) else (-1, -1)}
        figure = plotting.draw_trajectories(steps, lengths, groups, final_cells=final, **floor, **shared)
    figure.suptitle(f"up to {plotting.MOST_DRAWN} trajectories of each; a dot where one starts", fontsize=8)
    return figure
