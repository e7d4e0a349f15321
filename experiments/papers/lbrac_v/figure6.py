"""Figure 6 of the LBRAC-v paper: W by its principal components for every K, on Walker2d's medium and expert data.

    trajclust run lbrac_v/figure6 --preset cpu

From the records of `lbrac_v/table4`.
"""

import dataclasses

from trajclust_experiments.papers.lbrac_v._maps import map_figures
from trajclust_experiments.papers.lbrac_v._results import COLUMNS, lines
from trajclust_experiments.papers.lbrac_v.figure5 import TABLE as FIGURE5
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.tables import Records


def render(records: Records):
    rows = [line for record in records for line in lines(record)]
    return columns.table("LBRAC-v paper, Figure 6", COLUMNS, rows, provenance(records)), map_figures(records)


TABLE = dataclasses.replace(
    FIGURE5,
    name="lbrac_v/figure6",
    summary="LBRAC-v's embeddings of trajectories for every K",
    datasets=("walker2d-medium-expert",),
    render=render,
)
