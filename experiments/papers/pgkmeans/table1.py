"""Table 1 of the PG-Kmeans paper: NMI of every method, beside the paper and the ceilings.

    trajclust run pgkmeans/table1 --preset cpu                                          everything: two or three hours
    trajclust run pgkmeans/table1 --preset cpu --datasets takeball --methods pg_kmeans_mlp caae
    trajclust run pgkmeans/table1 --preset paper --datasets diagonal takeball --methods pg_kmeans_mlp

PG-Kmeans here is best of 5 restarts, chosen by J after merging from k* + 2 clusters and a polish (planners: k*
clusters, neither merged nor polished; MuJoCo: what is explained worst is reconsidered). The paper's policies see the
whole observation history (GRU); Markov policies (MLP, table, planner) are cheaper and the experts, which are Markov, do
not outgrow them. The paper does not say whether Extra's random map is drawn once or for every episode: both are here.
Run times stand in the table, from the records.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trajclust_experiments.catalogue import CATALOGUE, entries
from trajclust_experiments.cells.methods import ORACLE
from trajclust_experiments.papers import pgkmeans
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column, dataset_title
from trajclust_experiments.rendering.comparisons import comparison_figures
from trajclust_experiments.rendering.figures import captioned
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.rendering.scenes import sample_figure
from trajclust_experiments.rendering.stored import Grouped, answered, grouped, oracle_nmi
from trajclust_experiments.tables import Records, Standing, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class _Line(NamedTuple):
    record: dict[str, Any]
    dataset: str
    name: str
    ceiling: str  # the oracle's


def _paper(line: _Line) -> tuple[float, float] | None:
    return pgkmeans.published(line.dataset, line.name)


def _method(line: _Line) -> str:
    """What is not by default concerns those that answer."""
    return pgkmeans.method_title(line.name, "" if "not_applicable" in line.record else line.dataset)


COLUMNS = [
    columns.task(),
    columns.method(title=_method),
    columns.score("nmi", "NMI", refused="n/a"),
    *columns.published(_paper, refused=lambda line: "-" if _paper(line) else "n/a"),
    Column("oracle (ties at random)", lambda line: line.ceiling),
    columns.score("ari", "adjusted Rand"),
    columns.score("accuracy", "accuracy"),
    columns.score("behavioural_kl", "behavioural KL, nats a step"),
    columns.seeds(),
    columns.seconds("seconds, all seeds (data + compile + run)", "data", "compile", "run"),
]


def render(records: Records):
    found = grouped(records)
    lines, reasons = [], {}
    figures = {"nmi": pgkmeans.nmi_bars(found), **_over_tasks(found)}
    for dataset, methods in found.items():
        ceiling = "-"
        for record in methods.get(ORACLE, []):
            figures |= _sample(dataset, ORACLE, record)
            ceiling = "{nmi:.3f} ({nmi_random_ties:.3f})".format(**record["scores"])
        for name in entries("clusterer", "ceiling"):
            place = f"{dataset_title(dataset)}, {pgkmeans.method_title(name)}"
            reason = pgkmeans.LEFT_OUT.get((dataset, name))
            if reason:
                reasons.setdefault(reason, []).append(place)
            for record in methods.get(name, []):
                lines.append(_Line(record, dataset, name, ceiling))
                if "not_applicable" in record:
                    reasons.setdefault(record["not_applicable"], []).append(place)
                else:
                    figures |= _sample(dataset, name, record)
    notes = [
        *provenance(records),
        "PG-Kmeans: best of 5 restarts by J; mean ± std over seeds.",
        "The paper has 20,000 grid-world trajectories a policy.",
        "Oracle: Bayes assignment under the true experts, ties to the first (random ties in brackets).",
        *(f"{'; '.join(places)}: {reason}." for reason, places in reasons.items()),
    ]
    if any(CATALOGUE[line.name].kind == "ceiling" for line in lines):
        notes.append(
            "Cloning from true labels is a ceiling for its policy class, not a method: each half of the trajectories "
            "is classified by policies cloned from the other half with its labels."
        )
    return columns.table("PG-Kmeans paper, Table 1", COLUMNS, lines, notes), figures


def _sample(dataset: str, name: str, record: dict[str, Any]) -> "dict[str, Figure]":
    """A picture of the record's trajectories, by file stem; none on maps that are fresh in every episode."""
    if not record.get("sample"):
        return {}
    groups = "each true policy" if name == ORACLE else f"each cluster that {pgkmeans.method_title(name)} found"
    figure = captioned(
        sample_figure(record["sample"], dataset),
        f"{dataset_title(dataset)}: trajectories of {groups}, in the colours of the policies that match them best.",
    )
    return {f"{dataset}-{name}": figure}


def _over_tasks(found: Grouped) -> "dict[str, Figure]":
    """Methods over the tasks that most of them share."""
    scores: dict[str, dict[str, np.ndarray]] = {}
    for dataset, methods in found.items():
        for name in entries("clusterer"):
            for record in answered(methods.get(name, [])):
                scores.setdefault(pgkmeans.method_title(name), {})[dataset_title(dataset)] = np.array(
                    record["scores"]["nmi"]
                )
    return comparison_figures(scores, "NMI")


def standings(records: Records) -> list[Standing]:
    """NMI of every clusterer on every task."""
    found = grouped(records)
    return [
        Standing(
            dataset,
            pgkmeans.method_title(name),
            None if "not_applicable" in record else float(np.mean(record["scores"]["nmi"])),
            (pgkmeans.published(dataset, name) or (None,))[0],
            oracle_nmi(methods),
        )
        for name in entries("clusterer")
        for dataset, methods in found.items()
        for record in methods.get(name, [])
    ]


TABLE = Table(
    name="pgkmeans/table1",
    summary="NMI of every method, beside the paper and the ceilings",
    datasets=pgkmeans.DATASETS,
    methods=(
        *("pg_kmeans_tabular", "pg_kmeans_mlp", "pg_kmeans_gru", "pg_kmeans_planner"),
        *("caae", "dec", "vae_kmeans", "sorl", "sorl_sum"),
        *("empo_mlp", "behaviour_set", "behaviour_set_released"),
        *("return_kmeans", "length_kmeans", "mean_kmeans"),
        *("cloning_mlp", "cloning_planner"),
    ),
    presets=pgkmeans.PRESETS,
    cells=pgkmeans.cells,
    render=render,
    standings=standings,
)
