"""Pictures of embeddings, for Figures 5 to 7 and Table 5."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trajclust_experiments.rendering.figures import captioned, new_figure
from trajclust_experiments.tables import Records
from trajclust_jax.lazy import lazy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")

Shown = tuple[str, dict[str, Any], dict[str, Any]]  # title, an entry of a record's `maps`, its `map_of`


def map_figure(shown: Sequence[Shown]) -> "Figure":
    """Two rows of panels: W coloured by returns' percentiles, and by true policies; codes are stars, pi a triangle."""
    columns = max(1, len(shown))
    figure = new_figure(2.6 * columns, 5.0)
    for place, (title, points, described) in enumerate(shown):
        embedded, labels = np.array(points["trajectories"]), np.array(described["labels"])
        for row in range(2):
            ax = figure.add_subplot(2, columns, 1 + place + row * columns)
            if row == 0:
                ax.scatter(*embedded.T, s=6, c=described["percentiles"], cmap="viridis")
                ax.set_title(title, fontsize=8)
            else:
                colors = [plotting.PALETTE[label % len(plotting.PALETTE)] for label in labels]
                ax.scatter(*embedded.T, s=6, c=colors)
            ax.scatter(*np.array(points["codes"]).reshape(-1, 2).T, marker="*", s=40, color="red", zorder=3)
            if "policy" in points:
                ax.scatter(*points["policy"], marker="^", s=40, color="black", zorder=4)
            ax.set(xticks=[], yticks=[])
    figure.suptitle("above: by return, below: by true policy; red stars: codes, black triangle: the policy", fontsize=7)
    caption = (
        "Embeddings of trajectories on their two principal axes, coloured by return (above) and by true "
        "policy (below); stars are codes, the triangle is the policy."
    )
    return captioned(figure, caption)


def map_figures(records: Records) -> "dict[str, Figure]":
    """By file stem: of each record the maps of every K."""
    return {
        f"embeddings-{record['cell']['dataset']}": map_figure(
            [(f"K = {each['k']}", each, record["map_of"]) for each in record["maps"]]
        )
        for record in records
    }
