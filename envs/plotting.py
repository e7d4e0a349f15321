"""Pictures of the environments and of trajectories in them.

Figures are made with matplotlib's object API alone: no global state, no display, safe in threads.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from trajclust_envs.plane import Plane

# Okabe and Ito's palette, told apart under all common forms of colour blindness; yellow is too pale for lines.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_WALL, _GRID, _INK = "#8C8C8C", "#E0E0E0", "#303030"
_AGENT_PLANE = 1
MOST_DRAWN = 40  # trajectories of a group


def draw_state(env: Any, state: Any, params: Any) -> tuple[Figure, Axes]:
    """Walls, goal, agent and the environment's numbered objects; those that are gone are hollow."""
    figure = _figure(3.0, 3.0)
    ax = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    _draw_grid(ax, np.asarray(env.walls(state, params)), np.asarray(params.goal), size=21)
    _draw_places(ax, np.asarray(env.places(state, params)), np.asarray(env.present(state)), size=21)
    row, column = np.asarray(state.position)
    ax.plot(column, row, "o", color=PALETTE[0], markersize=11, markeredgecolor="white", zorder=5)
    return figure, ax


def draw_position(position: ArrayLike, plane: Plane) -> tuple[Figure, Axes]:
    """A ball in the plane at `position [2]`."""
    figure = _figure(3.0, 3.0)
    ax = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    _draw_plane(ax, plane, size=21)
    ax.plot(*np.asarray(position), "o", color=PALETTE[0], markersize=11, markeredgecolor="white", zorder=7)
    return figure, ax


