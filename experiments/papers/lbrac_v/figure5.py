"""Figure 5 of the LBRAC-v paper: W by its principal components, K = 1, on Walker2d's data.

    trajclust run lbrac_v/figure5 --preset cpu

From the records of `lbrac_v/table4`.
"""

from trajclust_experiments.papers.lbrac_v import PRESETS
from trajclust_experiments.papers.lbrac_v._maps import map_figure
from trajclust_experiments.papers.lbrac_v._results import COLUMNS, lines
from trajclust_experiments.papers.lbrac_v.table4 import cells
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import dataset_title
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.tables import Records, Table


def render(records: Records):
    shown = [
        (dataset_title(record["cell"]["dataset"]), each, record["map_of"])
        for record in records
        for each in record["maps"]
        if each["k"] == 1
    ]
    rows = [line for record in records for line in lines(record) if line.k == 1]
    figures = {"embeddings": map_figure(shown)}
    return columns.table("LBRAC-v paper, Figure 5", COLUMNS, rows, provenance(records)), figures


TABLE = Table(
    name="lbrac_v/figure5",
    summary="LBRAC-v's embeddings of trajectories, K = 1",
    datasets=("walker2d-medium-expert", "walker2d-medium-replay"),
    methods=("lbrac_v",),
    presets=PRESETS,
    cells=cells,
    render=render,
)
