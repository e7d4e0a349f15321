"""Table 2 of the C^4 paper: scores of learners on at most 10,000 transitions.

    trajclust run c4/table2 --preset cpu --datasets hopper-medium-expert hopper-medium

BC, TD3+BC, CQL, IQL and CQL with C^4 are run, on data of the same names made by the package's own policies (medium
replay and the small human data are not). DOGE, BPPO, TSRL and A2PR are quoted.
"""

from collections.abc import Callable

from trajclust_experiments.papers import c4
from trajclust_experiments.papers.c4 import Line
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.tables import Records, Table

TASKS = ("hopper", "halfcheetah", "walker2d")
DATASETS = tuple(f"{task}-{kind}" for kind in ("medium", "medium-expert") for task in TASKS)
METHODS = ("bc", "td3_bc_base", "cql_base", "iql", "cql_c4")
OTHERS = ("DOGE", "BPPO", "TSRL", "A2PR")
_NAMES = ("bc", "td3_bc_base", "cql_base", "iql", *OTHERS, "cql_c4")
PUBLISHED = {
    dataset: dict(zip(_NAMES, scores, strict=True))
    for dataset, scores in {
        "hopper-medium": (28.8, 30.7, 50.1, 61.0, 55.6, 55.0, 60.9, 55.9, 69.2),
        "hopper-medium-expert": (38.2, 22.6, 43.2, 51.7, 36.8, 27.9, 56.6, 49.7, 81.3),
        "halfcheetah-medium": (40.2, 25.9, 41.7, 35.6, 42.8, 28.5, 43.3, 37.1, 46.3),
        "halfcheetah-medium-expert": (33.7, 23.5, 39.7, 14.3, 33.1, 22.3, 37.2, 32.4, 46.9),
        "walker2d-medium": (25.4, 11.2, 54.1, 34.2, 53.7, 54.7, 47.3, 5.9, 65.9),
        "walker2d-medium-expert": (35.1, 12.4, 26.0, 38.0, 42.5, 61.3, 50.9, 56.5, 96.3),
    }.items()
}


def published(line: Line) -> float | None:
    """The paper's score."""
    return PUBLISHED[line.record["cell"]["dataset"]].get(c4.method_of(line.record))


def _quoted(name: str) -> Callable[[Line], str]:
    return lambda line: f"{PUBLISHED[line.record['cell']['dataset']][name]:.1f}"


def render(records: Records):
    header = [*c4.score_columns(published), *(Column(f"{name}, paper", _quoted(name)) for name in OTHERS)]
    return c4.page("C^4 paper, Table 2: learners on small data", header, records), {}


TABLE = Table(
    name="c4/table2",
    summary="scores of learners on at most 10,000 transitions",
    datasets=DATASETS,
    methods=METHODS,
    presets=c4.PRESETS,
    cells=c4.cells,  # those that Table 1 has are its own
    render=render,
)
