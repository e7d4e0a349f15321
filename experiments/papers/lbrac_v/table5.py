"""Table 5 of the LBRAC-v paper: LBRAC-v for every K on heterogeneous data.

    trajclust run lbrac_v/table5 --preset cpu --datasets gates-5

Its pictures are those of Figure 6, of these tasks.
"""

import dataclasses

from trajclust_experiments.papers.lbrac_v import GATES, HETEROGENEOUS
from trajclust_experiments.papers.lbrac_v._maps import map_figures
from trajclust_experiments.papers.lbrac_v.table4 import TABLE as TABLE4
from trajclust_experiments.papers.lbrac_v.table4 import render as render4


def render(records):
    text, figures = render4(records)
    return text.replace("Table 4", "Table 5", 1), {**figures, **map_figures(records)}


TABLE = dataclasses.replace(
    TABLE4,
    name="lbrac_v/table5",
    summary="LBRAC-v for every K on heterogeneous data",
    datasets=(*GATES, *HETEROGENEOUS),
    render=render,
)
