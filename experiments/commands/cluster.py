"""`trajclust cluster`: a method on the user's own trajectories."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from trajclust_envs.plotting import PALETTE
from trajclust_experiments.catalogue import CATALOGUE, entries
from trajclust_experiments.cells.cell import checkpoint_seconds, tracked
from trajclust_experiments.commands import UsageError
from trajclust_experiments.commands.data import labelled
from trajclust_experiments.commands.output import check_out, resolve_out, staged
from trajclust_experiments.commands.printing import number, pairs, print_json
from trajclust_experiments.commands.rows import GUESSED, label_source
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering.figures import new_figure, save_figure
from trajclust_experiments.rendering.scenes import clusters_figure
from trajclust_jax.checkpoint import save_tree
from trajclust_jax.clustering import Clustering
from trajclust_jax.clustering.ambiguity import ambiguity
from trajclust_jax.clustering.health import diagnose
from trajclust_jax.clustering.images import describe_inputs
from trajclust_jax.clustering.oracle import oracle
from trajclust_jax.clustering.support import Support, support_of
from trajclust_jax.data import Codebook, DataError, Dataset, Trajectories, fingerprint, returns, suspicious
from trajclust_jax.data.transforms import action_scaling
from trajclust_jax.metrics import batch_scores, scores
from trajclust_jax.records import cell_id, environment, plain
from trajclust_jax.tracking import make_tracker, run_id
from trajclust_jax.training import Fit, fit

OUTPUTS = {
    "assignments.csv",
    "posterior.npz",
    "model",
    "summary.json",
    "overview.png",
    "latents.png",
    "trajectories.png",
}


def cluster(
    dataset: str,
    k: int,
    method: str,
    policy: str | None,
    extra_clusters: int | None,
    restarts: int | None,
    iterations: int | None,
    seed: int,
    labels: Path | None,
    out: Path,
    track: str,
    json: bool,
) -> int:
    """Clusters a dataset and prints what was found; arguments as the command has them. Returns 1 if it diverged.

    Raises:
        UsageError: for a method that is not there, or a setting that it does not have.
    """
    name, left = _named(method, policy)
    settings = {"policy": left, "extra_clusters": extra_clusters, "restarts": restarts, "iterations": iterations}
    settings = {option: value for option, value in settings.items() if value is not None}
    for option in settings:
        if option not in CATALOGUE[name].settings():
            raise UsageError(f"--{option.replace('_', '-')} is no setting of {method}")
    check_out(out, OUTPUTS)
    summary = cluster_dataset(labelled(dataset, labels), name, k, seed, out, track, Progress(), **settings)
    failed = int(summary["objective"] is None)  # diverged: a warning says so
    print_json(summary) if json else _print(summary)
    return failed


def _named(method: str, policy: str | None) -> tuple[str, str | None]:
    """The entry that a method and a policy class mean, and the policy class where it is a setting of that entry.

    A family with an entry a policy class, such as PG-Kmeans, is known by the family's name.
    """
    known, families = entries("clusterer"), {}
    for name, entry in known.items():
        if entry.family and name == f"{entry.family}_{entry.policy}":
            families.setdefault(entry.family, {})[entry.policy] = name
    if method in families:
        return families[method].get(policy or "mlp") or _unknown(method, policy), None
    if method not in known:
        choices = [*families, *(name for name, entry in known.items() if entry.family not in families)]
        raise UsageError(f"unknown method {method!r}: choose one of {', '.join(choices)}")
    return method, policy


def _unknown(method: str, policy: str | None) -> str:
    raise UsageError(f"--policy {policy} is none of {method}'s")


def _print(summary: dict[str, Any]) -> None:
    for cluster in summary["clusters"]:
        print(f"cluster {cluster['cluster']}: {cluster['trajectories']} trajectories")
    if summary["scores"] is not None:
        against = "the labels"
        if summary["labels"].startswith(GUESSED):
            against = f"labels that are {summary['labels']} (--labels FILE brings true ones)"
        print(f"against {against}: " + ", ".join(f"{k} {v:.3f}" for k, v in summary["scores"].items()))
    if summary["oracle"] is not None:
        print("oracle, the ceiling: " + ", ".join(f"{k} {v:.3f}" for k, v in summary["oracle"].items()))
    if summary["ambiguity"] is not None:
        print(summary["ambiguity"]["message"])
    print(f"seen: {summary['inputs']}")
    if summary["suited"]:
        print("settings for such data: " + pairs(summary["suited"]))
    if summary["support"] is not None:
        gain = "{over_one:+.3f} ± {over_one_error:.3f}".format(**summary["support"])
        print(f"held-out actions, beside one policy for all: {gain} nats a step")
    for warning in summary["warnings"]:
        print(f"warning: {warning}")
    print(f"objective {number(summary['objective_per_step'], 4)} a step; files in {summary['out']}")


def cluster_dataset(
    dataset: Dataset,
    method_name: str,
    num_clusters: int,
    seed: int,
    out: Path,
    track: str,
    progress: Progress,
    **settings: Any,
) -> dict[str, Any]:
    """Clusters a dataset and writes `out`; returns its summary, with assignments and posterior.

    `out` receives assignments.csv, posterior.npz, model/ (Orbax), summary.json, overview.png, for representation
    methods latents.png and for grid worlds trajectories.png. It appears whole at the end; a killed run goes on
    (see `output.staged`).

    Raises:
        DataError: more clusters than trajectories, a method that this data does not allow, an `out` that holds
            other files or that another process is writing.
    """
    trajectories = dataset.trajectories
    if not 1 <= num_clusters <= trajectories.num_trajectories:
        raise DataError(f"--k is {num_clusters}: give 1 to {trajectories.num_trajectories}, the number of trajectories")
    try:
        suiting = CATALOGUE[method_name].suited(trajectories, settings.get("policy"))
        method = CATALOGUE[method_name].build(num_clusters, **{**suiting, **settings})
        method.check(trajectories)
    except ValueError as error:
        raise DataError(f"--method {method_name}: {error}") from None
    described = {
        "dataset": dataset.spec.name,
        "fingerprint": dataset.provenance.fingerprint,
        "method": method_name,
        "hyperparameters": dataclasses.asdict(method),
        "version": [method.VERSION, method.ACTIONS_VERSION],
        "seed": seed,
    }
    id = cell_id(described)
    out = resolve_out(out)
    with staged(out, OUTPUTS) as work:
        tracker = make_tracker(
            track,
            directory=out.parent,
            group=f"{dataset.spec.name}-{method_name}-{id}",
            tags=[f"dataset:{dataset.spec.name}", f"method:{method_name}"],
            config=described,
            seeds=[seed],
            run_ids=[run_id(dataset.spec.name, id, seed)],
        )
        score = None if dataset.labels is None else functools.partial(batch_scores, dataset.labels)
        with tracker, progress.task(f"{dataset.spec.name} {method_name}") as show:
            track_event = lambda event: tracker.log(event.total, tracked(event))
            outcome = fit(
                method,
                trajectories,
                [seed],
                score=score,
                callbacks=[show, track_event],
                checkpoint_dir=work / id,
                checkpoint_seconds=checkpoint_seconds(),
            )
        clustering = jax.tree.map(lambda x: np.asarray(x[0]), outcome.result)
        support = None
        if method.support_policies() is not None:
            with progress.task(f"{dataset.spec.name}, held out") as show:
                support = support_of(method, trajectories, clustering, [show])
        seen = describe_inputs(trajectories)
        summary = {"id": id, **described, "suited": suiting, "inputs": seen}
        summary |= _summary(dataset, clustering, outcome, support)
        summary["environment"] = environment()
        _write(work / "new", dataset, method, clustering, outcome, plain(summary))
    files = [str(out / name) for name in sorted(OUTPUTS) if (out / name).exists()]
    found = {"assignments": clustering.assignments, "posterior": clustering.posterior}
    return plain({**summary, "out": str(out), "files": files, **found})


def _summary(dataset: Dataset, clustering: Clustering, outcome: Fit, support: Support | None) -> dict[str, Any]:
    """What a person wants to know first."""
    trajectories, assignments = dataset.trajectories, clustering.assignments
    lengths, gained = np.asarray(trajectories.lengths), returns(trajectories)
    members = [assignments == k for k in range(clustering.posterior.shape[1])]
    labels, truth = dataset.labels, dataset.true_log_likelihoods
    health, warnings = diagnose(clustering)
    if support is not None and support.warning:
        warnings.append(support.warning)
    return {
        "trajectories_fingerprint": fingerprint(trajectories),  # the same whatever labels are given
        "num_trajectories": trajectories.num_trajectories,
        "num_steps": int(lengths.sum()),
        "objective": float(clustering.objective),
        "objective_per_step": float(clustering.objective / lengths.sum()),
        "restart": int(clustering.restart),
        "restart_objectives": clustering.restart_objectives,
        "clusters": [
            {
                "cluster": k,
                "trajectories": int(member.sum()),
                "mean_return": float(gained[member].mean()) if member.any() else None,
                "mean_length": float(lengths[member].mean()) if member.any() else None,
            }
            for k, member in enumerate(members)
        ],
        "ambiguity": ambiguity(clustering) if len(clustering.restart_objectives) > 1 else None,
        "mean_confidence": float(_confidence(clustering).mean()),
        "health": health,
        "support": None if support is None else dataclasses.asdict(support) | {"supported": support.supported},
        "warnings": [*suspicious(trajectories), *warnings],
        "labels": label_source(dataset),
        "scores": None if labels is None else scores(labels, assignments),
        "oracle": None if labels is None or truth is None else oracle(labels, truth),
        "timing": {"run_seconds": outcome.run_seconds, "compile_seconds": outcome.compile_seconds},
    }


def _confidence(clustering: Clustering) -> np.ndarray:
    """`[N]`: the posterior of each trajectory's own cluster."""
    return clustering.posterior[np.arange(len(clustering.assignments)), clustering.assignments]


