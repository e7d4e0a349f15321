"""Table 1 of the C^4 paper: scores on 10,000 transitions; beside it what each half of the method does.

    trajclust run c4/table1 --preset cpu --datasets hopper-medium-expert hopper-medium --methods td3_bc

Layer normalisation, DR3, one-cluster minibatches and the penalty alone, and clusters of trajectories in place of those
of gradients are with it: the same budget for all.
"""

from trajclust_experiments.papers import c4
from trajclust_experiments.papers.c4 import Line
from trajclust_experiments.tables import Records, Table

# By method and dataset; the paper's C^4 is on CQL.
PUBLISHED = {
    "td3_bc_base": {
        **{"ant-medium-expert": 52.0, "ant-medium": 46.0, "hopper-medium": 30.7, "hopper-medium-expert": 22.6},
        **{"walker2d-medium": 11.2, "walker2d-medium-expert": 12.4},
        **{"halfcheetah-medium": 25.9, "halfcheetah-medium-expert": 23.5},
    },
    "cql_base": {
        **{"ant-medium-expert": 74.0, "ant-medium": 62.0, "hopper-medium": 50.1, "hopper-medium-expert": 43.2},
        **{"walker2d-medium": 54.1, "walker2d-medium-expert": 26.0},
        **{"halfcheetah-medium": 41.7, "halfcheetah-medium-expert": 39.7},
    },
    "cql_c4": {
        **{"ant-medium-expert": 100.9, "ant-medium": 84.5, "hopper-medium": 69.2, "hopper-medium-expert": 81.3},
        **{"walker2d-medium": 65.9, "walker2d-medium-expert": 96.3},
        **{"halfcheetah-medium": 46.3, "halfcheetah-medium-expert": 46.0},
    },
}


def published(line: Line) -> float | None:
    """The paper's score."""
    return PUBLISHED.get(c4.method_of(line.record), {}).get(line.record["cell"]["dataset"])


def render(records: Records):
    return c4.page(
        "C^4 paper, Table 1: scores on reduced data",
        [*c4.score_columns(published), *c4.measure_columns()],
        records,
        None,
        "Of the last tenth of the training, the first critic's: tr C / M is the trace of the cross-covariance of its "
        "gradients by their number, over all transitions, and within clusters; var Q the variance of its values.",
    ), c4.comparisons(records)


TABLE = Table(
    name="c4/table1",
    summary="scores on 10,000 transitions with C^4, each half of it, LN and DR3",
    datasets=c4.DATASETS,
    methods=c4.METHODS,
    presets=c4.PRESETS,
    cells=c4.cells,
    render=render,
    standings=lambda records: c4.standings(records, published),
)