def draw_trajectories(
    cells: ArrayLike,
    lengths: ArrayLike,
    groups: ArrayLike,
    *,
    walls: ArrayLike,
    goal: ArrayLike,
    names: Sequence[str],
    places: ArrayLike | None = None,
    final_cells: ArrayLike | None = None,
    max_per_group: int = MOST_DRAWN,
    columns: int = 5,
    counts: Sequence[int] | None = None,
    colors: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Trajectories in the grid, coloured by group (a policy or a cluster): a panel a group, or all in `ax`.

    Each line is moved a little, at random and the same way every time, so that lines that overlap stay
    visible; it starts at a dot, deepens with time, and its arrow heads point the way.

    Args:
        cells: `[N, T, 2]` int, (row, column) at each step.
        lengths: `[N]`, the steps that are real.
        groups: `[N]` int, rows of `names`; trajectories of a negative group are left out.
        walls: `[9, 9]` bool.
        goal: `[2]`, (row, column).
        names: a group's title; its number of trajectories is added.
        places: `[P, 2]`, numbered places to mark, such as balls.
        final_cells: `[N, 2]`, the cell after the last step, where the lines should go on to it.
        max_per_group: the first this many of each group are drawn.
        columns: panels side by side at most.
        counts: `[G]`, the groups' sizes, where the trajectories given are a sample of them.
        colors: `[G]`, the groups' places in PALETTE, which goes round; in order by default.
        ax: draw every group in these axes, with a legend.
    """
    walls, goal = np.asarray(walls), np.asarray(goal)
    places = () if places is None else np.asarray(places)
    paths = _paths(cells, lengths, final_cells)
    offsets = np.random.default_rng(0).uniform(-0.3, 0.3, (len(paths), 2))
    paths = [path + offset for path, offset in zip(paths, offsets, strict=True)]

    def background(ax, size):
        _draw_grid(ax, walls, goal, size)
        _draw_places(ax, places, np.ones(len(places), bool), size)

    return _draw_groups(paths, groups, names, max_per_group, columns, counts, colors, ax, background, _draw_steps)


def draw_paths(
    positions: ArrayLike,
    lengths: ArrayLike,
    groups: ArrayLike,
    *,
    names: Sequence[str],
    plane: Plane | None = None,
    final_positions: ArrayLike | None = None,
    max_per_group: int = MOST_DRAWN,
    columns: int = 5,
    counts: Sequence[int] | None = None,
    colors: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Trajectories in the plane, coloured by group (a policy or a cluster): a panel a group, or all in `ax`.

    Each line starts at a dot and deepens with time.

    Args:
        positions: `[N, T, 2]`, (x, y) at each step.
        lengths, groups, names, max_per_group, columns, counts, colors, ax: as for `draw_trajectories`.
        plane: where they happened; without it the plane is shown as far as the trajectories go.
        final_positions: `[N, 2]`, after the last step.
    """
    paths = _paths(positions, lengths, final_positions)
    if plane is None:
        points = np.concatenate(paths)
        background = lambda ax, size: ax.set(xlim=_span(points[:, 0]), ylim=_span(points[:, 1]))
    else:
        background = lambda ax, size: _draw_plane(ax, plane, size)
    return _draw_groups(paths, groups, names, max_per_group, columns, counts, colors, ax, background, _draw_curves)


def cells_from_observations(table: ArrayLike) -> np.ndarray:
    """`[U, 2]` int: the agent's (row, column) in grid-world observations `[U, 9, 9, C]`."""
    agent = np.asarray(table)[..., _AGENT_PLANE]
    return np.stack(np.unravel_index(agent.reshape(len(agent), -1).argmax(1), agent.shape[1:]), axis=-1)


def _figure(width: float, height: float, **options: Any) -> Figure:
    figure = Figure(figsize=(width, height), dpi=150, **options)
    FigureCanvasAgg(figure)
    return figure


def _paths(points: ArrayLike, lengths: ArrayLike, final: ArrayLike | None) -> list[np.ndarray]:
    """The real points `[L, 2]` of each trajectory, with the one after its last step where given."""
    paths = [path[:length] for path, length in zip(np.asarray(points), np.asarray(lengths), strict=True)]
    if final is None:
        return paths
    return [np.concatenate([path, last[None]]) for path, last in zip(paths, np.asarray(final), strict=True)]


def _draw_groups(
    paths: list[np.ndarray],
    groups: ArrayLike,
    names: Sequence[str],
    max_per_group: int,
    columns: int,
    counts: Sequence[int] | None,
    colors: Sequence[int] | None,
    ax: Axes | None,
    background: Callable[[Axes, float], None],
    draw_lines: Callable[[Axes, list[np.ndarray], str], None],
) -> Figure:
    """The first paths of every group over the background, whose size is that of its goal."""
    members = [np.flatnonzero(np.asarray(groups) == group) for group in range(len(names))]
    counts = [len(member) for member in members] if counts is None else counts
    titles = [f"{name} (n = {count:,})" for name, count in zip(names, counts, strict=True)]
    colors = [PALETTE[color % len(PALETTE)] for color in (range(len(names)) if colors is None else colors)]

    def draw(ax, group):
        draw_lines(ax, [paths[index] for index in members[group][:max_per_group]], colors[group])

    if ax is not None:
        background(ax, 15)
        for group in range(len(names)):
            draw(ax, group)
        handles = [Line2D([], [], color=c, lw=2, label=t) for c, t in zip(colors, titles, strict=True)]
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
        return ax.figure

    columns = max(1, min(columns, len(names)))
    rows = -(-len(names) // columns)
    figure = _figure(1.75 * columns, 1.95 * rows, layout="constrained")
    for group, title in enumerate(titles):
        panel = figure.add_subplot(rows, columns, group + 1)
        background(panel, 12)
        draw(panel, group)
        panel.set_title(title, fontsize=8, color=_INK, pad=3)
    return figure


def _draw_grid(ax: Axes, walls: np.ndarray, goal: np.ndarray, size: float) -> None:
    """The floor plan; only half of the outermost cells, which are border wall, is shown."""
    height, width = walls.shape
    image = np.where(walls[..., None], to_rgba(_WALL), 0.0)  # elsewhere transparent, over the grid's lines
    ax.imshow(image, interpolation="nearest", zorder=1)
    ax.set_xticks(np.arange(0.5, width - 1))
    ax.set_yticks(np.arange(0.5, height - 1))
    ax.grid(color=_GRID, linewidth=0.5)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, labelbottom=False, labelleft=False)
    ax.set(xlim=(0.1, width - 1.1), ylim=(height - 1.1, 0.1))
    ax.spines[:].set_visible(False)
    _draw_goal(ax, goal[1], goal[0], size)


def _span(values: np.ndarray) -> tuple[float, float]:
    """The range of an axis that shows them all."""
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _draw_plane(ax: Axes, plane: Plane, size: float) -> None:
    """The square, its walls, its shaded box, the paths to follow and the goal."""
    for wall in plane.walls:
        ax.plot(*np.asarray(wall).T, color=_INK, linewidth=0.1 * size, solid_capstyle="round", zorder=2)
    for line in plane.paths:
        ax.plot(*line.T, color=_WALL, linewidth=0.3 * size, alpha=0.5, solid_capstyle="round", zorder=1)
    if plane.box is not None:
        (left, bottom), (right, top) = plane.box
        ax.add_patch(Rectangle((left, bottom), right - left, top - bottom, color=_WALL, alpha=0.3, zorder=1))
    ax.set(xlim=(plane.low, plane.high), ylim=(plane.low, plane.high), aspect="equal")
    ax.set_xticks(plane.ticks)
    ax.set_yticks(plane.ticks)
    ax.grid(color=_GRID, linewidth=0.5)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, labelbottom=False, labelleft=False)
    ax.spines[:].set_visible(False)
    if plane.goal is not None:
        _draw_goal(ax, *plane.goal, size)


