"""Table 6 of the PG-Kmeans paper: running time, from Table 1's records.

    trajclust run pgkmeans/table6 --preset paper --methods pg_kmeans_mlp

The paper's minutes are for one seed of its GRU policies, best of 5, on an RTX A6000. Ours are for all seeds in one
program; a seed's share is that time divided by their number.
"""

from trajclust_experiments.methods import METHODS
from trajclust_experiments.papers.pgkmeans import common
from trajclust_experiments.rendering import document, provenance
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


def render(records: Records):
    rows = []
    for dataset, methods in common.by_cell(records).items():
        for name, record in common.of_methods(methods):
            timing, seeds = record["timing"], len(record["cell"]["seeds"])
            device, cores = record["environment"]["device"], record["environment"]["cpu_count"]
            family = "caae" if name == "caae" else "pg_kmeans"
            rows.append(
                [
                    common.TITLES[dataset],
                    common.method_title(name, dataset),
                    f"{record['cell']['size']:,}",
                    str(seeds),
                    f"{timing['compile_seconds']:.0f}",
                    f"{timing['run_seconds'] / 60:.2f}",
                    f"{timing['run_seconds'] / 60 / seeds:.2f}",
                    f"{PUBLISHED[family][common.TASKS.get(dataset, dataset)]:g}",
                    f"{device['count']} x {device['kind']} ({cores} cores)",
                ]
            )
    header = ["task", "method", "trajectories a policy", "seeds", "compile, s", "run, minutes", "minutes a seed"]
    header += ["paper, minutes a seed (A6000)", "device"]
    notes = [
        *provenance(records),
        "The paper's scale is 20,000 trajectories a policy; other sizes do not compare.",
        "Times are wall-clock, on a machine that other work may have shared.",
    ]
    title = "PG-Kmeans paper, Table 6: running time"
    return document(title, header, rows, notes), {}


TABLE = Table(
    name="pgkmeans/table6",
    summary="running time of PG-Kmeans and CAAE, with the device",
    datasets=common.PAPER_DATASETS,
    methods=(*(name for name in METHODS if name.startswith("pg_kmeans")), "caae"),
    presets=common.PRESETS,
    cells=common.cells,
    render=render,
)
