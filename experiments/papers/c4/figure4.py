"""Figure 4 of the C^4 paper: the time of a training, and scores against the penalty's weight and the learner's own.

    trajclust run c4/figure4 --preset cpu --datasets hopper-medium-expert --methods td3_bc

The trainings are Table 1's, those of the penalty's weight Table 12's. The learner's own weight is TD3+BC's of Q beside
cloning, CQL's of the conservative term.
"""

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import c4
from trajclust_experiments.papers.c4.table12 import VALUES
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")

OWN = {"td3_bc": ("alpha", (1.0, 2.5, 5.0)), "cql": ("conservatism", (1.0, 5.0, 10.0))}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """The trainings, and of those with C^4 two sweeps each."""
    chosen: list[Cell] = []
    for dataset in datasets:
        for method in methods:
            chosen.append(c4.variant_cell(preset, dataset, method, seeds))
            learner, variant = c4.split(method)
            if variant == "_c4":
                chosen.append(c4.swept_cell(preset, dataset, method, seeds, "weight", VALUES))
                chosen.append(c4.swept_cell(preset, dataset, method, seeds, *OWN[learner]))
    return chosen


def render(records: Records):
    trained = c4.in_order([record for record in records if not record["config"]["sweep"]])
    swept = [record for record in records if record["config"]["sweep"]]
    settings = c4.settings_in(swept)
    name = lambda record: record["config"]["sweep"][0][0]
    header = c4.sweep_columns("value", {}, float)
    header.insert(2, Column("setting", lambda line: name(line.record)))
    figure, axes = panels(["time"] if trained else [], 3.4)
    for ax in axes:
        seconds = [record["timing"]["run_seconds"] / len(record["cell"]["seeds"]) for record in trained]
        labels = [f"{columns.dataset_title(r['cell']['dataset'])}, {c4.title_of(r)}" for r in trained]
        ax.barh(range(len(trained)), seconds, color=plotting.PALETTE[0])
        ax.set_yticks(range(len(trained)), labels, fontsize=5)
        ax.set_xlabel("seconds of training, a seed", fontsize=7)
    figures = {"time": captioned(figure, "Seconds of training, a seed.")}
    for each in dict.fromkeys(map(name, swept)):
        figures[each] = c4.sweep_figure([record for record in swept if name(record) == each], each, float)
    title = "C^4 paper, Figure 4: time, and scores against two weights"
    return c4.page(title, header, records, settings), figures


TABLE = Table(
    name="c4/figure4",
    summary="the time of a training, and scores against the penalty's weight and the learner's own",
    datasets=c4.DATASETS,
    methods=c4.COMPARED,
    presets=c4.PRESETS,
    cells=cells,
    render=render,
)
