"""Table 9 of the C^4 paper: learners on all the data; DOGE, TSRL, BPPO and A2PR are not run.

trajclust run c4/table9 --preset cpu --datasets hopper-medium-expert
"""

from trajclust_experiments.papers import c4

PUBLISHED = {
    "hopper-medium": (52.9, 59.3, 66.3, 58.5, 85.9),
    "hopper-medium-expert": (52.5, 98.0, 91.5, 105.4, 89.4),
    "halfcheetah-medium": (42.6, 48.3, 47.4, 41.0, 48.5),
    "halfcheetah-medium-expert": (55.2, 90.7, 86.7, 91.6, 91.6),
    "walker2d-medium": (75.3, 83.7, 78.3, 72.5, 81.8),
    "walker2d-medium-expert": (107.5, 110.1, 109.6, 108.8, 108.6),
}

TABLE = c4.on_all_data(
    "c4/table9",
    "Table 9: learners on all the data",
    "scores of learners on all the data",
    ("bc", "td3_bc_base", "iql", "cql_base", "cql_c4"),
    PUBLISHED,
)
