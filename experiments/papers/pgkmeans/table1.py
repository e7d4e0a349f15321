"""Table 1 of the PG-Kmeans paper, rows Diagonal and Takeball: NMI of each method, beside the oracle's ceiling.

    trajclust run pgkmeans/table1 --preset cpu                                   all methods
    trajclust run pgkmeans/table1 --preset cpu --methods pg_kmeans_mlp           one method
    trajclust run pgkmeans/table1 --preset paper --methods pg_kmeans_mlp         the paper's scale

PG-Kmeans here is best of 5 restarts, chosen by J after merging from k* + 2 clusters and a polish. The paper's
policies see the whole observation history (GRU); the Markov MLP and the table are cheaper classes that the
experts, which are Markov, do not outgrow. Run times stand in the table, from the records.
"""

from experiments.methods import METHODS, ORACLE
from experiments.papers.pgkmeans import common
from experiments.tables import Records, Table

# Mean and std over at least 10 seeds, Table 1, column PG-Kmeans; minutes on an RTX A6000 for one seed, Table 6.
PUBLISHED = {"diagonal": (0.92, 0.00), "takeball": (1.00, 0.00)}
PUBLISHED_MINUTES = {"diagonal": 22.0, "takeball": 5.7}


def render(records: Records):
    grouped = common.by_cell(records)
    rows = []
    figures = {"nmi": common.nmi_bars(grouped, {name: mean for name, (mean, _) in PUBLISHED.items()})}
    for dataset, methods in grouped.items():
        ceiling = methods[ORACLE][0]["scores"]
        paper = "{:.2f} ± {:.2f}".format(*PUBLISHED[dataset])
        figures[f"{dataset}-{ORACLE}"] = common.sample_figure(methods[ORACLE][0])
        for name in METHODS:
            for record in methods.get(name, []):
                scores, timing = record["scores"], record["timing"]
                mean = sum(scores["nmi"]) / len(scores["nmi"])
                rows.append(
                    [
                        common.TITLES[dataset],
                        common.method_title(name),
                        common.spread(scores["nmi"]),
                        paper,
                        f"{mean - PUBLISHED[dataset][0]:+.3f}",
                        f"{ceiling['nmi']:.3f} ({ceiling['nmi_random_ties']:.3f})",
                        common.spread(scores["ari"]),
                        common.spread(scores["accuracy"]),
                        str(len(scores["nmi"])),
                        f"{timing['data_seconds']:.0f} + {timing['compile_seconds']:.0f} + {timing['run_seconds']:.0f}",
                    ]
                )
                figures[f"{dataset}-{name}"] = common.sample_figure(record)
    header = ["task", "method", "NMI", "paper", "difference", "oracle (ties at random)"]
    header += ["adjusted Rand", "accuracy", "seeds", "seconds, all seeds (data + compile + run)"]
    minutes = ", ".join(f"{common.TITLES[k]} {v:g}" for k, v in PUBLISHED_MINUTES.items())
    notes = [
        *common.provenance_lines(records),
        "- PG-Kmeans: best of 5 restarts by J after polish; mean ± std over seeds. The paper has 20,000 a policy.",
        "- Oracle: Bayes assignment under the true experts, ties to the first (random ties in brackets).",
        f"- The paper's minutes for ONE seed, best of 5, on an RTX A6000 (its Table 6): {minutes}.",
    ]
    text = "# PG-Kmeans paper, Table 1 (GridWorld rows)\n\n"
    return text + common.markdown_table(header, rows) + "\n\n" + "\n".join(notes) + "\n", figures


TABLE = Table(
    name="pgkmeans/table1",
    summary="NMI of every method on Diagonal and Takeball, beside the paper and the oracle",
    datasets=common.DATASETS,
    methods=tuple(name for name in METHODS if name.startswith("pg_kmeans")),
    presets=common.PRESETS,
    cells=common.cells,
    render=render,
)
