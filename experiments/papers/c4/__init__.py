"""What the C^4 paper's tables share: variants of learners, reduced data, scales, published scores, lines of tables.

"Less Is More: Clustered Cross-Covariance Control for Offline RL" (anonymous, under review).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from trajclust_experiments.catalogue import title
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.learners import LearnerCell, SweptCell
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.comparisons import comparison_figures
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.intervals import draw_curve, interval_column
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.rendering.scores import evaluated
from trajclust_experiments.tables import Preset, Records, Standing, Table
from trajclust_jax.lazy import lazy
from trajclust_jax.metrics import probability_of_improvement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")

Kind = TypeVar("Kind", bound=LearnerCell)

TITLE = "C^4"
TASKS = ("hopper", "walker2d", "halfcheetah", "ant")
DATASETS = tuple(f"{task}-{kind}" for kind in ("medium-expert", "medium") for task in TASKS)
REDUCED = 10_000  # transitions of the paper's small data

# All but layer normalisation and DR3 measure gradients as C^4 does; with these, so does what is plugged over them.
# A base that only looks is the base to the bit.
_LOOKING = {"weight": 0.0, "clustered": False}
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {  # what follows a learner's name: title, plug-ins, settings
    "_base": ("", "c4", _LOOKING),
    "_layer_norm": (" + LN", "layer_norm+c4", _LOOKING),
    "_dr3": (" + DR3", "dr3+c4", _LOOKING),
    "_c4": (" + C^4", "c4", {}),
    "_sampling": (", one-cluster minibatches alone", "c4", {"weight": 0.0}),
    "_penalty": (", penalty alone", "c4", {"clustered": False}),
    "_features": (" + C^4 of penultimate features", "c4", {"cluster_by": "features"}),
    "_pg_kmeans": (" + C^4 of PG-Kmeans' clusters", "c4", {"cluster_by": "pg_kmeans", "clusters": 2}),
    "_sorl": (" + C^4 of SORL's clusters", "c4", {"cluster_by": "sorl", "clusters": 2}),
}
LEARNERS = ("td3_bc", "cql")
METHODS = tuple(learner + variant for learner in LEARNERS for variant in VARIANTS)
COMPARED = tuple(learner + variant for learner in LEARNERS for variant in ("_base", "_layer_norm", "_dr3", "_c4"))

_PAPER = {  # section E.1: four hidden layers; of the rates Adam has one for all of TD3+BC
    "features": (256,) * 4,
    "actor_features": (256,) * 4,
    "updates": 300_000,
}
_TINY = {"updates": 200, "block": 100, "batch_size": 32, "features": (32, 32), "actor_features": (32, 32)}
_TINY_CLUSTERS = {"recluster_every": 50, "pool_size": 256, "cluster_points": 128}


def _preset(summary: str, size: int, seeds: int, td3_bc: dict[str, Any], cql: dict[str, Any], **more: Any) -> Preset:
    """Settings by learner; `more` of the plug-in, under its name."""
    others = dict.fromkeys(("iql", "bc"), td3_bc)
    return Preset(
        summary,
        size=size,
        long_size=size,
        seeds=seeds,
        settings={"td3_bc": td3_bc, "cql": cql, **others, **more},
    )


PRESETS = {
    "smoke": _preset("a minute: does everything run? The numbers mean nothing", 6, 2, _TINY, _TINY, c4=_TINY_CLUSTERS),
    "cpu": _preset(
        "hours on 2 CPU cores: 10,000 transitions of 50 trajectories a policy, 20,000 gradient steps (CQL 5,000, with "
        "4 actions a source), two hidden layers, 5 seeds",
        50,
        5,
        {"updates": 20_000},
        {"updates": 5_000, "num_actions": 4},
    ),
    "paper": _preset(
        "the paper's scale: 300,000 gradient steps, four hidden layers, 10,000 transitions of 1,000 trajectories a "
        "policy, 5 seeds",
        1000,
        5,
        _PAPER,
        {**_PAPER, "actor_rate": 1e-4},
    ),
}


def split(method: str) -> tuple[str, str]:
    """A method's learner and variant."""
    learner = next(name for name in LEARNERS if method.startswith(name))
    return learner, method.removeprefix(learner)


