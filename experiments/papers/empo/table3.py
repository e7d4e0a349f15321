"""Table 3 of the EMPO paper: the Rand index as its clustering's heuristics are added one by one.

    trajclust run empo/table3 --preset cpu --datasets hopper

Four of Table 5's settings.
"""

from trajclust_experiments.papers.empo.table5 import DATASETS, PRESETS, Line, cells, lines, published
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.tables import Records, Table

_NAMES = ("none", "I", "I, II", "I, II, III")


def _heuristics(line: Line) -> str:
    """Which of the three a setting has; none of the table's names for the others."""
    if line.setting is None:
        return "PG-Kmeans"
    present = [name for name, value in zip(("I", "II", "III"), line.setting, strict=True) if value]
    return ", ".join(present) or "none"


COLUMNS = [
    columns.task(),
    Column("heuristics", _heuristics),
    Column("Rand index, %", lambda line: spread(line.rand, 2)),
    *columns.published(published, lambda line: line.rand.mean()),
    columns.num_seeds(),
]


def render(records: Records):
    shown = [line for line in lines(records) if _heuristics(line) in (*_NAMES, "PG-Kmeans")]
    notes = [*provenance(records), "I: momentum; II: pre-training on everything; III: biasing by random groups."]
    return columns.table("EMPO paper, Table 3: its heuristics one by one", COLUMNS, shown, notes), {}


TABLE = Table(
    name="empo/table3",
    summary="the Rand index as EMPO's heuristics are added",
    datasets=DATASETS,
    methods=("empo_grid", "pg_kmeans_mlp"),
    presets=PRESETS,
    cells=cells,
    render=render,
)
