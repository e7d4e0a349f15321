"""Tables of all K: what 1, 4 and 5 have in common."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.cells.behaviours import swept
from trajclust_experiments.papers import lbrac_v
from trajclust_experiments.papers.lbrac_v import COUNTS, Scale, by_k, title_of
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.markdown import spread
from trajclust_experiments.rendering.scores import evaluated, updates

SWEEP = {"sweep": (("k", COUNTS),), "room": max(COUNTS)}


class Line(NamedTuple):
    """A learner, of LBRAC-v one K."""

    record: dict[str, Any]
    score: np.ndarray  # [S]
    relative: np.ndarray  # [S]
    k: int | None = None
    nmi: np.ndarray | None = None
    homogeneity: np.ndarray | None = None
    used: np.ndarray | None = None


def sweep_cell(preset: Scale, dataset: str, seeds: Sequence[int]) -> Any:
    """LBRAC-v with every K, as one program."""
    return lbrac_v.cell(preset, dataset, "lbrac_v", seeds, **{"k": 1, **SWEEP})


def lines(record: dict[str, Any]) -> Iterator[Line]:
    """A line each K of a sweep, or one."""
    name = "last_score" if "last_score" in record["scores"] else "last_return"
    if not record["config"]["sweep"]:
        yield Line(record, np.array(record["scores"][name]), np.array(record["scores"]["relative"]))
        return
    each = [by_k(record, score) for score in (name, "relative", "nmi", "homogeneity", "used_clusters")]
    for of_k in zip(*each, strict=True):
        k = of_k[0][0]
        score, relative, nmi, homogeneity, used = (values for _, values in of_k)
        yield Line(record, score, relative, k, nmi, homogeneity, used)


def evaluations(line: Line) -> dict[int, np.ndarray]:
    """Scores (returns where there are none) `[S]` of a training's evaluations, by the gradient steps of the policy."""
    steps, scores = evaluated(line.record)
    if line.k is not None:
        scores = scores[..., [row["k"] for row in swept(line.record["config"])].index(line.k)]
    return dict(zip(steps.tolist(), scores, strict=True))


def spread_of(name: str, digits: int = 2) -> Any:
    """A cell's text: a line's numbers over seeds."""
    return lambda line: "" if getattr(line, name) is None else spread(getattr(line, name), digits)


COLUMNS = [
    columns.task(),
    columns.method("policies", lambda line: title_of(line.record["cell"]["method"])),
    Column("K", lambda line: "-" if line.k is None else str(line.k)),
    Column("score", spread_of("score", 1)),
    Column("relative return", spread_of("relative")),
    Column("NMI", spread_of("nmi")),
    Column("homogeneity", spread_of("homogeneity")),
    Column("used codes", spread_of("used", 1)),
    Column("gradient steps", lambda line: f"{updates(line.record):,}"),
    columns.num_seeds(),
    columns.seconds("seconds, all seeds and K (compile + run)", "compile", "run"),
]
