"""Table 1 of the LBRAC-v paper: normalised scores of learners, LBRAC-v at its best K.

    trajclust run lbrac_v/table1 --preset cpu --datasets hopper-medium-expert

The paper reports the best K for each dataset; all of them are in `lbrac_v/table4`, from the same records. Data are made
by the package's own policies where D4RL's files are not there.
"""

from collections.abc import Callable

import numpy as np

from trajclust_experiments import catalogue
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import lbrac_v
from trajclust_experiments.papers.lbrac_v import D4RL, PRESETS, PUBLISHED, Scale
from trajclust_experiments.papers.lbrac_v._results import COLUMNS, Line, evaluations, lines, sweep_cell
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.comparisons import comparison_figures
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.tables import Records, Standing, Table

METHODS = ("bc", "brac_v", "cql", "bcq", "plas", "lbrac_v")
QUOTED = {"f_brc": "F-BRC", "mopp": "MOPP", "mopo": "MOPO"}  # not built


def cells(preset: Scale, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset and learner; of LBRAC-v all K in one."""
    every = lambda dataset, method: (
        sweep_cell(preset, dataset, seeds) if method == "lbrac_v" else lbrac_v.cell(preset, dataset, method, seeds)
    )
    return [every(dataset, method) for dataset in datasets for method in methods]


def published(line):
    """The paper's score of a line's learner and dataset, with its std where it has one, or None."""
    described = line.record["cell"]
    text = PUBLISHED.get(described["dataset"], {}).get(described["method"])
    return None if text is None else tuple(float(part) for part in text.split("±"))


def _quoted(name: str) -> Callable[[Line], str]:
    return lambda line: PUBLISHED.get(line.record["cell"]["dataset"], {}).get(name, "-").replace("±", " ± ")


def _best(records: Records) -> list[Line]:
    return [max(lines(record), key=lambda line: line.score.mean()) for record in records]


def at_fewest(best: list[Line]) -> Callable[[Line], str]:
    """Of each line the evaluation after as many gradient steps as the dataset's shortest training of a policy has."""
    fewest: dict[str, int] = {}
    for line in best:
        dataset, steps = line.record["cell"]["dataset"], line.record["config"]["learner"]["updates"]
        fewest[dataset] = min(steps, fewest.get(dataset, steps))

    def shown(line: Line) -> str:
        steps = fewest[line.record["cell"]["dataset"]]
        found = evaluations(line).get(steps)
        return "-" if found is None else f"{spread(found, 1)} ({steps:,})"

    return shown


def render(records: Records):
    best = _best(records)
    header = [
        *COLUMNS[:5],
        Column("score at equal steps", at_fewest(best)),
        *columns.published(published, lambda line: float(np.mean(line.score)), digits=1),
        *(Column(f"{title}, paper", _quoted(name)) for name, title in QUOTED.items()),
        *COLUMNS[5:],
    ]
    notes = [
        *provenance(records),
        "LBRAC-v: the K whose mean over seeds is highest, as the paper reports it; it flatters. All K: table4.",
        "Gradient steps: of both stages, where a learner has two. Score at equal steps: of the evaluation after as "
        "many of the policy's, in brackets, as the learner with the fewest on these data has.",
        "Paper: scores on D4RL's own files; F-BRC, MOPP and MOPO are not built.",
    ]
    scores: dict[str, dict[str, np.ndarray]] = {}
    for line in best:
        cell = line.record["cell"]
        scores.setdefault(catalogue.title(cell["method"]), {})[columns.dataset_title(cell["dataset"])] = line.score
    figures = comparison_figures(scores, "normalised score", catalogue.title("brac_v"))
    return columns.table("LBRAC-v paper, Table 1", header, best, notes), figures


def standings(records: Records) -> list[Standing]:
    """Scores, beside the best policy's of the data."""
    return [
        Standing(
            line.record["cell"]["dataset"],
            catalogue.title(line.record["cell"]["method"]),
            float(line.score.mean()),
            (published(line) or (None,))[0],
            max(line.record["policies"].values()),
        )
        for line in sorted(_best(records), key=lambda line: METHODS.index(line.record["cell"]["method"]))
    ]


TABLE = Table(
    name="lbrac_v/table1",
    summary="normalised scores of learners, LBRAC-v at its best K",
    datasets=D4RL,
    methods=METHODS,
    presets=PRESETS,
    cells=cells,
    render=render,
    standings=standings,
)
