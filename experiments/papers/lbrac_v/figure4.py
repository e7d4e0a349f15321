"""Figure 4 of the LBRAC-v paper: relative return against the number k of behaviour policies.

    trajclust run lbrac_v/figure4 --preset cpu --datasets gates
    trajclust run lbrac_v/figure4 --preset cpu --datasets hopper-heterogeneous --methods brac_v lbrac_v

Relative return: the return (in MuJoCo the normalised one) divided by that of the data's policies. Gates is a corridor
whose behaviours part where they meet the walls; its penalty is .01 but where a title says 1. LBRAC-v has K = k.
"""

import numpy as np

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import lbrac_v
from trajclust_experiments.papers.lbrac_v import GATES, HETEROGENEOUS, PRESETS, Scale, name_of, title_of
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column, Entry
from trajclust_experiments.rendering.figures import captioned, new_figure
from trajclust_experiments.rendering.intervals import interval, interval_column
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.tables import Records, Table
from trajclust_jax.data import REGISTRY
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")

METHODS = ("brac_v", "lbrac_v", *lbrac_v.VARIANTS, "bcq", "plas", "cql")
SIDES = {
    "learners": ("brac_v", "brac_v_warm", "lbrac_v", "bcq", "plas", "cql"),
    "LBRAC-v": tuple(name for name in METHODS if name.startswith("lbrac_v")),
}


def cells(preset: Scale, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset and learner."""
    return [
        lbrac_v.cell(preset, dataset, method, seeds)
        for dataset in datasets
        for method in methods
        if dataset in GATES or method != "lbrac_v_penalty_1"  # which is the penalty elsewhere
    ]


def _relative(entry: Entry) -> np.ndarray:
    return np.array(entry.record["scores"]["relative"])


def _best(entry: Entry) -> np.ndarray:
    found = entry.record["scores"]
    best = np.array(found.get("best_score", found["best_return"]))
    return best / np.mean(list(entry.record["policies"].values()))


COLUMNS = [
    columns.task(),
    columns.method("policies", lambda entry: title_of(name_of(entry.record))),
    Column("relative return", lambda entry: spread(_relative(entry), 2)),
    interval_column(_relative, 2),
    Column("best evaluation", lambda entry: spread(_best(entry), 2)),
    columns.score("nmi", "NMI", digits=2),
    columns.num_seeds(),
    columns.seconds("seconds, all seeds (compile + run)", "compile", "run"),
]


def render(records: Records):
    order = {name: place for place, name in enumerate(METHODS)}
    shown = sorted(records, key=lambda record: (record["cell"]["dataset"], order.get(name_of(record), len(order))))
    families = list(dict.fromkeys(record["cell"]["dataset"].rpartition("-")[0] for record in shown))
    figure = new_figure(7.6, 2.9 * max(1, len(families)))
    for row, family in enumerate(families):
        for column, (what, methods) in enumerate(SIDES.items()):
            ax = figure.add_subplot(len(families), 2, 2 * row + column + 1)
            for place, name in enumerate(methods):
                found = [
                    (REGISTRY[record["cell"]["dataset"]].num_policies, _relative(Entry(record)))
                    for record in shown
                    if name_of(record) == name and record["cell"]["dataset"].rpartition("-")[0] == family
                ]
                if not found:
                    continue
                counts, values = zip(*sorted(found, key=lambda each: each[0]), strict=True)
                means = np.array([each.mean() for each in values])
                low, high = zip(*map(interval, values), strict=True)
                beside = np.array(counts) + 0.08 * (place - (len(methods) - 1) / 2)
                ends = [means - low, high - means]
                style = {"color": plotting.PALETTE[place], "marker": "o", "ms": 3, "capsize": 1.5, "elinewidth": 0.6}
                ax.errorbar(beside, means, ends, label=title_of(name), linewidth=1, **style)
            ax.set_title(f"{family}: {what}", fontsize=8)
            ax.set(xlabel="k: behaviour policies", ylabel="relative return", ylim=(-0.05, 1.3))
            ax.legend(fontsize=5, loc="upper right", ncols=2)
    notes = [
        *provenance(records),
        "Relative return: of the last policy without its noise, divided by the data's policies'. Mean ± std and 95% "
        "bootstrap interval over seeds. Best evaluation: the highest of each seed's, which flatters. NMI: of the "
        "behaviours that LBRAC-v found with the true ones, at the end.",
        "Penalty: .01 on Gates, but where the title says 1, which is the paper's.",
    ]
    caption = (
        "Return relative to that of the data's policies, against their number: means over seeds with 95% "
        "bootstrap intervals."
    )
    return columns.table("LBRAC-v paper, Figure 4", COLUMNS, map(Entry, shown), notes), {
        "relative-return": captioned(figure, caption)
    }


TABLE = Table(
    name="lbrac_v/figure4",
    summary="relative return against the number of behaviour policies",
    datasets=(*GATES, *HETEROGENEOUS),
    methods=METHODS,
    presets=PRESETS,
    cells=cells,
    render=render,
)
