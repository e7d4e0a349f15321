"""Every offline learner on every made dataset: a broken learner would be seen here.

    trajclust run offline/returns --preset cpu --datasets hopper-medium-expert --methods iql td3_bc bc

Beside it what others report on D4RL's data of the same names, a sane run's size.
"""

import numpy as np

from trajclust_experiments.catalogue import entries, title
from trajclust_experiments.presets import LEARNING, learner_cells
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.rendering.scores import (
    CORL,
    NOTES,
    Scored,
    score_columns,
    score_figures,
    shown_score,
    standings,
)
from trajclust_experiments.tables import Records, Table
from trajclust_jax.data import REGISTRY
from trajclust_jax.metrics import interquartile_mean, probability_of_improvement, stratified_bootstrap

METHODS = tuple(name for name, entry in entries("learner").items() if not entry.imitates)
PUBLISHED = CORL | {
    "iql_corl": {"halfcheetah-medium-expert": 94.7, "walker2d-medium-expert": 111.7},  # on Hopper it has other settings
    "brac_v": {"halfcheetah-medium-expert": 41.9, "walker2d-medium-expert": 81.6, "hopper-medium-expert": 0.8},
    "lbrac_v": {"halfcheetah-medium-expert": 94.22, "walker2d-medium-expert": 109.65, "hopper-medium-expert": 98.08},
    "bcq": {"halfcheetah-medium-expert": 64.7, "walker2d-medium-expert": 57.5, "hopper-medium-expert": 110.9},
    "plas": {"halfcheetah-medium-expert": 96.6, "walker2d-medium-expert": 89.6, "hopper-medium-expert": 111.0},
}


def _shown(records: Records) -> list[Scored]:
    found = {(record["cell"]["dataset"], record["cell"]["method"]): record for record in records}
    datasets = dict.fromkeys(dataset for dataset, _ in found)
    return [
        Scored(found[dataset, name], title(name), PUBLISHED.get(name, {}).get(dataset))
        for dataset in datasets
        for name in METHODS
        if (dataset, name) in found
    ]


def render(records: Records):
    shown = _shown(records)
    lines = [_over_tasks(name, records) for name in METHODS]
    notes = [
        *provenance(records),
        *NOTES,
        "Paper: CORL's last scores on D4RL's medium-expert data; BRAC-v's, LBRAC-v's, BCQ's and PLAS' are of the "
        "LBRAC-v paper's Table 1.",
        *filter(None, lines),
    ]
    text = columns.table("Offline learners on made data", score_columns(), shown, notes)
    return text, score_figures(shown, title("bc"))


def _over_tasks(name: str, records: Records) -> str | None:
    """A learner over its tasks, and beside BC on the same ones."""
    found = {r["cell"]["dataset"]: shown_score(r) for r in records if r["cell"]["method"] == name}
    cloned = {r["cell"]["dataset"]: shown_score(r) for r in records if r["cell"]["method"] == "bc"}
    if not found:
        return None
    values, tasks = list(found.values()), "task" if len(found) == 1 else "tasks"
    statistic, of = (interquartile_mean, "interquartile mean") if len(np.concatenate(values)) > 3 else (np.mean, "mean")
    low, high = stratified_bootstrap(values, statistic, np.random.default_rng(0))
    text = f"{title(name)} over {len(found)} {tasks}: {of} "
    text += f"{statistic(np.concatenate(values)):.1f} ({low:.1f} to {high:.1f})"
    both = [dataset for dataset in found if dataset in cloned and name != "bc"]
    if both:
        better = probability_of_improvement([found[d] for d in both], [cloned[d] for d in both])
        text += f", better than BC with probability {better:.2f}"
        text += f" on the {len(both)} that BC has, too" if len(both) < len(found) else ""
    return text + "."


_PAIRS = ("medium-expert", "medium-replay", "late-expert")
TABLE = Table(
    name="offline/returns",
    summary="normalised returns of every offline learner on the made datasets",
    datasets=tuple(
        f"{task}-{pair}"
        for pair in _PAIRS
        for task in ("halfcheetah", "ant", "walker2d", "hopper")
        if f"{task}-{pair}" in REGISTRY
    ),
    methods=METHODS,
    presets=LEARNING,
    cells=learner_cells,
    render=render,
    standings=lambda records: standings(_shown(records), METHODS),
)
