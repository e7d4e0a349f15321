"""Table 3 of the PG-Kmeans paper: single runs against best of 5, PG-Kmeans and DEC.

    trajclust run pgkmeans/table3 --preset cpu

PG-Kmeans: both columns come from the same records. Every restart of a best-of-5 cell is a single run, scored after
merging (the paper's single run) and after the polish that the paper does not have; the best is chosen by J.
DEC has no score of its own that tells a good run: its best of 5 is the best by the TRUE labels, as in the paper, and
nobody could choose it without them.
"""

from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.papers import pgkmeans
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.intervals import interval
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.rendering.stored import answered, grouped, last_of_phase, oracle_nmi
from trajclust_experiments.tables import Records, Table

PUBLISHED = {  # single run and best of 5: mean, and half of a 95% confidence interval or the share of successes
    ("halfcheetah", "pg_kmeans"): ((0.495, "50% in [0.99, 1.00]"), (0.989, 0.000)),
    ("ant", "pg_kmeans"): ((0.745, "85% in [0.83, 0.94]"), (0.924, 0.003)),
    ("walker2d", "pg_kmeans"): ((0.557, "50% in [0.70, 0.99]"), (0.942, 0.005)),
    ("hopper", "pg_kmeans"): ((0.258, "25% in [0.99, 1.00]"), (0.994, "80% in [0.99, 1.00]")),
    ("halfcheetah", "dec"): ((0.945, 0.031), (0.989, 0.000)),
    ("ant", "dec"): ((0.390, 0.512), (0.756, 0.003)),
    ("walker2d", "dec"): ((0.767, "70% in [0.99, 1.00]"), (0.990, 0.000)),
    ("hopper", "dec"): ((0.000, 0.000), (0.000, 0.000)),
    ("diagonal", "pg_kmeans"): ((0.892, 0.032), (0.920, 0.001)),
    ("takeball", "pg_kmeans"): ((0.996, 0.002), (0.997, 0.000)),
    ("diagonal", "dec"): ((0.276, 0.017), (0.287, 0.001)),
    ("takeball", "dec"): ((0.054, 0.097), (0.175, 0.027)),
}
BEST_OF = 5
METHODS = ("pg_kmeans_tabular", "pg_kmeans_mlp", "pg_kmeans_gru", "dec")


class _Line(NamedTuple):
    record: dict[str, Any]
    name: str
    merged: np.ndarray | None  # NMI of single runs, after merging
    single: np.ndarray  # at the end
    best: np.ndarray  # of the best of `restarts` runs
    restarts: int
    ceiling: float

    @property
    def paper(self) -> tuple[tuple[float, float | str], tuple[float, float | str]]:
        """Single run and best of 5."""
        return PUBLISHED[_key(self.record["cell"]["dataset"], self.name)]


def _key(dataset: str, name: str) -> tuple[str, str]:
    return pgkmeans.TASKS[dataset], "dec" if name == "dec" else "pg_kmeans"


def _line(name: str, record: dict[str, Any], ceiling: float) -> _Line:
    final = np.array(record["scores"]["nmi"])
    if name == "dec":
        groups = len(final) // BEST_OF
        best = final[: groups * BEST_OF].reshape(groups, BEST_OF).max(1)
        return _Line(record, name, None, final, best, BEST_OF, ceiling)
    merged = last_of_phase(record, "merge", "nmi").ravel()
    single = last_of_phase(record, record["history"][-1]["phase"], "nmi").ravel()
    return _Line(record, name, merged, single, final, len(merged) // len(record["cell"]["seeds"]), ceiling)


def _best(line: _Line) -> str:
    found = _interval(line.best) if len(line.best) else "too few seeds"
    return found + (" (by labels)" if line.name == "dec" else "")


COLUMNS = [
    columns.task(),
    columns.method(),
    Column("single run, merged", lambda line: "-" if line.merged is None else _interval(line.merged)),
    Column("single run, final", lambda line: _interval(line.single)),
    Column("paper, single run", lambda line: _published(*line.paper[0])),
    Column("difference", lambda line: f"{line.single.mean() - line.paper[0][0]:+.3f}"),
    Column("best of restarts", _best),
    Column("paper, best of 5", lambda line: _published(*line.paper[1])),
    Column("difference, best", lambda line: f"{line.best.mean() - line.paper[1][0]:+.3f}" if len(line.best) else ""),
    Column("oracle", lambda line: f"{line.ceiling:.3f}"),
    Column("runs (single, best of)", lambda line: f"{len(line.single)}, {len(line.best)} of {line.restarts}"),
]


def render(records: Records):
    lines: list[_Line] = []
    found = grouped(answered(records))
    figure, axes = panels(found, 3.2)
    for ax, methods in zip(axes, found.values(), strict=True):
        ceiling = oracle_nmi(methods)
        shown = [_line(name, record, ceiling) for name in METHODS for record in methods.get(name, [])]
        lines += shown
        boxes, labels = [], []
        for line in shown:
            short = pgkmeans.method_title(line.name).removeprefix("PG-Kmeans, ")
            values = {"merged": line.merged, "single": line.single, f"best of {line.restarts}": line.best}
            values = {label: each for label, each in values.items() if each is not None and len(each)}
            boxes += values.values()
            labels += [f"{short}\n{label}" for label in values]
        if boxes:
            ax.boxplot(boxes, tick_labels=labels, whis=(0, 100))
        else:
            ax.text(0.5, 0.5, "no method of these answers here", ha="center", va="center", transform=ax.transAxes)
        ax.tick_params(axis="x", labelsize=6, rotation=90)
    axes[0].set_ylabel("NMI")
    notes = [
        *provenance(records),
        "Ours and the paper's: mean with a 95% confidence interval (ours by bootstrap over runs, half its width).",
        "PG-Kmeans' best is chosen by J. DEC's is chosen by the true labels, as in the paper: not a method, a bound.",
    ]
    title = "PG-Kmeans paper, Table 3: single run against best of 5"
    caption = (
        "NMI of single runs and of the best of several, by method: quartiles in the box, whiskers to the extremes."
    )
    return columns.table(title, COLUMNS, lines, notes), {"single-and-best": captioned(figure, caption)}


def _published(mean: float, spread: float | str) -> str:
    return f"{mean:.3f} ({spread})" if isinstance(spread, str) else f"{mean:.3f} ± {spread:.3f}"


def _interval(values: np.ndarray) -> str:
    low, high = interval(values)
    return f"{values.mean():.3f} ± {(high - low) / 2:.3f}"


TABLE = Table(
    name="pgkmeans/table3",
    summary="single runs against best of 5: PG-Kmeans and DEC",
    datasets=tuple(name for name in pgkmeans.PAPER_DATASETS if _key(name, "dec") in PUBLISHED),
    methods=METHODS,
    presets=pgkmeans.PRESETS,
    cells=pgkmeans.cells,
    render=render,
)
