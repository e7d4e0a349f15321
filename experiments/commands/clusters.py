"""A clustering's files, as `trajclust cluster` and `trajclust assign` write them."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trajclust_experiments.commands.printing import number
from trajclust_experiments.commands.rows import GUESSED, label_source
from trajclust_experiments.rendering.figures import new_figure, save_figure
from trajclust_experiments.rendering.scenes import clusters_figure
from trajclust_jax.clustering import Clustering
from trajclust_jax.clustering.oracle import oracle
from trajclust_jax.data import (
    Dataset,
    Trajectories,
    returns,
    save_hdf5,
    save_minari,
    save_npz,
    steps_fingerprint,
    subset,
)
from trajclust_jax.lazy import lazy
from trajclust_jax.metrics import scores
from trajclust_jax.records import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")
mpl = lazy("matplotlib")
mpl_patches = lazy("matplotlib.patches")

_NAMED = 16  # clusters that a figure names
_MANY = 200  # trajectories for small dots and a logarithmic axis

OUTPUTS = {
    "assignments.csv",
    "choice-of-k.png",
    "clusters",
    "clusters.csv",
    "embedding.png",
    "latents.png",
    "model",
    "overview.png",
    "posterior.npz",
    "summary.json",
    "trajectories.png",
}
Split = Literal["npz", "minari", "hdf5"]
History = list[dict[str, Any]]


def describe_clusters(dataset: Dataset, clustering: Clustering) -> dict[str, Any]:
    """What a person wants to know first, for summary.json."""
    trajectories, assignments = dataset.trajectories, clustering.assignments
    lengths, episode_returns = np.asarray(trajectories.lengths), returns(trajectories)
    members = [assignments == k for k in range(clustering.posterior.shape[1])]
    labels, truth = dataset.labels, dataset.true_log_likelihoods
    example = examples(trajectories, clustering)
    return {
        "trajectories_fingerprint": steps_fingerprint(trajectories),  # the same whatever rewards and labels are given
        "num_trajectories": trajectories.num_trajectories,
        "num_steps": int(lengths.sum()),
        "objective": float(clustering.objective),
        "objective_per_step": float(clustering.objective / lengths.sum()),
        "clusters": [
            {
                "cluster": k,
                "trajectories": int(member.sum()),
                "share": float(member.mean()),
                "mean_return": float(episode_returns[member].mean()) if member.any() else None,
                "std_return": float(episode_returns[member].std()) if member.any() else None,
                "mean_length": float(lengths[member].mean()) if member.any() else None,
                "example": example[k],
            }
            for k, member in enumerate(members)
        ],
        "mean_confidence": float(_confidence(clustering).mean()),
        "labels": label_source(dataset),
        "scores": None if labels is None else scores(labels, assignments),
        "oracle": None if labels is None or truth is None else oracle(labels, truth),
    }


def profiles(trajectories: Trajectories, clustering: Clustering) -> np.ndarray:
    """`[N, D]` float64: what trajectories are compared by: latents; else log-likelihoods a step under the clusters'
    policies; else, of a method with neither, returns and lengths in units of their standard deviations."""
    lengths = np.asarray(trajectories.lengths, np.float64)
    if clustering.latents is not None:
        return np.asarray(clustering.latents, np.float64)
    if clustering.log_likelihoods is not None:
        return np.asarray(clustering.log_likelihoods, np.float64) / lengths[:, None]
    told = np.stack([returns(trajectories), lengths], 1)
    return told / np.maximum(told.std(0), np.finfo(np.float32).tiny)


def examples(trajectories: Trajectories, clustering: Clustering) -> list[int | None]:
    """Of each cluster the trajectory whose profile is nearest to the cluster's mean; None of an empty one."""
    points, chosen = profiles(trajectories, clustering), []
    for k in range(clustering.posterior.shape[1]):
        members = np.flatnonzero(clustering.assignments == k)
        with np.errstate(invalid="ignore"):  # it diverged, and the first will do
            distances = ((points[members] - points[members].mean(0)) ** 2).sum(1) if len(members) else None
        chosen.append(int(members[np.nan_to_num(distances, nan=np.inf).argmin()]) if len(members) else None)
    return chosen


