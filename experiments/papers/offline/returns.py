"""Every offline learner on every made dataset: a broken learner would be seen here.

    trajclust run offline/returns --preset cpu --datasets hopper-medium-expert --methods iql td3_bc bc

Beside it what others report on D4RL's data of the same names, a sane run's size.
"""

import numpy as np

from trajclust_experiments.learners import LEARNERS
from trajclust_experiments.papers.pgkmeans import common, table4
from trajclust_experiments.rendering import document, provenance
from trajclust_experiments.tables import Records, Table
from trajclust_jax.data import REGISTRY
from trajclust_jax.metrics import interquartile_mean, probability_of_improvement, stratified_bootstrap

PUBLISHED = {name: numbers for name, numbers in table4.PUBLISHED.items() if name in LEARNERS} | {
    "iql_corl": {"halfcheetah": 94.7, "walker2d": 111.7},  # on Hopper it has other settings
    "brac_v": {"halfcheetah": 41.9, "walker2d": 81.6, "hopper": 0.8},
}


def render(records: Records):
    rows, figure = table4.score_rows(records, tuple(LEARNERS), PUBLISHED)
    lines = [_over_tasks(name, records) for name in LEARNERS]
    notes = [
        *provenance(records),
        *table4.NOTES,
        "Paper: CORL's last scores on D4RL's medium-expert data; BRAC-v's are of the LBRAC-v paper's Table 1.",
        *filter(None, lines),
    ]
    return document("Offline learners on made data", table4.HEADER, rows, notes), {"scores": figure}


def _over_tasks(name: str, records: Records) -> str | None:
    """A learner over its tasks, and beside BC on the same ones."""
    found = {r["cell"]["dataset"]: table4.shown_score(r) for r in records if r["cell"]["method"] == name}
    cloned = {r["cell"]["dataset"]: table4.shown_score(r) for r in records if r["cell"]["method"] == "bc"}
    if not found:
        return None
    values, tasks = list(found.values()), "task" if len(found) == 1 else "tasks"
    statistic, of = (interquartile_mean, "interquartile mean") if len(np.concatenate(values)) > 3 else (np.mean, "mean")
    low, high = stratified_bootstrap(values, statistic, np.random.default_rng(0))
    text = f"{LEARNERS[name].title} over {len(found)} {tasks}: {of} "
    text += f"{statistic(np.concatenate(values)):.1f} ({low:.1f} to {high:.1f})"
    both = [dataset for dataset in found if dataset in cloned and name != "bc"]
    if both:
        better = probability_of_improvement([found[d] for d in both], [cloned[d] for d in both])
        text += f", better than BC with probability {better:.2f}"
        text += f" on the {len(both)} that BC has, too" if len(both) < len(found) else ""
    return text + "."


TABLE = Table(
    name="offline/returns",
    summary="normalised returns of every offline learner on the made datasets",
    datasets=tuple(name for name in common.DATASETS if REGISTRY[name].long),
    methods=tuple(LEARNERS),
    presets=table4.PRESETS,
    cells=table4.cells,
    render=render,
)
