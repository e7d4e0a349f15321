"""`trajclust cluster`: a method on the user's own trajectories."""

import dataclasses
import functools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from envs.plotting import PALETTE, cells_from_observations, draw_trajectories
from experiments.methods import METHODS
from experiments.papers.pgkmeans.common import new_figure
from experiments.progress import Progress
from experiments.report import save_figure
from trajclust_jax.checkpoint import save_tree
from trajclust_jax.clustering import Clustering
from trajclust_jax.data import Codebook, DataError, Dataset, Trajectories
from trajclust_jax.metrics import batch_scores, scores
from trajclust_jax.records import cell_id, environment, plain
from trajclust_jax.tracking import make_tracker, run_id
from trajclust_jax.training import Fit, fit


def cluster_dataset(
    dataset: Dataset,
    method_name: str,
    num_clusters: int,
    seed: int,
    out: Path,
    track: str,
    progress: Progress,
    **settings,
) -> dict[str, Any]:
    """Clusters a dataset and writes `out`; returns its summary.

    `out` receives assignments.csv, posterior.npz, model/ (Orbax), summary.json, overview.png and, for grid worlds,
    trajectories.png. It appears whole at the end; until then a killed run goes on from `.<out>.work-*` beside it.

    Raises:
        DataError: more clusters than trajectories, or a method that this data does not allow.
    """
    trajectories = dataset.trajectories
    if not 1 <= num_clusters <= trajectories.num_trajectories:
        raise DataError(f"--k is {num_clusters}: give 1 to {trajectories.num_trajectories}, the number of trajectories")
    try:
        method = METHODS[method_name].build(num_clusters, **settings)
        method.check(trajectories)
    except ValueError as error:
        raise DataError(str(error)) from None
    described = {
        "dataset": dataset.spec.name,
        "fingerprint": dataset.provenance.fingerprint,
        "method": method_name,
        "hyperparameters": dataclasses.asdict(method),
        "version": method.VERSION,
        "seed": seed,
    }
    id = cell_id(described)
    out = Path(os.path.abspath(out))
    work = out.with_name(f".{out.name}.work-{id}")
    score = None if dataset.labels is None else functools.partial(batch_scores, dataset.labels)
    tracker = make_tracker(
        track,
        directory=out.parent,
        group=f"{dataset.spec.name}-{method_name}-{id}",
        tags=[f"dataset:{dataset.spec.name}", f"method:{method_name}"],
        config=described,
        seeds=[seed],
        run_ids=[run_id(dataset.spec.name, id, seed)],
    )
    began = time.perf_counter()
    with tracker, progress.task(f"{dataset.spec.name} {method_name}") as show:
        log = lambda event: tracker.log(event.total, {f"{event.phase}/{k}": v for k, v in event.metrics.items()})
        outcome = fit(method, trajectories, [seed], score=score, callbacks=[show, log], checkpoint_dir=work)
    clustering = _first_seed(outcome.result)
    assignments = clustering.assignments
    sizes = np.bincount(assignments, minlength=num_clusters)
    returns = np.where(np.asarray(trajectories.mask), np.asarray(trajectories.rewards), 0).sum(1)
    found = {
        "objective": float(clustering.objective),
        "objective_per_step": float(clustering.objective / np.asarray(trajectories.lengths).sum()),
        "restart": int(clustering.restart),
        "restart_objectives": clustering.restart_objectives,
        "clusters": [
            {
                "cluster": k,
                "trajectories": int(sizes[k]),
                "mean_return": float(returns[assignments == k].mean()) if sizes[k] else None,
                "mean_length": float(np.asarray(trajectories.lengths)[assignments == k].mean()) if sizes[k] else None,
            }
            for k in range(num_clusters)
        ],
        "mean_confidence": float(clustering.posterior.max(1).mean()),
    }
    summary = plain(
        {
            "id": id,
            **described,
            "num_trajectories": trajectories.num_trajectories,
            "num_steps": int(np.asarray(trajectories.lengths).sum()),
            **found,
            "scores": None if dataset.labels is None else scores(dataset.labels, assignments),
            "timing": {"seconds": time.perf_counter() - began, "compile_seconds": outcome.compile_seconds},
            "environment": environment(),
        }
    )
    building = out.with_name(f".{out.name}.new-{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    frame = pd.DataFrame(
        {
            "trajectory": np.arange(len(assignments)),
            "cluster": assignments,
            "probability": clustering.posterior.max(1),
            "log_likelihood": clustering.log_likelihoods[np.arange(len(assignments)), assignments],
            "length": np.asarray(trajectories.lengths),
            "return": returns,
        }
    )
    frame.to_csv(building / "assignments.csv", index=False)
    np.savez_compressed(
        building / "posterior.npz", posterior=clustering.posterior, log_likelihoods=clustering.log_likelihoods
    )
    save_tree(building / "model", {"params": clustering.params, "inputs": method.inputs(trajectories)})
    save_figure(overview(trajectories, clustering, returns, outcome), building / "overview.png")
    grid = grid_figure(trajectories, assignments, num_clusters)
    if grid is not None:
        save_figure(grid, building / "trajectories.png")
    (building / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    _replace_folder(building, out)
    shutil.rmtree(work, ignore_errors=True)
    return {**summary, "out": str(out), "files": sorted(str(path) for path in out.iterdir())}


def _first_seed(result: Clustering) -> Clustering:
    return jax.tree.map(lambda x: np.asarray(x[0]), result)


def _replace_folder(new: Path, target: Path) -> None:
    """Puts `new` in the place of `target`, which is a run's folder or does not exist."""
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def check_out(out: Path) -> None:
    """Raises DataError unless `out` can be written: it is new, empty, or an earlier run's folder."""
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out} is a file: give a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / "summary.json").exists():
        raise DataError(f"--out {out} holds other files: give a new folder")


