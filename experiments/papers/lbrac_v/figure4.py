"""Figure 4 of the LBRAC-v paper: relative return against the number k of behaviour policies.

    trajclust run lbrac_v/figure4 --preset cpu --datasets gates
    trajclust run lbrac_v/figure4 --preset cpu --datasets hopper-heterogeneous        once its agents are trained

Relative return: the return (in MuJoCo the normalised one) divided by that of the data's policies. Gates is a corridor
whose behaviours part where they meet the walls; its penalty is .01 but where a title says 1. LBRAC-v has K = k.
"""

import numpy as np

from trajclust_experiments.papers import lbrac_v
from trajclust_experiments.papers.lbrac_v import GATES, HETEROGENEOUS, PRESETS, name_of, title_of
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


def cells(preset, datasets, methods, seeds):
    return [
        lbrac_v.cell(preset, dataset, method, seeds)
        for dataset in datasets
        for method in methods
        if dataset in GATES or method != "lbrac_v_penalty_1"  # which is the penalty elsewhere
    ]


def _relative(entry: Entry) -> np.ndarray:
    return np.array(entry.record["scores"]["relative"])


COLUMNS = [
    columns.task(),
    columns.method("policies", lambda entry: title_of(name_of(entry.record))),
    Column("relative return", lambda entry: spread(_relative(entry), 2)),
    interval_column(_relative, 2),
    columns.score("nmi", "NMI", digits=2),
    columns.num_seeds(),
    columns.seconds("seconds, all seeds (compile + run)", "compile", "run"),
]


def render(records: Records):
    order = {name: place for place, name in enumerate(METHODS)}
    shown = sorted(records, key=lambda record: (record["cell"]["dataset"], order.get(name_of(record), len(order))))
    families = list(dict.fromkeys(record["cell"]["dataset"].rpartition("-")[0] for record in shown))
    figure = new_figure(1.0 + 4.2 * max(1, len(families)), 3.6)
    for place, family in enumerate(families):
        ax = figure.add_subplot(1, len(families), place + 1)
        for color, name in enumerate(METHODS):
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
            shade = plotting.PALETTE[color % len(plotting.PALETTE)]
            style = "--" if name in lbrac_v.VARIANTS else "-"
            ax.plot(counts, means, style, marker="o", ms=3, color=shade, label=title_of(name))
            ax.fill_between(counts, low, high, color=shade, alpha=0.15, linewidth=0)
        ax.set(title=family, xlabel="k: behaviour policies", ylabel="relative return", ylim=(-0.05, 1.25))
        ax.legend(fontsize=5, loc="lower left")
    notes = [
        *provenance(records),
        "Relative return: of the last policy without its noise, divided by the data's policies'. Mean ± std and 95% "
        "bootstrap interval over seeds. NMI: of the behaviours that LBRAC-v found with the true ones, at the end.",
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