def settings_of(preset: Preset, learner: str, plugged: bool = True, **settings: Any) -> tuple[tuple[str, Any], ...]:
    """A learner's settings at a scale, and those of the plug-in C^4."""
    chosen = dict(preset.settings[learner])
    if learner == "bc":
        chosen.pop("features", None)
    if plugged:
        chosen |= preset.settings.get("c4", {})
    return tuple(sorted({**chosen, **settings}.items()))


def transitions_of(preset: Preset, transitions: int = REDUCED) -> int:
    """So many, or at the smallest scale what there certainly is."""
    return min(transitions, 1_000) if preset is PRESETS["smoke"] else transitions


def _cell(
    preset: Preset, dataset: str, learner: str, seeds: Sequence[int], transitions: int, plugin: str | None, **own: Any
) -> LearnerCell:
    return LearnerCell(
        dataset,
        preset.long_size,
        learner,
        tuple(seeds),
        settings_of(preset, learner, plugged=plugin is not None, **own),
        plugin=plugin,
        transitions=transitions_of(preset, transitions),
        evaluate_every=max(1, dict(preset.settings[learner])["updates"] // 10),
    )


def variant_cell(
    preset: Preset, dataset: str, method: str, seeds: Sequence[int], transitions: int = REDUCED, **settings: Any
) -> LearnerCell:
    """One of `METHODS` on reduced data, 0: on all of it."""
    learner, variant = split(method)
    _, plug_in, own = VARIANTS[variant]
    return _cell(preset, dataset, learner, seeds, transitions, plug_in, **{**own, **settings})


def of_kind(kind: type[Kind], cell: LearnerCell, **more: Any) -> Kind:
    """A cell of another kind, of the same learner on the same data."""
    return kind(**{field.name: getattr(cell, field.name) for field in dataclasses.fields(cell)}, **more)


def cell_of(preset: Preset, dataset: str, method: str, seeds: Sequence[int], transitions: int = REDUCED) -> LearnerCell:
    """One of `METHODS`, or a learner that has no variants, without a plug-in."""
    if method in ("bc", "iql"):
        return _cell(preset, dataset, method, seeds, transitions, None)
    return variant_cell(preset, dataset, method, seeds, transitions)


def cells(preset: Preset, datasets: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """A cell a dataset and method, on reduced data."""
    return [cell_of(preset, dataset, method, seeds) for dataset in datasets for method in methods]


# --- records ----------------------------------------------------------------------------------------------


def method_of(record: Mapping[str, Any]) -> str:
    """One of `METHODS`, or a learner without a plug-in."""
    cell = record["cell"]
    if "plugin" not in cell:
        return cell["method"]
    chosen = record["config"]["learner"]
    for variant, (_, plug_in, own) in VARIANTS.items():
        usual = {"weight": 0.1, "clustered": True, "cluster_by": "gradients", **own}
        same = all(chosen[name] == usual[name] for name in ("clustered", "cluster_by"))
        if plug_in == cell["plugin"]["name"] and same and (chosen["weight"] == 0) == (usual["weight"] == 0):
            return cell["method"] + variant
    raise ValueError(f"a record of no variant: {cell}")


def title_of(record: Mapping[str, Any]) -> str:
    """A method's title."""
    variant = method_of(record).removeprefix(record["cell"]["method"])
    return title(record["cell"]["method"]) + (VARIANTS[variant][0] if variant else "")


def score_of(record: Mapping[str, Any], name: str = "last_score") -> np.ndarray:
    """`[S]`."""
    return np.array(record["scores"][name], float)


def course(record: Mapping[str, Any], name: str) -> np.ndarray:
    """`[I, S]`: what was reported of each block of gradient steps, over the training."""
    return np.array([entry[name] for entry in record["history"] if name in entry], float)


def steps_of(record: Mapping[str, Any], name: str) -> np.ndarray:
    """`[I]`: the gradient steps at those reports."""
    block = record["config"]["block"]
    return np.array([entry["iteration"] * block for entry in record["history"] if name in entry])


def last(record: Mapping[str, Any], name: str) -> float:
    """The mean over seeds of what was reported of the last tenth of the training; NaN where it was not."""
    return late_mean(course(record, name))


def late_mean(found: np.ndarray) -> float:
    """Of `[I, ...]`, over a training, the mean of the last tenth; NaN of nothing."""
    return float(found[-max(1, len(found) // 10) :].mean()) if len(found) else float("nan")


def in_order(records: Records) -> list[dict[str, Any]]:
    """By dataset, then by method."""
    place = {name: index for index, name in enumerate((*METHODS, "bc", "iql"))}
    data = {name: index for index, name in enumerate(DATASETS)}
    key = lambda record: (data.get(record["cell"]["dataset"], len(data)), place[method_of(record)])
    return sorted(records, key=key)


class Line(NamedTuple):
    """A line of a table: a record, and the one of its base."""

    record: dict[str, Any]
    base: dict[str, Any] | None


def lines(records: Records) -> list[Line]:
    """Of each record, in order, with the base learner's on the same data."""
    shown = in_order(records)
    bases = {
        (record["cell"]["dataset"], record["cell"]["method"]): record
        for record in shown
        if method_of(record).endswith("_base")
    }
    return [Line(record, bases.get((record["cell"]["dataset"], record["cell"]["method"]))) for record in shown]


def improvement(line: Line) -> str:
    """The probability that a seed scores more than one of the base."""
    if line.base is None or line.base is line.record:
        return "-"
    return f"{probability_of_improvement([score_of(line.record)], [score_of(line.base)]):.2f}"


def relative_trace(record: Mapping[str, Any]) -> float:
    """tr Cov(g', g) / M over the variance of Q, late in the training."""
    return last(record, "clusters/c") / max(last(record, "clusters/variance"), 1e-12)


def score_columns(paper: Any) -> list[Column]:
    """Columns of `Line` entries; `paper(line)` is the published score, or None."""
    return [
        columns.task(),
        columns.method("learner", lambda line: title_of(line.record)),
        Column("score", lambda line: spread(score_of(line.record), 1)),
        interval_column(lambda line: score_of(line.record), 1),
        Column("above its base with probability", improvement),
        Column("best evaluation", lambda line: f"{score_of(line.record, 'best_score').mean():.1f}"),
        columns.published(paper, lambda line: score_of(line.record).mean(), digits=1)[0],
        columns.num_seeds(),
        columns.seconds("seconds, all seeds (compile + run)", "compile", "run"),
    ]


def measure_columns() -> list[Column]:
    """What explains a score: late means over seeds."""
    number = lambda name: lambda line: f"{last(line.record, name):.3g}" if course(line.record, name).size else "-"
    return [
        Column("tr C / M / var Q", lambda line: f"{relative_trace(line.record):.3g}"),
        Column("tr C / M", number("clusters/c")),
        Column("within clusters", number("clusters/c_within")),
        Column("Q", number("clusters/value")),
        Column("effective clusters", number("clusters/effective")),
    ]


def drawn(records: Records) -> list[str]:
    """Which data the records are of, a line."""
    found: dict[str, set[str]] = {}
    for record in records:
        reduced = record.get("data", {}).get("parameters", {}).get("reduced")
        if reduced:
            count = len(reduced["trajectories"])
            found.setdefault(record["cell"]["dataset"], set()).add(
                f"{reduced['transitions']:,} of {count} trajectories"
            )
    text = "; ".join(f"{dataset} {' and '.join(sorted(each))}" for dataset, each in sorted(found.items()))
    return [f"Transitions, whole trajectories drawn by seed (the records have their numbers): {text}."] if text else []


def swept_cell(
    preset: Preset,
    dataset: str,
    method: str,
    seeds: Sequence[int],
    swept: str,
    values: Sequence[float],
    **settings: Any,
) -> SweptCell:
    """One of `METHODS` with several values of a setting, as one program."""
    cell = variant_cell(preset, dataset, method, seeds, **settings)
    return of_kind(SweptCell, cell, sweep=((swept, tuple(map(float, values))),))


class Setting(NamedTuple):
    """A line of a sweep's table: one of the values swept."""

    record: dict[str, Any]
    value: float
    place: int  # among the values

    def scores(self) -> np.ndarray:
        """`[S]`."""
        return score_of(self.record, f"last_score {self.value:g}")

    def late(self, name: str) -> float:
        """The mean over seeds of what was reported of the last tenth of the training."""
        return late_mean(course(self.record, name)[..., self.place])  # of [I, S]


def settings_in(records: Records) -> list[Setting]:
    """The lines of sweeps, by dataset and method."""
    found = []
    for record in in_order(records):
        ((_, values),) = record["config"]["sweep"]
        found += [Setting(record, value, place) for place, value in enumerate(values)]
    return found


def sweep_columns(header: str, paper: Mapping[str, Sequence[float]], shown: Callable[[float], float]) -> list[Column]:
    """Columns of `Setting` entries; `paper` has the published scores by dataset, a value each."""

    def published(line: Setting) -> float | None:
        of_task = paper.get(line.record["cell"]["dataset"], ())
        return of_task[line.place] if line.record["cell"]["method"] == "cql" and line.place < len(of_task) else None

    return [
        columns.task(),
        columns.method("learner", lambda line: title_of(line.record)),
        Column(header, lambda line: f"{shown(line.value):g}"),
        Column("score", lambda line: spread(line.scores(), 1)),
        interval_column(lambda line: line.scores(), 1),
        columns.published(published, lambda line: line.scores().mean(), digits=1)[0],
        Column("tr C / M / var Q", lambda line: f"{line.late('clusters/c') / line.late('clusters/variance'):.3g}"),
        Column("Q", lambda line: f"{line.late('clusters/value'):.3g}"),
        Column("effective clusters", lambda line: f"{line.late('clusters/effective'):.2f}"),
        columns.num_seeds(),
    ]


def sweep_figure(records: Records, label: str, shown: Callable[[float], float]) -> "Figure":
    """A panel a dataset: scores against the setting, a line a learner."""
    lines = settings_in(records)
    datasets = dict.fromkeys(line.record["cell"]["dataset"] for line in lines)
    figure, axes = panels(datasets, 2.6)
    for ax, dataset in zip(axes, datasets, strict=True):
        of_dataset = [line for line in lines if line.record["cell"]["dataset"] == dataset]
        for color, name in zip(
            plotting.PALETTE, dict.fromkeys(title_of(line.record) for line in of_dataset), strict=False
        ):
            chosen = [line for line in of_dataset if title_of(line.record) == name]
            x = [f"{shown(line.value):g}" for line in chosen]
            draw_curve(ax, x, [line.scores() for line in chosen], color, name)
        ax.set_xlabel(label, fontsize=7)
        ax.tick_params(labelsize=6)
    axes[0].set_ylabel("score", fontsize=7)
    axes[0].legend(fontsize=5)
    return captioned(figure, f"Normalised score against {label}: means over seeds with 95% bootstrap intervals.")


def course_figure(
    records: Records,
    values: Callable[[Mapping[str, Any]], tuple[np.ndarray, np.ndarray]],
    label: str,
    log: bool = False,
) -> "Figure":
    """A panel a dataset and learner: the mean over seeds of `values(record)`, gradient steps `[I]` and `[I, S]`, with
    the range of the seeds; a line a variant."""
    by_panel: dict[str, list[dict[str, Any]]] = {}
    for record in in_order(records):
        name = f"{columns.dataset_title(record['cell']['dataset'])}, {title(record['cell']['method'])}"
        by_panel.setdefault(name, []).append(record)
    figure, axes = panels(by_panel, 2.6)
    for ax, (name, shown) in zip(axes, by_panel.items(), strict=True):
        for color, record in zip(plotting.PALETTE, shown, strict=False):
            x, y = values(record)
            ax.plot(x, y.mean(1), color=color, linewidth=1, label=title_of(record))
            ax.fill_between(x, y.min(1), y.max(1), color=color, alpha=0.15, linewidth=0)
        ax.set_title(name, fontsize=7)
        ax.set_xlabel("gradient steps", fontsize=7)
        ax.tick_params(labelsize=6)
        ax.legend(fontsize=4)
        if log:
            ax.set_yscale("symlog", linthresh=1e-3)
    axes[0].set_ylabel(label, fontsize=7)
    return captioned(figure, f"Over the training, {label}: means over seeds, with their range.")


NOTES = [
    "Scores are D4RL-normalised, of 10 episodes a seed without the policies' noise, after the last gradient step: mean "
    "± std and bootstrap interval over seeds; best evaluation: the highest of each seed's, which flatters. The data is "
    "made by the package's own policies; the paper's is D4RL's.",
]


def page(title: str, header: Sequence[Column], records: Records, shown: Sequence[Any] | None = None, *more: str) -> str:
    """A table's Markdown: `Line`s by default, and what all tables here say."""
    notes = [*provenance(records), *drawn(records), *NOTES, *more]
    return columns.table(title, header, lines(records) if shown is None else shown, notes)


def comparisons(records: Records) -> "dict[str, Figure]":
    """Each learner's variants over the tasks, beside the plain one: figures by stem."""
    figures = {}
    for learner in LEARNERS:
        scores: dict[str, dict[str, np.ndarray]] = {}
        for record in in_order([record for record in records if record["cell"]["method"] == learner]):
            scores.setdefault(title_of(record), {})[columns.dataset_title(record["cell"]["dataset"])] = score_of(record)
        found = comparison_figures(scores, "normalised score", title(learner))
        figures |= {f"{learner}-{stem}": figure for stem, figure in found.items()}
    return figures


def standings(records: Records, paper: Callable[[Line], float | None]) -> list[Standing]:
    """Scores by method, beside the best policy's of the data; `paper(line)` is the published one."""
    return [
        Standing(
            line.record["cell"]["dataset"],
            title_of(line.record),
            float(score_of(line.record).mean()),
            paper(line),
            max(line.record["policies"].values()),
        )
        for line in sorted(lines(records), key=lambda line: METHODS.index(method_of(line.record)))
    ]


def on_all_data(
    name: str, heading: str, summary: str, methods: Sequence[str], scores: Mapping[str, Sequence[float]]
) -> Table:
    """A table of methods on all the data of each dataset; `scores` are the paper's, one a method."""
    published = {dataset: dict(zip(methods, each, strict=True)) for dataset, each in scores.items()}

    def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
        return [cell_of(preset, dataset, method, seeds, 0) for dataset in datasets for method in methods]

    def render(records: Records):
        paper = lambda line: published.get(line.record["cell"]["dataset"], {}).get(method_of(line.record))
        return page(f"C^4 paper, {heading}", [*score_columns(paper), *measure_columns()], records), {}

    return Table(name, summary, tuple(scores), tuple(methods), PRESETS, cells, render)


def over_training(name: str, heading: str, learner: str) -> Table:
    """Curves of a learner's variants of `COMPARED`; the cells are Table 1's."""

    def render(records: Records):
        text = page(f"C^4 paper, {heading} over the training", score_columns(lambda line: None), records)
        return text, {"scores": course_figure(records, evaluated, "score")}

    methods = tuple(method for method in COMPARED if method.startswith(learner))
    summary = f"scores of {title(learner)} with LN, DR3 and C^4 over the training"
    return Table(name, summary, DATASETS, methods, PRESETS, cells, render)
