"""Pictures are made without a display and show what they should."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from trajclust_envs import ENVIRONMENTS, Takeball
from trajclust_envs.plane import Plane
from trajclust_envs.plotting import PALETTE, cells_from_observations, draw_paths, draw_state, draw_trajectories

ENV = Takeball()
PARAMS = ENV.default_params


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def has_color(image, color):
    return (np.abs(image - 255 * np.array(to_rgb(color))).max(-1) < 12).any()


@pytest.fixture(scope="module")
def episodes():
    """Cells, lengths, final cells and groups: 6 walks right and down, 6 down and right, of 12 to 8 steps."""
    right_first = [(1, column) for column in range(1, 7)] + [(row, 7) for row in range(1, 7)]
    cells = np.array([right_first] * 6 + [[(column, row) for row, column in right_first]] * 6)
    skipped = np.tile(np.arange(6) % 5, 2)  # the first steps, in which case padding follows
    cells = np.stack([np.roll(path, -skip, axis=0) for path, skip in zip(cells, skipped, strict=True)])
    return cells, 12 - skipped, np.full((12, 2), 7), np.repeat([0, 1], 6)


def picture(episodes, **changes):
    cells, lengths, final_cells, groups = episodes
    options = {"walls": PARAMS.walls, "goal": PARAMS.goal, "names": ["one", "two"], "final_cells": final_cells}
    return draw_trajectories(cells, lengths, groups, **{**options, **changes})


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_states_of_all_environments_are_drawn(name):
    env = ENVIRONMENTS[name]()
    _, state = env.reset(jax.random.key(0))
    figure, ax = env.render(state, env.default_params)
    image = pixels(figure)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    assert has_color(image, PALETTE[0])  # the agent
    assert has_color(image, "#F0E442") == (name != "Gates-v0")  # the goal, which a corridor has not
    numbers = [text.get_text() for text in ax.texts]
    assert numbers == [str(number + 1) for number in range(getattr(env, "num_object_maps", 0))]


def test_a_state_shows_where_things_are():
    _, state = ENV.reset(jax.random.key(0))
    base = pixels(draw_state(ENV, state, PARAMS)[0])
    changes = {
        "agent": (state.replace(position=jnp.array([4, 4])), PARAMS),
        "ball": (state.replace(balls=state.balls.at[2].set(False)), PARAMS),
        "goal": (state, PARAMS.replace(goal=jnp.array([4, 6]))),
        "wall": (state, PARAMS.replace(walls=PARAMS.walls.at[4, 5].set(True))),
    }
    for name, (changed_state, params) in changes.items():
        assert (pixels(draw_state(ENV, changed_state, params)[0]) != base).any(), name
    np.testing.assert_array_equal(pixels(draw_state(ENV, state, PARAMS)[0]), base)


def test_cells_are_read_off_observations():
    ids = np.arange(81)
    table = np.ones((81, 9, 9, 7), np.uint8)
    table[..., 1] = ids.reshape(9, 9) == ids[:, None, None]
    np.testing.assert_array_equal(cells_from_observations(table), np.stack([ids // 9, ids % 9], -1))
    obs, state = ENV.reset(jax.random.key(0))
    np.testing.assert_array_equal(cells_from_observations(obs[None])[0], state.position)


def test_a_panel_for_each_group(episodes):
    figure = picture(episodes, places=PARAMS.ball_places)
    assert isinstance(figure, Figure)
    assert [ax.get_title() for ax in figure.axes] == ["one (n = 6)", "two (n = 6)"]
    image = pixels(figure)
    left, right = np.array_split(image, 2, axis=1)
    assert (has_color(left, PALETTE[0]), has_color(left, PALETTE[1])) == (True, False)
    assert (has_color(right, PALETTE[0]), has_color(right, PALETTE[1])) == (False, True)
    np.testing.assert_array_equal(image, pixels(picture(episodes, places=PARAMS.ball_places)))  # fixed offsets


def test_padding_and_left_out_trajectories_are_not_drawn(episodes):
    cells, lengths, final_cells, groups = episodes
    base = pixels(picture(episodes))
    padded = np.where((np.arange(cells.shape[1]) < lengths[:, None])[..., None], cells, 4)
    np.testing.assert_array_equal(pixels(picture([padded, lengths, final_cells, groups])), base)
    fewer = picture(episodes, max_per_group=2)
    assert fewer.axes[0].get_title() == "one (n = 6)"
    assert len(fewer.axes[0].lines) == 1 + 2  # the goal and two starts
    left_out = picture([cells, lengths, final_cells, np.where(groups == 0, -1, 1)])
    assert left_out.axes[0].get_title() == "one (n = 0)"


def test_groups_share_given_axes(episodes):
    ax = Figure().add_subplot()
    figure = picture(episodes, ax=ax)
    assert figure is ax.figure
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one (n = 6)", "two (n = 6)"]


@pytest.fixture(scope="module")
def flights():
    """Positions, lengths and groups: 3 paths to the right, then 2 up."""
    way = np.linspace(-1, 1, 9)
    right, up = np.stack([way, 0 * way], -1), np.stack([0 * way, way], -1)
    return (
        np.stack([right, right + 0.1, right - 0.1, up, up + 0.1]),
        np.array([9, 8, 7, 9, 1]),
        np.array([0] * 3 + [1] * 2),
    )


def test_paths_in_the_plane(flights):
    positions, lengths, groups = flights
    plane = Plane(-1.7, 1.5, np.arange(-1.5, 1.5), np.array([1, 1]))
    options = {"plane": plane, "names": ["right", "up"]}
    figure = draw_paths(positions, lengths, groups, **options)
    assert [ax.get_title() for ax in figure.axes] == ["right (n = 3)", "up (n = 2)"]
    image = pixels(figure)
    left, right = np.array_split(image, 2, axis=1)
    assert (has_color(left, PALETTE[0]), has_color(left, PALETTE[1])) == (True, False)
    assert (has_color(right, PALETTE[0]), has_color(right, PALETTE[1])) == (False, True)
    padded = np.where((np.arange(9) < lengths[:, None])[..., None], positions, np.nan)
    np.testing.assert_array_equal(pixels(draw_paths(padded, lengths, groups, **options)), image)
    marked = plane._replace(paths=(np.array([[0, 0], [0, 1], [1, 1]]),))
    with_paths = draw_paths(positions, lengths, groups, **{**options, "plane": marked})
    assert (pixels(with_paths) != image).any()
    assert len(with_paths.axes[0].lines) == 1 + 1 + 3  # path, goal, starts
    shaded = draw_paths(positions, lengths, groups, **{**options, "plane": plane._replace(box=((0, 0), (1, 1)))})
    assert (pixels(shaded) != image).any()
    longer = draw_paths(positions, lengths, groups, final_positions=np.full((5, 2), -1.5), **options)
    assert (pixels(longer) != image).any()
    ax = Figure().add_subplot()
    draw_paths(positions, lengths, groups, max_per_group=1, counts=[7, 8], ax=ax, **options)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["right (n = 7)", "up (n = 8)"]
    assert len(ax.lines) == 1 + 2


def test_edges():
    stay = np.full((2, 3, 2), 2)
    options = {"walls": PARAMS.walls, "goal": PARAMS.goal}
    pixels(draw_trajectories(stay, [3, 1], [0, 8], names=[str(i) for i in range(9)], **options))


def test_files_are_written_and_the_global_state_is_left_alone(episodes, tmp_path):
    for ending in ("png", "pdf"):
        picture(episodes).savefig(tmp_path / f"picture.{ending}")
        assert (tmp_path / f"picture.{ending}").stat().st_size > 5000


WITHOUT = """
import sys
package = sys.modules["trajclust_envs"] = type(sys)("trajclust_envs")
package.__path__ = ["envs"]
import trajclust_envs.plotting
assert "matplotlib.pyplot" not in sys.modules
from trajclust_envs._gymnax import gymnax
assert not {"pandas", "scipy.stats", "seaborn"} & set(sys.modules)
assert len(gymnax.environments.misc.pong.sns.color_palette("cubehelix", 3)) == 3  # and where it is used, it is there
assert "seaborn.palettes" in sys.modules
"""


def test_plotting_does_not_import_pyplot_nor_gymnax_seaborn():
    subprocess.run([sys.executable, "-c", WITHOUT], check=True, cwd=__file__.rsplit("/tests/", 1)[0])