def print_clusters(summary: dict[str, Any]) -> None:
    """A line a cluster, and scores where there are labels."""
    lines = [("cluster", "trajectories", "share", "return, mean ± std", "length, mean", "example")]
    for each in summary["clusters"]:
        told = ("-", "-", "-")
        if each["trajectories"]:
            spread = f"{each['mean_return']:,.5g} ± {each['std_return']:,.3g}"
            told = (spread, f"{each['mean_length']:,.5g}", str(each["example"]))
        lines.append((str(each["cluster"]), f"{each['trajectories']:,}", f"{each['share']:.1%}", *told))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    used = sum(each["trajectories"] > 0 for each in summary["clusters"])
    print(f"clusters used: {used} of {len(summary['clusters'])}")
    if summary["scores"] is not None:
        against = "the labels"
        if summary["labels"].startswith(GUESSED):
            against = f"labels that are {summary['labels']} (--labels FILE brings true ones)"
        shown = {
            name: value for name, value in summary["scores"].items() if name != "used_clusters"
        }  # that is no score
        print(f"against {against}: " + ", ".join(f"{k} {v:.3f}" for k, v in shown.items()))
    if summary["oracle"] is not None:
        print("oracle, the ceiling: " + ", ".join(f"{k} {v:.3f}" for k, v in summary["oracle"].items()))


def print_end(summary: dict[str, Any]) -> None:
    """Warnings, the objective, and where the files are."""
    for warning in summary["warnings"]:
        print(f"warning: {warning}")
    print(f"objective {number(summary['objective_per_step'], 4)} a step; files in {summary['out']}")


def listed(summary: dict[str, Any], clustering: Clustering, out: Path) -> dict[str, Any]:
    """The summary with the files, assignments and posterior, as commands return it."""
    files = [str(out / name) for name in sorted(OUTPUTS) if (out / name).exists()]
    found = {"assignments": clustering.assignments, "posterior": clustering.posterior}
    return plain({**summary, "out": str(out), "files": files, **found})


def write_clusters(
    folder: Path, dataset: Dataset, clustering: Clustering, history: History, split: Split | None, summary: dict
) -> None:
    """Writes assignments, posterior, figures, one dataset a cluster (with `split`), and summary.json into a folder."""
    trajectories, assignments = dataset.trajectories, clustering.assignments
    columns = {
        "trajectory": np.arange(len(assignments)),
        "cluster": assignments,
        "probability": _confidence(clustering),
        "length": np.asarray(trajectories.lengths),
        "return": returns(trajectories),
    }
    arrays = {"posterior": clustering.posterior}
    if clustering.log_likelihoods is not None:
        columns["log_likelihood"] = clustering.log_likelihoods[np.arange(len(assignments)), assignments]
        arrays["log_likelihoods"] = clustering.log_likelihoods
    if clustering.latents is not None:
        arrays["latents"] = clustering.latents
    _write_csv(folder / "assignments.csv", list(columns), zip(*columns.values(), strict=True))
    names = ["size" if name == "trajectories" else name for name in summary["clusters"][0]]
    _write_csv(folder / "clusters.csv", names, (each.values() for each in summary["clusters"]))
    np.savez_compressed(folder / "posterior.npz", **arrays)
    save_figure(overview(trajectories, clustering, history), folder / "overview.png")
    drawn = clusters_figure(trajectories, assignments)
    if drawn is not None:
        save_figure(drawn, folder / "trajectories.png")
    if drawn is None or clustering.latents is not None:
        embedded = embedding_figure(trajectories, clustering)
        if embedded is not None:
            save_figure(embedded, folder / ("embedding.png" if clustering.latents is None else "latents.png"))
    if split is not None:
        _split(dataset, assignments, folder / "clusters", split)
    (folder / "summary.json").write_text(json.dumps(plain(summary), indent=1) + "\n")


