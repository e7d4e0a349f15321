"""Table 6 of the C^4 paper: CQL with and without C^4 on all the data.

trajclust run c4/table6 --preset cpu --datasets hopper-medium-expert
"""

from trajclust_experiments.papers import c4

PUBLISHED = {
    "hopper-medium": (58.5, 85.9),
    "hopper-medium-expert": (105.4, 89.4),
    "halfcheetah-medium": (41.0, 48.5),
    "halfcheetah-medium-expert": (91.6, 91.6),
    "walker2d-medium": (72.5, 81.8),
    "walker2d-medium-expert": (108.8, 108.6),
}

TABLE = c4.on_all_data(
    "c4/table6",
    "Table 6: CQL on all the data",
    "CQL with and without C^4 on all the data",
    ("cql_base", "cql_c4"),
    PUBLISHED,
)
