"""Pictures of records: clusters counted from 0, in the colours of the policies that they match."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from trajclust_envs.plotting import PALETTE
from trajclust_experiments.cells.sample import matched_colors, sample
from trajclust_experiments.rendering.scenes import sample_figure
from trajclust_jax.data import make


@pytest.mark.parametrize(
    ("groups", "num_groups", "colors"),
    [
        ([0, 0, 1, 1, 2, 2], 3, [0, 1, 2]),
        ([2, 2, 0, 0, 1, 1], 3, [1, 2, 0]),
        ([2, 2, 0, 0, 0, 1], 4, [1, 2, 0, 3]),  # an empty cluster goes on after the labels
        ([1, 1, 1, 1, 1, 0], 2, [2, 0]),  # fewer clusters than labels: one to one, as many as can be
    ],
)
def test_colours_are_those_of_the_matched_labels(groups, num_groups, colors):
    found = matched_colors(np.array([0, 0, 1, 1, 2, 2]), np.array(groups), num_groups)
    assert sorted(set(found)) == sorted(found)
    assert found == colors


def _panels(figure):
    """Title and colour of every panel, from its lines."""
    colour = lambda ax: to_hex(next(line for line in ax.lines if line.get_markersize() == 2.4).get_color()).upper()
    return [(ax.get_title(), colour(ax)) for ax in figure.axes]


def test_a_records_panels():
    dataset = make("diagonal", 2, 0)
    swapped = np.array([1, 0, 2, 3, 4])[dataset.labels]
    kept = sample(dataset, swapped, [f"cluster {k}" for k in range(5)])
    titles = [f"cluster {k} (n = 2)" for k in range(5)]
    order = [PALETTE[k] for k in (1, 0, 2, 3, 4)]
    assert _panels(sample_figure(kept, "diagonal")) == list(zip(titles, order, strict=True))
    older = {name: value for name, value in kept.items() if name != "colors"}  # as the first records are
    older["names"] = [f"cluster {k + 1}" for k in range(5)]
    assert _panels(sample_figure(older, "diagonal")) == list(zip(titles, PALETTE, strict=False))
