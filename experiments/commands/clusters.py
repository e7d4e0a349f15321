"""A clustering's files, as `trajclust cluster` and `trajclust assign` write them."""

import json
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
    fingerprint,
    returns,
    save_hdf5,
    save_minari,
    save_npz,
    subset,
)
from trajclust_jax.lazy import lazy
from trajclust_jax.metrics import scores
from trajclust_jax.records import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")
pd = lazy("pandas")

OUTPUTS = {
    "assignments.csv",
    "choice-of-k.png",
    "clusters",
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
    return {
        "trajectories_fingerprint": fingerprint(trajectories),  # the same whatever labels are given
        "num_trajectories": trajectories.num_trajectories,
        "num_steps": int(lengths.sum()),
        "objective": float(clustering.objective),
        "objective_per_step": float(clustering.objective / lengths.sum()),
        "clusters": [
            {
                "cluster": k,
                "trajectories": int(member.sum()),
                "mean_return": float(episode_returns[member].mean()) if member.any() else None,
                "mean_length": float(lengths[member].mean()) if member.any() else None,
            }
            for k, member in enumerate(members)
        ],
        "mean_confidence": float(_confidence(clustering).mean()),
        "labels": label_source(dataset),
        "scores": None if labels is None else scores(labels, assignments),
        "oracle": None if labels is None or truth is None else oracle(labels, truth),
    }


def print_clusters(summary: dict[str, Any]) -> None:
    """Sizes, and scores where there are labels."""
    for cluster in summary["clusters"]:
        print(f"cluster {cluster['cluster']}: {cluster['trajectories']} trajectories")
    if summary["scores"] is not None:
        against = "the labels"
        if summary["labels"].startswith(GUESSED):
            against = f"labels that are {summary['labels']} (--labels FILE brings true ones)"
        print(f"against {against}: " + ", ".join(f"{k} {v:.3f}" for k, v in summary["scores"].items()))
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
        if np.isfinite(clustering.latents).all():  # else it diverged, and they have no place
            save_figure(latents_figure(clustering), folder / "latents.png")
    pd.DataFrame(columns).to_csv(folder / "assignments.csv", index=False)
    np.savez_compressed(folder / "posterior.npz", **arrays)
    save_figure(overview(trajectories, clustering, history), folder / "overview.png")
    drawn = clusters_figure(trajectories, assignments, clustering.posterior.shape[1])
    if drawn is not None:
        save_figure(drawn, folder / "trajectories.png")
    if split is not None:
        _split(dataset, assignments, folder / "clusters", split)
    (folder / "summary.json").write_text(json.dumps(plain(summary), indent=1) + "\n")


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
    """Sizes, confidence, returns (lengths if all are equal); with a history J against iterations for every restart."""
    figure = new_figure(10.0 if history else 7.6, 2.8)
    sizes, *curve, confidence, spread = figure.subplots(1, 4 if history else 3)
    num_clusters = clustering.posterior.shape[1]
    colors = [plotting.PALETTE[k % len(plotting.PALETTE)] for k in range(num_clusters)]
    members = [clustering.assignments == k for k in range(num_clusters)]
    sizes.bar(range(num_clusters), [m.sum() for m in members], color=colors)
    sizes.set(title="trajectories a cluster", xlabel="cluster", xticks=range(num_clusters))

    for ax in curve:
        objective = np.array([entry["objective"][0] for entry in history], float)  # NaN where not finite
        best = int(clustering.restart)
        for restart in range(objective.shape[1]):
            style = {"color": "black", "linewidth": 1.5} if restart == best else {"color": "gray", "linewidth": 0.7}
            ax.plot(objective[:, restart], **style)
        ax.set(title="objective (chosen restart black)", xlabel="iteration")

    probability = _confidence(clustering)
    finite = np.isfinite(probability)  # none, where the run diverged
    confidence.hist(
        [probability[m & finite] for m in members],
        bins=np.linspace(1 / max(num_clusters, 2), 1, 21),
        stacked=True,
        color=colors,
    )
    confidence.set(title="posterior of the assigned cluster", yscale="log" if finite.any() else "linear")

    lengths, episode_returns = np.asarray(trajectories.lengths), returns(trajectories)
    values, name = (episode_returns, "return") if np.ptp(episode_returns) > 0 else (lengths, "length")
    spread.hist([values[m] for m in members], bins=30, stacked=True, color=colors)
    spread.set(title=f"{name} by cluster", xlabel=name)
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_fontsize(9)
    return figure


def latents_figure(clustering: Clustering) -> "Figure":
    """Latents on their two principal axes, coloured by cluster."""
    latents = np.asarray(clustering.latents, np.float64)
    latents = latents - latents.mean(0)
    _, scale, axes = np.linalg.svd(latents, full_matrices=False)
    shown, share = latents @ axes[:2].T, scale[:2] ** 2 / max((scale**2).sum(), np.finfo(float).tiny)
    figure = new_figure(4.2, 3.6)
    ax = figure.subplots()
    for k in range(clustering.posterior.shape[1]):
        member = clustering.assignments == k
        color = plotting.PALETTE[k % len(plotting.PALETTE)]
        ax.scatter(*shown[member].T, s=4, alpha=0.5, linewidths=0, color=color, label=f"cluster {k}")
    ax.set(title="latents", xlabel=f"first axis ({share[0]:.0%})", ylabel=f"second axis ({share[1]:.0%})")
    ax.legend(fontsize=7, markerscale=3)
    ax.spines[["top", "right"]].set_visible(False)
    return figure
