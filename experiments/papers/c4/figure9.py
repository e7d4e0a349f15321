"""Figure 9 of the C^4 paper: scores against the number of transitions.

    trajclust run c4/figure9 --preset cpu --datasets hopper-medium-expert --methods td3_bc

Whole trajectories drawn by one seed: each larger draw has the smaller ones' trajectories.
"""

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import c4
from trajclust_experiments.papers.c4 import Line
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.intervals import draw_curve
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")

SIZES = (3_000, 5_000, 10_000, 20_000)
LARGER = (50_000, 100_000)  # which small presets' data do not have


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset, learner and size."""
    own = SIZES[:1] if preset is c4.PRESETS["smoke"] else SIZES
    own += LARGER if preset is c4.PRESETS["paper"] else ()
    return [
        c4.variant_cell(preset, dataset, method, seeds, size)
        for dataset in datasets
        for method in methods
        for size in own
    ]


def _size(record) -> int:
    return record["cell"]["transitions"]


def render(records: Records):
    shown = sorted(c4.in_order(records), key=lambda record: (record["cell"]["dataset"], _size(record)))
    header = c4.score_columns(lambda line: None)
    header.insert(2, Column("transitions", lambda line: f"{_size(line.record):,}"))
    base = {
        (record["cell"]["dataset"], record["cell"]["method"], _size(record)): record
        for record in shown
        if c4.method_of(record).endswith("_base")
    }
    lines = [Line(r, base.get((r["cell"]["dataset"], r["cell"]["method"], _size(r)))) for r in shown]
    datasets = dict.fromkeys(record["cell"]["dataset"] for record in shown)
    figure, axes = panels(datasets, 2.6)
    for ax, dataset in zip(axes, datasets, strict=True):
        of_dataset = [record for record in shown if record["cell"]["dataset"] == dataset]
        for color, name in zip(plotting.PALETTE, dict.fromkeys(map(c4.title_of, of_dataset)), strict=False):
            chosen = [record for record in of_dataset if c4.title_of(record) == name]
            draw_curve(ax, [_size(r) for r in chosen], [c4.score_of(r) for r in chosen], color, name)
        ax.set_xscale("log")
        ax.set_xlabel("transitions", fontsize=7)
        ax.legend(fontsize=5)
    return c4.page("C^4 paper, Figure 9: scores against the number of transitions", header, records, lines), {
        "scores": captioned(
            figure, "Normalised score against the number of transitions: means over seeds with 95% bootstrap intervals."
        )
    }


TABLE = Table(
    name="c4/figure9",
    summary="scores against the number of transitions",
    datasets=c4.DATASETS,
    methods=c4.COMPARED,
    presets=c4.PRESETS,
    cells=cells,
    render=render,
)