def _write(folder: Path, dataset: Dataset, method: Any, clustering: Clustering, outcome: Fit, summary: dict) -> None:
    trajectories, assignments = dataset.trajectories, clustering.assignments
    folder.mkdir()
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
    model = {"params": clustering.params, "inputs": method.inputs(trajectories)}
    if not trajectories.discrete:
        model["actions"] = action_scaling(trajectories)
    if isinstance(trajectories.observations, Codebook):  # a tabular policy's rows mean nothing without it
        model["observations"] = trajectories.observations.table
    save_tree(folder / "model", model)
    save_figure(overview(trajectories, clustering, outcome), folder / "overview.png")
    drawn = clusters_figure(trajectories, assignments, clustering.posterior.shape[1])
    if drawn is not None:
        save_figure(drawn, folder / "trajectories.png")
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def overview(trajectories: Trajectories, clustering: Clustering, outcome: Fit) -> Figure:
    """Sizes, J against iterations for every restart, confidence, and returns (lengths if all returns are equal)."""
    figure = new_figure(10.0, 2.8)
    sizes, curve, confidence, spread = figure.subplots(1, 4)
    num_clusters = clustering.posterior.shape[1]
    colors = [PALETTE[k % len(PALETTE)] for k in range(num_clusters)]
    members = [clustering.assignments == k for k in range(num_clusters)]
    sizes.bar(range(num_clusters), [m.sum() for m in members], color=colors)
    sizes.set(title="trajectories a cluster", xlabel="cluster", xticks=range(num_clusters))

    objective = np.array([entry["objective"][0] for entry in outcome.history], float)  # NaN where not finite
    best = int(clustering.restart)
    for restart in range(objective.shape[1]):
        style = {"color": "black", "linewidth": 1.5} if restart == best else {"color": "gray", "linewidth": 0.7}
        curve.plot(objective[:, restart], **style)
    curve.set(title="objective (chosen restart black)", xlabel="iteration")

    probability = _confidence(clustering)
    finite = np.isfinite(probability)  # none, where the run diverged
    confidence.hist(
        [probability[m & finite] for m in members],
        bins=np.linspace(1 / max(num_clusters, 2), 1, 21),
        stacked=True,
        color=colors,
    )
    confidence.set(title="posterior of the assigned cluster", yscale="log" if finite.any() else "linear")

    lengths, gained = np.asarray(trajectories.lengths), returns(trajectories)
    values, name = (gained, "return") if np.ptp(gained) > 0 else (lengths, "length")
    spread.hist([values[m] for m in members], bins=30, stacked=True, color=colors)
    spread.set(title=f"{name} by cluster", xlabel=name)
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_fontsize(9)
    return figure


def latents_figure(clustering: Clustering) -> Figure:
    """Latents on their two principal axes, coloured by cluster."""
    latents = np.asarray(clustering.latents, np.float64)
    latents = latents - latents.mean(0)
    _, scale, axes = np.linalg.svd(latents, full_matrices=False)
    shown, share = latents @ axes[:2].T, scale[:2] ** 2 / max((scale**2).sum(), np.finfo(float).tiny)
    figure = new_figure(4.2, 3.6)
    ax = figure.subplots()
    for k in range(clustering.posterior.shape[1]):
        member = clustering.assignments == k
        color = PALETTE[k % len(PALETTE)]
        ax.scatter(*shown[member].T, s=4, alpha=0.5, linewidths=0, color=color, label=f"cluster {k}")
    ax.set(title="latents", xlabel=f"first axis ({share[0]:.0%})", ylabel=f"second axis ({share[1]:.0%})")
    ax.legend(fontsize=7, markerscale=3)
    ax.spines[["top", "right"]].set_visible(False)
    return figure
