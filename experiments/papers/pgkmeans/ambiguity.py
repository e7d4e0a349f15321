"""Is the answer unique, and can its confidence be trusted? (What the paper's reviewers asked for; its appendix A.3.)

    trajclust run pgkmeans/ambiguity --preset cpu

On the permuted Takeball clustering by the place of the ball taken explains the data as well as clustering by its
number. Restarts then end in groups of equally good, different solutions, and that shows without labels.
"""

import numpy as np

from trajclust_envs.plotting import PALETTE
from trajclust_experiments.papers.pgkmeans import common
from trajclust_experiments.rendering import document, provenance, spread
from trajclust_experiments.tables import Records, Table


def render(records: Records):
    rows = []
    grouped = common.by_cell(records)
    figure, axes = common.panels(grouped, 2.8)
    for ax, (dataset, methods) in zip(axes, grouped.items(), strict=True):
        ceiling = common.oracle_nmi(methods)
        for color, (name, record) in zip(PALETTE, common.of_methods(methods), strict=False):
            if "ambiguity" not in record:
                continue
            found = record["ambiguity"]
            said = [{True: "unique", False: "not unique", None: "unknown"}[each["unique"]] for each in found]
            agreement = [each["mean_agreement"] for each in found]
            rows.append(
                [
                    common.TITLES[dataset],
                    common.method_title(name),
                    ", ".join(f"{answer} {said.count(answer)}" for answer in dict.fromkeys(said)),
                    ", ".join(str(len(each["groups"])) for each in found),
                    spread(agreement),
                    spread(record["scores"]["nmi"]),
                    f"{ceiling:.3f}",
                    spread([each["mean_entropy"] for each in found]),
                    spread([each["calibration"]["error"] for each in found]),
                    spread([each["conflict_rate"] for each in found]) if "conflict_rate" in found[0] else "-",
                ]
            )
            count = np.sum([each["calibration"]["count"] for each in found], axis=0)
            right = np.nansum(
                [np.multiply(each["calibration"]["count"], _zero(each["calibration"]["accuracy"])) for each in found],
                axis=0,
            )
            sure = np.nansum(
                [np.multiply(each["calibration"]["count"], _zero(each["calibration"]["confidence"])) for each in found],
                axis=0,
            )
            shown = count > 0
            ax.plot(
                sure[shown] / count[shown],
                right[shown] / count[shown],
                "o-",
                ms=3,
                lw=1,
                color=color,
                label=common.method_title(name),
            )
        ax.plot([0, 1], [0, 1], ":", color="gray", lw=1, label="calibrated")
        ax.set(xlabel="confidence", xlim=(0, 1.03), ylim=(0, 1.03))
        ax.legend(fontsize=6)
    axes[0].set_ylabel("share that is right")
    header = ["task", "method", "the answer looks (seeds)", "groups of equally good solutions, by seed"]
    header += ["mean NMI between restarts", "NMI", "oracle", "posterior entropy, 0 to 1", "calibration error"]
    header += ["conflicts within clusters, share of pairs"]
    notes = [
        *provenance(records),
        "All but NMI, oracle and calibration is found without labels. Conflicts: Eq. 12 as a share of pairs.",
    ]
    title = "Ambiguity: is the answer unique?"
    return document(title, header, rows, notes), {"calibration": figure}


def _zero(values) -> np.ndarray:
    """Means of empty bins, which are null in a record, as 0."""
    return np.nan_to_num(np.array(values, float))


TABLE = Table(
    name="pgkmeans/ambiguity",
    summary="agreement of restarts, groups of equally good solutions, calibration",
    datasets=("diagonal", "takeball", "takeball-permuted"),
    methods=("pg_kmeans_tabular", "pg_kmeans_mlp"),
    presets=common.PRESETS,
    cells=common.cells,
    render=render,
)
