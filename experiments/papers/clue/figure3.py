"""Figures 3 and 8 to 13 of the CLUE paper: skills from data without rewards.

    trajclust run clue/figure3 --preset cpu --datasets pathfollowing

The paper's experts are classes of single transitions; beside them clusters of whole trajectories, by PG-Kmeans, CAAE
and EMPO's EM. The paper shows frames; here paths, or the torso's height, pitch and pace over time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trajclust_experiments.catalogue import CATALOGUE, title
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.skills import TRANSITIONS, SkillCell
from trajclust_experiments.papers.clue import IMITATION
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column, Entry
from trajclust_experiments.rendering.figures import captioned, new_figure
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.data import REGISTRY
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")

DATASETS = ("pathfollowing", "halfcheetah-medium-replay", "walker2d-medium-replay", "ant-medium-replay")
METHODS = (TRANSITIONS, "pg_kmeans_mlp", "caae", "empo_mlp")
SKILLS = {"pathfollowing": (6, 3)}  # of classes of transitions, and of clusters: as many as the data's policies
_MANY = (8, 8)
# Which observation is what, of MuJoCo's walkers: height and pitch of the torso, pace along x.
_DRAWN = {
    "halfcheetah": {"height, m": 0, "pitch, rad": 1, "pace, m/s": 8},
    "walker2d": {"height, m": 0, "pitch, rad": 1, "pace, m/s": 8},
    "ant": {"height, m": 0, "pitch, y of the quaternion": 3, "pace, m/s": 13},
}
_SMOKE = IMITATION["smoke"].settings
PRESETS = {
    "smoke": Preset("seconds: does everything run?", 4, 1, {"iql": _SMOKE["iql"], "clue": _SMOKE["clue"]}, long_size=4),
    "cpu": Preset(
        "an hour on one core: 50 trajectories a policy (Pathfollowing 200), 20,000 gradient steps",
        *(200, 1, {"iql": {"updates": 20_000}, "clue": {"updates": 3_000, "learning_rate": 1e-3}}),
        long_size=50,
    ),
    "paper": Preset(
        "1,000 trajectories a policy, a million gradient steps", 1000, 1, {"iql": {}, "clue": {}}, long_size=1000
    ),
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset and way of taking it apart."""
    chosen = []
    for dataset in datasets:
        size = preset.long_size if REGISTRY[dataset].long else preset.size
        for method in methods:
            settings = {**preset.settings["iql"], "normalise": True}
            chosen.append(
                SkillCell(
                    *(dataset, size, "iql", tuple(seeds[:1]), tuple(sorted(settings.items()))),
                    clusters=method,
                    cluster_settings=_clustering(dataset, method, preset),
                    relabeller_settings=tuple(sorted(preset.settings["clue"].items())),
                    expert=method,
                    skills=SKILLS.get(dataset, _MANY)[method != TRANSITIONS],
                )
            )
    return chosen


def _clustering(dataset: str, method: str, preset: Preset) -> tuple[tuple[str, Any], ...]:
    """What a clusterer's settings differ by on long data; at the smallest preset it is short, too."""
    if method == TRANSITIONS:
        return ()
    entry = CATALOGUE[method]
    settings = entry.long_settings() if REGISTRY[dataset].long else {}
    if preset is PRESETS["smoke"]:
        settings = {**settings, "iterations": 2}
    return tuple(sorted(settings.items()))


def _by(entry: Entry) -> str:
    name = entry.record["cell"]["clusters"]
    return "classes of transitions" if name == TRANSITIONS else f"clusters by {title(name)}"


def _range(entry: Entry) -> str:
    means = np.mean(entry.record["returns"], axis=1)
    return f"{means.min():.0f} to {means.max():.0f}"


