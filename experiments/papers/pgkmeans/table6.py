"""Table 6 of the PG-Kmeans paper: running time, from Table 1's records.

    trajclust run pgkmeans/table6 --preset paper --methods pg_kmeans_mlp

The paper's minutes are for one seed of its GRU policies, best of 5, on an RTX A6000. Ours are for all seeds in one
program; a seed's share is that time divided by their number.
"""

from trajclust_experiments.catalogue import CATALOGUE
from trajclust_experiments.papers import pgkmeans
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column, Entry
from trajclust_experiments.rendering.markdown import machines, provenance
from trajclust_experiments.rendering.stored import grouped, of_methods
from trajclust_experiments.tables import Records, Table

PUBLISHED = {  # minutes
    "pg_kmeans": {
        "halfcheetah": 17.0,
        "ant": 24.0,
        "walker2d": 32.0,
        "hopper": 70.0,
        "diagonal": 22.0,
        "takeball": 5.7,
        "pathfollowing": 24.0,
        "extra": 9.7,
    },
    "caae": {
        "halfcheetah": 6.6,
        "ant": 10.0,
        "walker2d": 9.7,
        "hopper": 15.0,
        "diagonal": 2.4,
        "takeball": 1.9,
        "pathfollowing": 38.0,
        "extra": 2.3,
    },
}


def _method(entry: Entry) -> str:
    return pgkmeans.method_title(entry.record["cell"]["method"], entry.record["cell"]["dataset"])


def _paper(entry: Entry) -> str:
    cell = entry.record["cell"]
    return f"{PUBLISHED[CATALOGUE[cell['method']].family][pgkmeans.TASKS[cell['dataset']]]:g}"


def _minutes(entry: Entry, seeds: int = 1) -> str:
    return f"{entry.record['timing']['run_seconds'] / 60 / seeds:.2f}"


COLUMNS = [
    columns.task(),
    columns.method(title=_method),
    Column("trajectories a policy", lambda entry: f"{entry.record['cell']['size']:,}"),
    columns.num_seeds(),
    columns.seconds("compile, s", "compile"),
    Column("run, minutes", _minutes),
    Column("minutes a seed", lambda entry: _minutes(entry, len(entry.record["cell"]["seeds"]))),
    Column("paper, minutes a seed (A6000)", _paper),
    Column("device", lambda entry: ", ".join(machines(entry.record))),
]


def render(records: Records):
    lines = [Entry(record) for methods in grouped(records).values() for _, record in of_methods(methods)]
    notes = [
        *provenance(records),
        "The paper's scale is 20,000 trajectories a policy; other sizes do not compare.",
        "Times are wall-clock, on a machine that other work may have shared.",
    ]
    return columns.table("PG-Kmeans paper, Table 6: running time", COLUMNS, lines, notes), {}


TABLE = Table(
    name="pgkmeans/table6",
    summary="running time of PG-Kmeans and CAAE, with the device",
    datasets=pgkmeans.PAPER_DATASETS,
    methods=("pg_kmeans_tabular", "pg_kmeans_mlp", "pg_kmeans_gru", "pg_kmeans_planner", "caae"),
    presets=pgkmeans.PRESETS,
    cells=pgkmeans.cells,
    render=render,
)