def overview(trajectories: Trajectories, clustering: Clustering, returns: np.ndarray, outcome: Fit) -> Figure:
    """Sizes, J against iterations for every restart, confidence, and returns (lengths if all returns are equal)."""
    figure = new_figure(10.0, 2.8)
    sizes, curve, confidence, spread = figure.subplots(1, 4)
    num_clusters = clustering.posterior.shape[1]
    colors = [PALETTE[k % len(PALETTE)] for k in range(num_clusters)]
    members = [clustering.assignments == k for k in range(num_clusters)]
    sizes.bar(range(num_clusters), [m.sum() for m in members], color=colors)
    sizes.set(title="trajectories a cluster", xlabel="cluster", xticks=range(num_clusters))

    entries = [entry for entry in outcome.history if None not in entry["objective"][0]]
    objective = np.array([entry["objective"][0] for entry in entries], float)
    best = int(clustering.restart)
    for restart in range(objective.shape[1]):
        style = {"color": "black", "linewidth": 1.5} if restart == best else {"color": "gray", "linewidth": 0.7}
        curve.plot(objective[:, restart], **style)
    curve.set(title="J a step (chosen restart black)", xlabel="iteration")

    probability = clustering.posterior.max(1)
    confidence.hist(
        [probability[m] for m in members], bins=np.linspace(1 / max(num_clusters, 2), 1, 21), stacked=True, color=colors
    )
    confidence.set(title="posterior of the assigned cluster", yscale="log")

    lengths = np.asarray(trajectories.lengths)
    values, name = (returns, "return") if np.ptp(returns) > 0 else (lengths, "length")
    spread.hist([values[m] for m in members], bins=30, stacked=True, color=colors)
    spread.set(title=f"{name} by cluster", xlabel=name)
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_fontsize(9)
    return figure


def grid_figure(trajectories: Trajectories, assignments: np.ndarray, num_clusters: int) -> Figure | None:
    """Trajectories in the grid, a panel a cluster, for observations that are grid-world maps; else None."""
    shape = trajectories.observation_shape
    if not (
        isinstance(trajectories.observations, Codebook) and len(shape) == 3 and shape[:2] == (9, 9) and shape[2] >= 3
    ):
        return None
    table = np.asarray(trajectories.observations.table)
    if not np.isin(table, (0, 1)).all() or not (table[..., 1].sum((1, 2)) == 1).all():
        return None
    cells = cells_from_observations(table)
    goal = np.stack(np.nonzero(table[0, :, :, 2]), axis=-1)
    return draw_trajectories(
        cells[np.asarray(trajectories.observations.ids)],
        np.asarray(trajectories.lengths),
        assignments,
        walls=table[0, :, :, 0].astype(bool),
        goal=goal[0] if len(goal) else (-1, -1),
        names=[f"cluster {k + 1}" for k in range(num_clusters)],
        final_cells=cells[np.asarray(trajectories.final_observations.ids)],
    )
