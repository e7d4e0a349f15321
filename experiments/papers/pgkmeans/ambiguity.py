"""Is the answer unique, and can its confidence be trusted? (What the paper's reviewers asked for; its appendix A.3.)

    trajclust run pgkmeans/ambiguity --preset cpu

On the permuted Takeball clustering by the place of the ball taken explains the data as well as clustering by its
number. Restarts then end in groups of equally good, different solutions, and that shows without labels.
"""

from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.papers import pgkmeans
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.rendering.stored import grouped, of_methods, oracle_nmi
from trajclust_experiments.tables import Records, Table
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")

_SAID = {True: "unique", False: "not unique", None: "unknown"}


class _Line(NamedTuple):
    record: dict[str, Any]
    ceiling: float

    def over_seeds(self, *path: str) -> list[Any]:
        """What the record says of every seed's clustering."""
        values = self.record["ambiguity"]
        for name in path:
            values = [each[name] for each in values]
        return values


def _looks(line: _Line) -> str:
    said = [_SAID[each] for each in line.over_seeds("unique")]
    return ", ".join(f"{answer} {said.count(answer)}" for answer in dict.fromkeys(said))


def _conflicts(line: _Line) -> str:
    return spread(line.over_seeds("conflict_rate")) if "conflict_rate" in line.record["ambiguity"][0] else "-"


COLUMNS = [
    columns.task(),
    columns.method(),
    Column("the answer looks (seeds)", _looks),
    Column(
        "groups of equally good solutions, by seed",
        lambda line: ", ".join(str(len(each)) for each in line.over_seeds("groups")),
    ),
    Column("mean NMI between restarts", lambda line: spread(line.over_seeds("mean_agreement"))),
    columns.score("nmi", "NMI"),
    Column("oracle", lambda line: f"{line.ceiling:.3f}"),
    Column("posterior entropy, 0 to 1", lambda line: spread(line.over_seeds("mean_entropy"))),
    Column("calibration error", lambda line: spread(line.over_seeds("calibration", "error"))),
    Column("conflicts within clusters, share of pairs", _conflicts),
]


def render(records: Records):
    lines = []
    found = grouped(records)
    figure, axes = panels(found, 2.8)
    for ax, methods in zip(axes, found.values(), strict=True):
        ceiling = oracle_nmi(methods)
        for color, (name, record) in zip(plotting.PALETTE, of_methods(methods), strict=False):
            if "ambiguity" not in record:
                continue
            line = _Line(record, ceiling)
            lines.append(line)
            counts = np.array(line.over_seeds("calibration", "count"))
            mean = lambda name: (counts * _zero(line.over_seeds("calibration", name))).sum(0)[shown] / total[shown]  # noqa: B023
            total = counts.sum(0)
            shown = total > 0
            label = pgkmeans.method_title(name)
            ax.plot(mean("confidence"), mean("accuracy"), "o-", ms=3, lw=1, color=color, label=label)
        ax.plot([0, 1], [0, 1], ":", color="gray", lw=1, label="calibrated")
        ax.set(xlabel="confidence", xlim=(0, 1.03), ylim=(0, 1.03))
        ax.legend(fontsize=6)
    axes[0].set_ylabel("share that is right")
    notes = [
        *provenance(records),
        "All but NMI, oracle and calibration is found without labels. Conflicts: Eq. 12 as a share of pairs.",
    ]
    caption = (
        "The share of assignments that are right against the confidence in them; calibrated confidences lie on "
        "the diagonal."
    )
    return columns.table("Ambiguity: is the answer unique?", COLUMNS, lines, notes), {
        "calibration": captioned(figure, caption)
    }


def _zero(values: list[Any]) -> np.ndarray:
    """Means of empty bins, which are null in a record, as 0."""
    return np.nan_to_num(np.array(values, float))


TABLE = Table(
    name="pgkmeans/ambiguity",
    summary="agreement of restarts, groups of equally good solutions, calibration",
    datasets=("diagonal", "takeball", "takeball-permuted"),
    methods=("pg_kmeans_tabular", "pg_kmeans_mlp"),
    presets=pgkmeans.PRESETS,
    cells=pgkmeans.cells,
    render=render,
)