def _write_csv(path: Path, names: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Numbers in as few digits as tell them apart in their own precision; nothing for None and NaN."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([None if value != value else value for value in row] for row in rows)


def _split(dataset: Dataset, assignments: np.ndarray, folder: Path, split: Split) -> None:
    """A dataset for each cluster that is not empty: cluster-0.npz, cluster-0.hdf5 or Minari's cluster/0-v0."""
    for k in np.unique(assignments).tolist():
        part = subset(dataset, np.flatnonzero(assignments == k), {"cluster": k})
        if split == "npz":
            save_npz(part, folder / f"cluster-{k}.npz")
        elif split == "hdf5":
            save_hdf5(part, folder / f"cluster-{k}.hdf5")
        else:
            save_minari(part, f"cluster/{k}-v0", folder)


def _confidence(clustering: Clustering) -> np.ndarray:
    """`[N]`: the posterior of each trajectory's own cluster."""
    return clustering.posterior[np.arange(len(clustering.assignments)), clustering.assignments]


def overview(trajectories: Trajectories, clustering: Clustering, history: History) -> "Figure":
    """Sizes, J against iterations for every restart, confidence, returns (lengths if all are equal).

    Of a run that diverged, and of one without a history, what has no numbers is left out.
    """
    num_clusters = clustering.posterior.shape[1]
    objective = np.array([entry["objective"][0] for entry in history], float)  # [iterations, R]
    probability = _confidence(clustering)
    panels = [_draw_sizes]
    panels += (
        [lambda ax, *_: _draw_objective(ax, objective, int(clustering.restart))] if np.isfinite(objective).any() else []
    )
    panels += [lambda ax, *given: _draw_confidence(ax, probability, *given)] if np.isfinite(probability).all() else []
    panels += [lambda ax, *given: _draw_returns(ax, trajectories, *given)]
    figure = new_figure(2.6 * len(panels), 2.9)
    colors = _colors(num_clusters)
    members = [clustering.assignments == k for k in range(num_clusters)]
    for ax, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(ax, members, colors)
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_fontsize(9)
        ax.tick_params(which="both", labelsize=7)
        for axis in (ax.xaxis, ax.yaxis):
            axis.label.set_fontsize(8)
            axis.offsetText.set_fontsize(7)
    if num_clusters <= _NAMED:
        handles = [mpl_patches.Patch(color=color, label=f"cluster {k}") for k, color in enumerate(colors)]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(num_clusters, 8), fontsize=7, frameon=False
        )
    return figure


def _draw_sizes(ax: "Axes", members: list[np.ndarray], colors: list[str]) -> None:
    ax.bar(range(len(members)), [member.sum() for member in members], color=colors)
    ax.set(title="trajectories a cluster", xlabel="cluster", ylabel="trajectories")
    _whole_numbers(ax.yaxis)
    if len(members) <= _NAMED:
        ax.set_xticks(range(len(members)))


def _draw_objective(ax: "Axes", objective: np.ndarray, best: int) -> None:
    """`objective [iterations, R]`, NaN where it is not finite or not known; a dot where a point has no neighbour."""
    known = np.pad(np.isfinite(objective), ((1, 1), (0, 0)))
    alone = known[1:-1] & ~known[:-2] & ~known[2:]
    for restart in sorted(range(objective.shape[1]), key=lambda restart: restart == best):
        style = {"color": "black", "linewidth": 1.5} if restart == best else {"color": "gray", "linewidth": 0.7}
        label = "chosen restart" if restart == best else "others" if restart == int(best == 0) else None
        dots = np.flatnonzero(alone[:, restart]).tolist()
        ax.plot(objective[:, restart], marker="o", markevery=dots, markersize=4, label=label, **style)
    ax.set(title="objective", xlabel="iteration", ylabel="objective")
    _whole_numbers(ax.xaxis)
    if objective.shape[1] > 1:
        ax.legend(fontsize=7, frameon=False)


