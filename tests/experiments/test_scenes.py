"""Pictures of records: clusters counted from 0, in the colours of the policies that they match."""

import dataclasses

import numpy as np
import pytest
from matplotlib.colors import to_hex

from trajclust_envs.plotting import PALETTE
from trajclust_experiments.cells.sample import matched_colors, sample
from trajclust_experiments.commands.clusters import embedding_figure, examples, overview
from trajclust_experiments.rendering.overview import curves_figure
from trajclust_experiments.rendering.scenes import clusters_figure, sample_figure
from trajclust_jax.clustering.types import lone
from trajclust_jax.data import compress, make
from trajclust_jax.data.types import Trajectories


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


def _trajectories(observations):
    """Of observations `[N, T + 1, ...]`, whatever the actions; the first has one step, the others all."""
    n, t = observations.shape[0], observations.shape[1] - 1
    lengths = np.where(np.arange(n) == 0, 1, t).astype(np.int32)
    return Trajectories(
        observations=observations[:, :-1],
        actions=np.zeros((n, t), np.int32),
        rewards=np.ones((n, t), np.float32),
        lengths=lengths,
        terminated=np.ones(n, bool),
        final_observations=observations[np.arange(n), lengths],
        num_actions=2,
    )


def _clustering(assignments, num_clusters, **fields):
    assignments = np.asarray(assignments, np.int32)
    posterior = np.eye(num_clusters, dtype=np.float32)[assignments]
    return lone(assignments, posterior, np.float32(-1), None, **fields)


WALK = np.random.default_rng(0).integers(0, 3, (4, 6, 2)).astype(np.float32)


def test_users_trajectories_are_drawn_in_any_plane_and_on_any_grid():
    """An empty cluster has no panel, the others keep their numbers and colours."""
    plane = _trajectories(WALK)
    maps = np.zeros((4, 6, 3, 5, 3), np.float32)
    np.put_along_axis(maps[..., 1].reshape(4, 6, 15), WALK[..., :1].astype(int) * 5 + 1, 1, -1)
    grid = _trajectories(maps)
    for trajectories in (plane, compress(plane), compress(grid)):
        figure = clusters_figure(trajectories, np.array([0, 2, 2, 2]))
        assert _panels(figure) == [("cluster 0 (n = 1)", PALETTE[0]), ("cluster 2 (n = 3)", PALETTE[2])]
    assert figure.get_supxlabel() == ""
    assert clusters_figure(plane, np.zeros(4, int)).get_supxlabel() == "first observation"
    assert clusters_figure(_trajectories(np.tile(WALK, 2)), np.zeros(4, int)) is None


def test_examples_are_nearest_to_the_means_of_profiles():
    trajectories = _trajectories(WALK)
    log_likelihoods = np.array([[-1.0, -9.0], [-5.0, -45.0], [-5.5, -44.0], [0.0, -5.0]], np.float32)
    assert examples(trajectories, _clustering([0, 0, 0, 1], 3, log_likelihoods=log_likelihoods)) == [0, 3, None]
    latents = np.array([[0.0, 0.0], [4.0, 0.0], [1.0, 0.5], [9.0, 9.0]], np.float32)
    assert examples(trajectories, _clustering([0, 0, 0, 1], 2, latents=latents)) == [2, 3]
    assert examples(trajectories, _clustering([0, 1, 1, 1], 2)) == [0, 1]
    latents[2] = np.nan
    assert examples(trajectories, _clustering([0, 0, 0, 1], 2, latents=latents)) == [0, 3]
    assert embedding_figure(trajectories, _clustering([0, 0, 0, 1], 2, latents=latents)) is None


def _check_axes(figure, num_clusters, panels):
    assert len(figure.axes) == panels
    assert len(figure.legends[0].get_texts()) == num_clusters
    for ax in figure.axes:
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        assert ax.has_data()


@pytest.mark.parametrize(
    ("num_clusters", "of", "axes"),
    [
        (1, "log_likelihoods", ("under cluster 0's policy", "return")),
        (2, "log_likelihoods", ("under cluster 0's policy", "under cluster 1's policy")),
        (4, "latents", ("first principal axis", "second principal axis")),
        (4, None, ("return", "length")),
    ],
)
def test_an_embedding_names_its_axes_and_clusters(num_clusters, of, axes):
    fields = {} if of is None else {of: WALK[:, :num_clusters, 0]}
    figure = embedding_figure(_trajectories(WALK), _clustering(np.arange(4) % num_clusters, num_clusters, **fields))
    _check_axes(figure, num_clusters, 1)
    assert all(map(str.startswith, (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()), axes))


def test_an_overview_has_no_empty_panel():
    """One point of a curve is a dot; what is not finite has no panel."""
    trajectories, clustering = _trajectories(WALK), _clustering([0, 1, 1, 1], 3)
    history = [{"objective": np.array([[value, -2.0]])} for value in (-1.0, np.nan, -1.0)]
    figure = overview(trajectories, clustering, history)
    _check_axes(figure, 3, 4)
    assert [list(line.get_markevery()) for line in figure.axes[1].lines] == [[], [0, 2]]
    lost = dataclasses.replace(clustering, posterior=np.full((4, 3), np.nan, np.float32))
    _check_axes(overview(trajectories, lost, [{"objective": np.array([[np.nan]])}]), 3, 2)


def test_a_records_curves():
    """A panel a metric that has numbers; a line a seed and restart, and the mean of those that have not diverged."""
    history = [{"phase": "em", "iteration": n, "objective": [[-n, 2.0 * n], [None, n]], "changed": [0]} for n in (1, 2)]
    history += [{"phase": "polish", "iteration": 0, "objective": [[3, 4], [5, 8]], "lost/loss": [[None], [None]]}]
    figure = curves_figure({"history": history})
    (ax,) = figure.axes
    assert ax.get_title() == "objective"
    em, polish = [[line.get_xydata().tolist() for line in ax.lines if len(line.get_xdata()) == n] for n in (2, 1)]
    assert em[:2] == [[[0, -1], [1, -2]], [[0, 2], [1, 4]]]
    assert em[-1] == [[0, 2 / 3], [1, 4 / 3]]
    assert [line[0] for line in polish] == [[2, 3], [2, 4], [2, 5], [2, 8], [2, 5]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["em", "polish"]
    entry = {"phase": "train", "iteration": 0, "return": [[100.0, 300.0]], "actor/loss": [2.0], "actor/weight": [1.0]}
    figure = curves_figure({"history": [entry]})
    assert {ax.get_title(): ax.lines[0].get_ydata().tolist() for ax in figure.axes} == {
        "return": [200],
        "actor/loss": [2],
    }
    assert [ax.get_title() for ax in curves_figure({"history": [entry | {"score": [0.5]}]}).axes] == [
        "score",
        "actor/loss",
    ]
    assert curves_figure({}) is curves_figure({"history": [{"phase": "a", "iteration": 0, "changed": [1]}]}) is None