def _draw_goal(ax: Axes, x: float, y: float, size: float) -> None:
    ax.plot(x, y, "*", color="#F0E442", markersize=size, markeredgecolor=_INK, markeredgewidth=0.7, zorder=6)


def _draw_places(ax: Axes, places: Any, present: Any, size: float) -> None:
    size = 0.72 * size
    for number, ((row, column), there) in enumerate(zip(places, present, strict=True), start=1):
        face, style = ("#F5F5F5", "-") if there else ("none", ":")
        ax.scatter(column, row, s=size**2, facecolor=face, edgecolor=_INK, linewidth=0.8, linestyle=style, zorder=4)
        ax.text(
            column,
            row,
            str(number),
            fontsize=0.6 * size,
            color=_INK,
            alpha=1.0 if there else 0.5,
            ha="center",
            va="center_baseline",
            zorder=7,
        )


def _draw_curves(ax: Axes, paths: list[np.ndarray], color: str) -> None:
    """Paths `[L, 2]` of (x, y): lines that deepen with time, a dot at each start."""
    for path in paths:
        colors = [to_rgba(color, depth) for depth in np.linspace(0.3, 0.9, len(path) - 1)]
        pieces = np.stack([path[:-1], path[1:]], axis=1)
        ax.add_collection(LineCollection(pieces, colors=colors, linewidths=0.8, zorder=3))
        ax.plot(*path[0], "o", color=color, markersize=2.4, markeredgecolor="white", markeredgewidth=0.3, zorder=5)


def _draw_steps(ax: Axes, paths: list[np.ndarray], color: str) -> None:
    """Paths `[L, 2]` of (row, column): lines that deepen with time, a dot at each start, arrow heads on the way."""
    tails, moves, depths, headed = [], [], [], []
    for number, path in enumerate(paths):
        points = path[:, ::-1]
        steps = np.flatnonzero(np.any(points[1:] != points[:-1], axis=1))
        tails.append(points[steps])
        moves.append(points[steps + 1] - points[steps])
        depths.append(0.3 + 0.6 * steps / max(len(points) - 2, 1))
        headed.append(np.arange(len(steps)) % 4 == number % 4)
        ax.plot(*points[0], "o", color=color, markersize=2.4, markeredgecolor="white", markeredgewidth=0.3, zorder=5)
    if not paths:
        return
    tails, moves, depths, headed = map(np.concatenate, (tails, moves, depths, headed))
    colors = np.broadcast_to(to_rgba(color), (len(depths), 4)).copy()
    colors[:, 3] = depths
    ax.add_collection(LineCollection(np.stack([tails, tails + moves], 1), colors=colors, linewidths=0.8, zorder=3))
    middles = tails + 0.5 * moves
    for marker, direction in (("^", (0, -1)), ("v", (0, 1)), ("<", (-1, 0)), (">", (1, 0))):
        chosen = headed & np.all(np.sign(np.round(moves)) == direction, axis=1)
        ax.scatter(*middles[chosen].T, s=7, marker=marker, color=colors[chosen], linewidth=0, zorder=4)