def _draw_confidence(ax: "Axes", probability: np.ndarray, members: list[np.ndarray], colors: list[str]) -> None:
    bins = np.linspace(1 / max(len(members), 2), 1, 21)
    ax.hist([probability[member] for member in members], bins=bins, stacked=True, color=colors)
    ax.set(title="how sure each is", xlabel="posterior of its cluster", ylabel="trajectories")
    if len(probability) > _MANY:  # few that are unsure would not be seen beside them
        ax.set_yscale("log")
    else:
        _whole_numbers(ax.yaxis)


def _draw_returns(ax: "Axes", trajectories: Trajectories, members: list[np.ndarray], colors: list[str]) -> None:
    lengths, episode_returns = np.asarray(trajectories.lengths), returns(trajectories)
    values, name = (episode_returns, "return") if np.ptp(episode_returns) > 0 else (lengths, "length")
    ax.hist([values[member] for member in members], bins=30, stacked=True, color=colors)
    ax.set(title=f"{name}s by cluster", xlabel=name, ylabel="trajectories")
    _whole_numbers(ax.yaxis)


def _whole_numbers(axis: "Axis") -> None:
    axis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def embedding_figure(trajectories: Trajectories, clustering: Clustering) -> "Figure | None":
    """Trajectories by their `profiles`, coloured by cluster; None where these are not finite: it diverged.

    Profiles of more than two numbers are shown on their two principal axes; of one number, beside the return.
    """
    points = profiles(trajectories, clustering)
    if not np.isfinite(points).all():
        return None
    if clustering.latents is not None:
        title, names = "latents", [f"latent {i}" for i in range(points.shape[1])]
    elif clustering.log_likelihoods is not None:
        title, names = "nats a step under the policies", [f"under cluster {k}'s policy" for k in range(points.shape[1])]
    else:
        title, names = "returns and lengths", ["return", "length"]
        points = np.stack([returns(trajectories), np.asarray(trajectories.lengths)], 1)
    if points.shape[1] == 1:
        points, names = np.column_stack([points[:, 0], returns(trajectories)]), [names[0], "return"]
    elif points.shape[1] > 2:
        points = points - points.mean(0)
        _, scale, axes = np.linalg.svd(points, full_matrices=False)
        points, share = points @ axes[:2].T, scale**2 / max((scale**2).sum(), np.finfo(float).tiny)
        names = [
            f"{which} principal axis ({part:.0%})" for which, part in zip(("first", "second"), share, strict=False)
        ]
    figure = new_figure(4.6, 3.6)
    ax = figure.subplots()
    size = 5 if len(points) > _MANY else 16
    num_clusters = clustering.posterior.shape[1]
    colors = _colors(num_clusters)
    for k in np.unique(clustering.assignments).tolist():
        member = clustering.assignments == k
        label = f"cluster {k} (n = {member.sum():,})"
        ax.scatter(*points[member].T, s=size, alpha=0.6, linewidths=0, color=colors[k], label=label)
    ax.set(title=title, xlabel=names[0], ylabel=names[1])
    for text, size in ((ax.title, 9), (ax.xaxis.label, 8), (ax.yaxis.label, 8)):
        text.set_fontsize(size)
    ax.tick_params(labelsize=7)
    if num_clusters <= _NAMED:
        figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def _colors(num_clusters: int) -> list[Any]:
    """A colour a cluster: the palette's as long as no two are alike."""
    if num_clusters <= len(plotting.PALETTE):
        return list(plotting.PALETTE[:num_clusters])
    return list(mpl.colormaps["turbo"](np.linspace(0.03, 0.97, num_clusters)))
