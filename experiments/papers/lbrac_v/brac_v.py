"""Beyond the LBRAC-v paper: why BRAC-v falls from its clone, and what holds it.

    trajclust run lbrac_v/brac-v --preset cpu

BRAC-v on medium and expert data: penalties from 1 to 30 beside each other in one program, with the value penalty and
without it (policy regularisation), with a warm start of the critics, with the release's own rates, with rewards a
hundredth as large. A penalty of weight beta on rewards scaled by c is one of beta / c on rewards as they are.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from trajclust_experiments.cells.behaviours import swept
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import lbrac_v
from trajclust_experiments.papers.lbrac_v import PRESETS, Scale
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.tables import Records, Table
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")

PENALTIES = (1.0, 3.0, 10.0, 30.0)
# The release's rates for BRAC-v; its behaviour policy has two layers and a rate of 5e-4, which ours has not.
_RATES = {"learning_rate": 1e-3, "actor_rate": 3e-5, "target_rate": 0.005}
METHODS = {
    "value penalty": {},
    "policy regularisation": {"value_penalty": 0.0},
    "warm start": {"warm_updates": 20_000},
    "the release's rates": _RATES,
    "rewards x .01": {"reward_scale": 0.01},
}
_SMALL = {"updates": 50_000, "behaviour_updates": 50_000, "features": (128, 128), "actor_features": (128, 128)}
PRESETS_HERE = {
    **PRESETS,
    "cpu": dataclasses.replace(
        PRESETS["cpu"],
        summary="a tenth of the paper's gradient steps, two hidden layers of 128, 2 seeds",
        seeds=2,
        settings={"brac_v": _SMALL},
    ),
}


def cells(preset: Scale, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset and variant: all penalties in one program."""
    chosen: list[Cell] = []
    updates = preset.settings.get("brac_v", {}).get("updates")
    for dataset in datasets:
        for method in methods:
            settings = dict(METHODS[method])
            if "warm_updates" in settings and updates:
                settings["warm_updates"] = min(settings["warm_updates"], updates // 2)
            sweep = {"sweep": (("penalty", PENALTIES),)}
            chosen.append(lbrac_v.cell(preset, dataset, "brac_v", seeds, **settings, **sweep))
    return chosen


def variant(record: Mapping[str, Any]) -> str:
    """Which of METHODS a record is of."""
    settings = record["cell"]["settings"]
    for name, changes in METHODS.items():
        if changes and all(key in settings for key in changes):
            return name
    return "value penalty"


@dataclasses.dataclass(frozen=True)
class _Line:
    record: dict
    place: int

    @property
    def penalty(self) -> float:
        return swept(self.record["config"])[self.place]["penalty"]

    def score(self, name: str) -> np.ndarray:
        """`[S]`; the return where there is no normalised score."""
        found = self.record["scores"]
        return np.array(found.get(name, found[name.replace("score", "return")]), float)[:, self.place]

    def last(self, name: str) -> np.ndarray:
        """Of the last report in the training."""
        return np.array([entry[name] for entry in self.record["history"] if name in entry][-1], float)[:, self.place]


COLUMNS = [
    columns.task(),
    columns.method("BRAC-v with", lambda line: variant(line.record)),
    Column("penalty", lambda line: f"{line.penalty:g}"),
    Column("score", lambda line: spread(line.score("last_score"), 1)),
    Column("best evaluation", lambda line: spread(line.score("best_score"), 1)),
    Column("value", lambda line: spread(line.last("critic/value"), 1)),
    Column("KL, nats", lambda line: spread(line.last("actor/divergence"), 2)),
    columns.num_seeds(),
    columns.seconds("seconds, all (compile + run)", "compile", "run"),
]


def render(records: Records):
    lines = [_Line(record, place) for record in records for place in range(len(swept(record["config"])))]
    datasets = list(dict.fromkeys(record["cell"]["dataset"] for record in records))
    figure, axes = panels(datasets, 4.2, 3.4)
    for ax, dataset in zip(axes, datasets, strict=True):
        for color, name in zip(plotting.PALETTE, METHODS, strict=False):
            own = [line for line in lines if line.record["cell"]["dataset"] == dataset and variant(line.record) == name]
            if own:
                ax.plot(
                    [line.penalty for line in own],
                    [line.score("last_score").mean() for line in own],
                    color=color,
                    marker="o",
                    label=name,
                )
        ax.set(xscale="log", xlabel="penalty", ylabel="normalised score")
        ax.legend(fontsize=6)
    notes = [
        *provenance(records),
        "Value and KL(pi || b): means over the last block of gradient steps; values in the unit of the scaled rewards.",
    ]
    caption = "BRAC-v's normalised score against the weight of its penalty: means over seeds."
    return columns.table("BRAC-v: what holds it", COLUMNS, lines, notes), {
        "score-against-penalty": captioned(figure, caption)
    }


TABLE = Table(
    name="lbrac_v/brac-v",
    summary="BRAC-v's penalty, value penalty, warm start, rates and scale of rewards",
    datasets=("hopper-medium-expert", "walker2d-medium-expert", "halfcheetah-medium-expert"),
    methods=tuple(METHODS),
    presets=PRESETS_HERE,
    cells=cells,
    render=render,
)