COLUMNS = [
    columns.task(),
    Column("experts", _by),
    Column("skills", lambda entry: str(len(entry.record["sizes"]))),
    Column("different", lambda entry: str(different(np.array(entry.record["distances"])))),
    Column("distance of visited states", lambda entry: f"{entry.record['scores']['distance'][0]:.2f}"),
    Column("behavioural KL", lambda entry: f"{entry.record['scores']['kl'][0]:.2f}"),
    Column("returns", _range),
    Column("gradient steps", lambda entry: f"{entry.record['config']['learner']['updates']:,}"),
    columns.seconds("seconds (rewards + learners)", "relabelling", "run"),
]

APART = 0.3  # stds a dimension: skills whose visited states are so far apart are counted as different


def different(distances: np.ndarray) -> int:
    """The size of the largest set of skills any two of which are APART."""

    def largest(skills: Sequence[int]) -> int:
        sizes = (
            1 + largest([other for other in skills[i + 1 :] if distances[skill, other] > APART])
            for i, skill in enumerate(skills)
        )
        return max(sizes, default=0)

    return largest(range(len(distances)))


def render(records: Records):
    notes = [
        *provenance(records),
        "Distance: between the states that two skills visit, the mean over dimensions of Wasserstein distances, in "
        f"standard deviations of the data; different: the most skills any two of which are more than {APART} apart. "
        "Behavioural KL: of their Gaussian policies, nats a step, over the first one's states. Means over all pairs.",
    ]
    figures = {f"{r['cell']['dataset']}-{r['cell']['clusters']}": _picture(r) for r in records}
    return columns.table("CLUE's skills: Figures 3 and 8 to 13", COLUMNS, map(Entry, records), notes), figures


def _picture(record: dict[str, Any]):
    """Paths in the plane, or height, pitch and pace over time, a colour a skill; beside them both matrices."""
    drawn = _DRAWN.get(record["cell"]["dataset"].partition("-")[0], {})
    names = list(drawn) or ["paths"]
    figure = new_figure(2.8 * (len(names) + 2), 2.8)
    axes = figure.subplots(1, len(names) + 2)
    returns = np.mean(record["returns"], axis=1)
    for k, path in enumerate(record["paths"]):
        states, color = np.array(path["states"]), plotting.PALETTE[k % len(plotting.PALETTE)]
        label = f"{k}: {returns[k]:.0f}" if drawn else str(k)
        style = {"color": color, "lw": 0.9, "ls": "-" if k < len(plotting.PALETTE) else ":", "label": label}
        if not drawn:
            axes[0].plot(*states.T, **style)
        for ax, column in zip(axes, drawn.values(), strict=False):
            ax.plot(path["steps"], states[:, column], **style)
    for ax, name in zip(axes, names, strict=False):
        ax.set_title(name, fontsize=8)
        if drawn:
            ax.set_xlabel("step", fontsize=6)
    axes[0].legend(fontsize=5, title="skill: return" if drawn else "skill", title_fontsize=5)
    for ax, name, text, unit in (
        (axes[-2], "distances", "visited states", "stds a dimension"),
        (axes[-1], "divergences", "behavioural KL", "nats a step"),
    ):
        image = ax.imshow(np.array(record[name]), cmap="viridis")
        ax.set_title(text, fontsize=8)
        ax.set_xlabel("skill", fontsize=6)
        ax.set_xticks(range(len(returns)))
        ax.set_yticks(range(len(returns)))
        bar = figure.colorbar(image, ax=ax, shrink=0.7)
        bar.set_label(unit, fontsize=6)
        bar.ax.tick_params(labelsize=5)
    for ax in axes:
        ax.tick_params(labelsize=5)
    return captioned(
        figure,
        "What each skill does in an episode, a colour a skill, and how far skills are apart: in the states that they "
        "visit, and in behaviour.",
    )


TABLE = Table(
    name="clue/figure3",
    summary="skills from data without rewards: classes of transitions against clusters of trajectories",
    datasets=DATASETS,
    methods=METHODS,
    presets=PRESETS,
    cells=cells,
    render=render,
    holds=tuple(f"clue/figure{n}" for n in range(8, 14)),
)
