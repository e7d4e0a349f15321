"""Table 2 of the EMPO paper: normalised returns of EMPO and other learners on medium-expert data.

    trajclust run empo/table2 --preset cpu --datasets hopper --methods empo iql

The paper has the others' numbers from IQL's paper, on D4RL's data; ours are all on the data that the caption names.
"""

from trajclust_experiments.catalogue import title
from trajclust_experiments.presets import LEARNING, learner_cells
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.intervals import difference_interval
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.rendering.scores import NOTES, Scored, score_columns, score_figures, shown_score, standings
from trajclust_experiments.tables import Records, Table

DATASETS = ("halfcheetah-medium-expert", "hopper-medium-expert", "walker2d-medium-expert")
METHODS = ("bc", "awac", "td3_bc", "cql", "iql", "iql_corl", "empo")
PUBLISHED = {
    name: dict(zip(DATASETS, values, strict=True))
    for name, values in {
        "bc": (55.2, 52.5, 107.5),
        "awac": (42.8, 55.8, 74.5),
        "td3_bc": (90.7, 98.0, 110.1),
        "cql": (91.6, 105.4, 108.8),
        "iql": (86.7, 91.5, 109.6),
        "empo": (92.6, 110.2, 108.4),
    }.items()
}


def _found(records: Records) -> dict:
    return {(record["cell"]["dataset"], record["cell"]["method"]): record for record in records}


def _shown(records: Records) -> list[Scored]:
    found = _found(records)
    return [
        Scored(found[dataset, name], title(name), PUBLISHED.get(name, {}).get(dataset), from_clusters=name == "empo")
        for dataset in DATASETS
        for name in METHODS
        if (dataset, name) in found
    ]


def render(records: Records):
    found, shown = _found(records), _shown(records)
    notes = [
        *provenance(records),
        *NOTES,
        "EMPO's gradient steps are the high level's; its improvement's epochs, each one step on everything, come last.",
        *filter(None, (_against_iql(found, dataset) for dataset in DATASETS)),
    ]
    text = columns.table("EMPO paper, Table 2: normalised returns", score_columns(), shown, notes)
    return text, score_figures(shown, title("empo" if any(entry.from_clusters for entry in shown) else "bc"))


def _against_iql(found: dict, dataset: str) -> str | None:
    """EMPO beside the better of IQL's two settings."""
    others = [found[dataset, name] for name in ("iql", "iql_corl") if (dataset, name) in found]
    if (dataset, "empo") not in found or not others:
        return None
    ours, best = shown_score(found[dataset, "empo"]), max(others, key=lambda record: shown_score(record).mean())
    theirs = shown_score(best)
    low, high = difference_interval(ours, theirs)
    name = title(best["cell"]["method"])
    where = columns.dataset_title(dataset)
    return f"{where}: EMPO above {name} by {ours.mean() - theirs.mean():+.1f} ({low:+.1f} to {high:+.1f})."


TABLE = Table(
    name="empo/table2",
    summary="normalised returns of EMPO and other learners on medium-expert data",
    datasets=DATASETS,
    methods=METHODS,
    presets=LEARNING,
    cells=learner_cells,
    render=render,
    standings=lambda records: standings(_shown(records), METHODS),
)
