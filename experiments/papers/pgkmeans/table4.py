"""Table 4 of the PG-Kmeans paper: normalised returns of its centres' policies and of offline learners.

    trajclust run pgkmeans/table4 --preset cpu --datasets hopper

The paper evaluates the policies of the two clusters that are not empty and has the learners' numbers from CORL, on
D4RL's data. Ours are all on the data the caption names. Besides, BC on that of PG-Kmeans' two clusters whose
trajectories have the higher mean return: what one does with a clustering.
"""

import dataclasses
from typing import Any

import numpy as np

from trajclust_experiments import catalogue
from trajclust_experiments.catalogue import CATALOGUE
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.learners import CentreCell, LearnerCell
from trajclust_experiments.papers import pgkmeans
from trajclust_experiments.presets import LEARNING
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import dataset_title
from trajclust_experiments.rendering.intervals import difference_interval
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.rendering.scores import CORL, NOTES, Scored, score_columns, score_figure, shown_score
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.metrics import probability_of_improvement

PUBLISHED = CORL | {
    "centres_single": {
        "halfcheetah-medium-expert": 56.5,
        "ant-medium-expert": 76.3,
        "walker2d-medium-expert": 44.3,
        "hopper-medium-expert": 42.48,
    },
    "centres": {
        "halfcheetah-medium-expert": 83.4,
        "ant-medium-expert": 130.4,
        "walker2d-medium-expert": 104.5,
        "hopper-medium-expert": 87.2,
    },
}
CENTRES = ("centres_single", "centres")
ON_CLUSTER = "bc_on_cluster"
METHODS = (*CENTRES, "bc", ON_CLUSTER, "bc_10", "awac", "cql_corl")
DATASETS = tuple(name for name in pgkmeans.PAPER_DATASETS if name.endswith("medium-expert"))

_QUICK = {"iterations": 2, "polish_iterations": 1, "polish_first_steps": 20, "polish_steps": 10}
_SMOKE = LEARNING["smoke"]
PRESETS = {
    **LEARNING,
    "smoke": dataclasses.replace(_SMOKE, settings={**_SMOKE.settings, **dict.fromkeys(CENTRES, _QUICK)}),
}

# Policies that are to act are trained for longer than those that only tell trajectories apart.
ACTING = {"polish_steps": 5_000}


def clustering_settings(preset: Preset, method: str, **settings: Any) -> dict[str, Any]:
    """PG-Kmeans' settings on long data, but for `settings`; `method` is one of `CENTRES`."""
    settings = {**CATALOGUE[method].long_settings(), **settings, **preset.settings.get(method, {})}
    return settings | ({"restarts": 1} if method == "centres_single" else {})


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset and method."""
    chosen: list[Cell] = []
    for dataset in datasets:
        for method in methods:
            learner = "bc" if method == ON_CLUSTER else method
            settings = preset.settings.get(learner, {})
            if method in CENTRES:
                settings = clustering_settings(preset, method, **ACTING)
            place = (dataset, preset.long_size, learner, tuple(seeds), tuple(sorted(settings.items())))
            if method in CENTRES:
                chosen.append(CentreCell(*place))
            elif method == ON_CLUSTER:
                found_by = tuple(clustering_settings(preset, "centres").items())
                chosen.append(LearnerCell(*place, clusters="pg_kmeans_mlp", cluster_settings=found_by))
            else:
                chosen.append(LearnerCell(*place))
    return chosen


def name_of(record: dict) -> str:
    """One of `METHODS`."""
    return ON_CLUSTER if record["cell"].get("clusters") else record["cell"]["method"]


def _title(name: str) -> str:
    return "BC on PG-Kmeans' better cluster" if name == ON_CLUSTER else catalogue.title(name)


def render(records: Records):
    found = {(record["cell"]["dataset"], name_of(record)): record for record in records}
    datasets = dict.fromkeys(dataset for dataset, _ in found)
    shown = [
        Scored(
            found[dataset, name],
            _title(name),
            PUBLISHED.get(name, {}).get(dataset),
            from_clusters=name in (*CENTRES, ON_CLUSTER),
        )
        for dataset in datasets
        for name in METHODS
        if (dataset, name) in found
    ]
    notes = [
        *provenance(records),
        *NOTES,
        "PG-Kmeans' policies: score is that of the cluster whose trajectories have the highest mean return, best "
        "evaluation that of the best policy of all clusters, as in the paper.",
        "BC on the better cluster: all seeds learn from one clustering, whose luck is not in the intervals.",
        "The paper's numbers are of D4RL's data; its learners' are CORL's.",
        *_clustering_pays({place: shown_score(record) for place, record in found.items()}),
    ]
    title = "PG-Kmeans paper, Table 4: normalised returns"
    return columns.table(title, score_columns(), shown, notes), {"scores": score_figure(shown)}


def _clustering_pays(scores: dict[tuple[str, str], np.ndarray]) -> list[str]:
    """BC on the better cluster against BC on everything, a line a dataset that has both."""
    lines = []
    for dataset in DATASETS:
        apart, together = scores.get((dataset, ON_CLUSTER)), scores.get((dataset, "bc"))
        if apart is None or together is None or len(apart) != len(together):
            continue
        low, high = difference_interval(apart, together)
        better = probability_of_improvement([apart], [together])
        lines.append(
            f"{dataset_title(dataset)}: BC on the better cluster is {apart.mean() - together.mean():+.1f} above BC on "
            f"everything ({low:+.1f} to {high:+.1f}), and better with probability {better:.2f}."
        )
    return lines


TABLE = Table(
    name="pgkmeans/table4",
    summary="normalised returns of PG-Kmeans' policies and of offline learners",
    datasets=DATASETS,
    methods=METHODS,
    presets=PRESETS,
    cells=cells,
    render=render,
)
