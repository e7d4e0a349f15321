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

from typing import Any

from matplotlib.figure import Figure

from trajclust_experiments.methods import CEILINGS, METHODS, ORACLE
from trajclust_experiments.papers.pgkmeans import common
from trajclust_experiments.rendering import document, provenance, spread
from trajclust_experiments.scenes import sample_figure
from trajclust_experiments.tables import Records, Table


def render(records: Records):
    grouped = common.by_cell(records)
    rows, reasons = [], {}
    figures = {"nmi": common.nmi_bars(grouped)}
    for dataset, methods in grouped.items():
        ceiling = "-"
        for record in methods.get(ORACLE, []):
            figures |= _sample(dataset, ORACLE, record)
            ceiling = "{nmi:.3f} ({nmi_random_ties:.3f})".format(**record["scores"])
        for name in (*METHODS, *CEILINGS):
            reason = common.LEFT_OUT.get((dataset, name))
            if reason:
                reasons.setdefault(reason, []).append(f"{common.TITLES[dataset]}, {common.method_title(name)}")
            for record in methods.get(name, []):
                paper = common.published(dataset, name)
                if "not_applicable" in record:
                    empty = [common.TITLES[dataset], common.method_title(name), "n/a", "n/a" if not paper else "-"]
                    rows.append(empty + [""] * 7)
                    place = f"{common.TITLES[dataset]}, {common.method_title(name)}"
                    reasons.setdefault(record["not_applicable"], []).append(place)
                    continue
                scores, timing = record["scores"], record["timing"]
                mean = sum(scores["nmi"]) / len(scores["nmi"])
                warned = sum(map(bool, record.get("warnings", [])))
                rows.append(
                    [
                        common.TITLES[dataset],
                        common.method_title(name, dataset),
                        spread(scores["nmi"]),
                        "{:.2f} ± {:.2f}".format(*paper) if paper else "-",
                        f"{mean - paper[0]:+.3f}" if paper else "",
                        ceiling,
                        spread(scores["ari"]),
                        spread(scores["accuracy"]),
                        spread(scores["behavioural_kl"]) if "behavioural_kl" in scores else "",
                        f"{len(scores['nmi'])}" + (f" ({warned} warned)" if warned else ""),
                        f"{timing['data_seconds']:.0f} + {timing['compile_seconds']:.0f} + {timing['run_seconds']:.0f}",
                    ]
                )
                figures |= _sample(dataset, name, record)
    header = ["task", "method", "NMI", "paper", "difference", "oracle (ties at random)", "adjusted Rand", "accuracy"]
    header += ["behavioural KL, nats a step", "seeds", "seconds, all seeds (data + compile + run)"]
    notes = [
        *provenance(records),
        "PG-Kmeans: best of 5 restarts by J; mean ± std over seeds.",
        "The paper has 20,000 grid-world trajectories a policy.",
        "Oracle: Bayes assignment under the true experts, ties to the first (random ties in brackets).",
        *(f"{'; '.join(places)}: {reason}." for reason, places in reasons.items()),
    ]
    if any(name in methods for methods in grouped.values() for name in CEILINGS):
        notes.append(
            "Cloning from true labels is a ceiling for its policy class, not a method: each half of the trajectories "
            "is classified by policies cloned from the other half with its labels."
        )
    title = "PG-Kmeans paper, Table 1"
    return document(title, header, rows, notes), figures


def _sample(dataset: str, name: str, record: dict[str, Any]) -> dict[str, Figure]:
    """A picture of the record's trajectories, by file stem; none on maps that are fresh in every episode."""
    return {f"{dataset}-{name}": sample_figure(record["sample"], dataset)} if record.get("sample") else {}


TABLE = Table(
    name="pgkmeans/table1",
    summary="NMI of every method, beside the paper and the ceilings",
    datasets=common.DATASETS,
    methods=(*(name for name in METHODS if not name.startswith("caae_")), "cloning_mlp", "cloning_planner"),
    presets=common.PRESETS,
    cells=common.cells,
    render=render,
)
