"""Figure 6 of the C^4 paper: TD3+BC with layer normalisation, DR3 and C^4 over the training.

    trajclust run c4/figure6 --preset cpu --datasets hopper-medium-expert

The cells are Table 1's.
"""

from trajclust_experiments.papers import c4
from trajclust_experiments.tables import Records, Table


def render(records: Records):
    text = c4.page("C^4 paper, Figure 6: TD3+BC over the training", c4.score_columns(lambda line: None), records)
    return text, {"scores": c4.course_figure(records, c4.evaluated, "score")}


TABLE = Table(
    name="c4/figure6",
    summary="scores of TD3+BC with LN, DR3 and C^4 over the training",
    datasets=c4.DATASETS,
    methods=tuple(name for name in c4.COMPARED if name.startswith("td3_bc")),
    presets=c4.PRESETS,
    cells=c4.cells,
    render=render,
)
