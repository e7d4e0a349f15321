"""`trajclust train`: an offline learner on the user's own trajectories, or on the clusters found in them."""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import trajclust_envs as envs
from trajclust_envs.mujoco import TASKS, make_env
from trajclust_envs.plotting import PALETTE
from trajclust_experiments.learners import LEARNERS, suited_learner
from trajclust_experiments.output import resolve_out, staged
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering import new_figure, save_figure
from trajclust_experiments.rows import read_assignments
from trajclust_experiments.runner import checkpoint_seconds, tracked
from trajclust_jax.checkpoint import CheckpointError, load_tree, save_tree
from trajclust_jax.data import DataError, Dataset, fingerprint, returns, suspicious
from trajclust_jax.evaluation import Acting, gymnax_returns, mujoco_returns
from trajclust_jax.learners import Clustered, Learner, Offline, Scaling, TrainedPolicy
from trajclust_jax.records import cell_id, environment, plain
from trajclust_jax.tracking import make_tracker, run_id
from trajclust_jax.training import Evaluate, Fit, fit

OUTPUTS = {"summary.json", "policy", "losses.csv", "evaluations.csv", "learning-curve.png"}
_MUJOCO = {task.env_id: name for name, task in TASKS.items()}


def known_environment(name: str | None) -> bool:
    """Whether policies can be evaluated in an environment: MuJoCo of version 4, or one of our own."""
    return name in _MUJOCO or name in envs.ENVIRONMENTS


def sizes_of(name: str) -> tuple[int, int]:
    """Numbers of observations and of continuous actions in a known environment."""
    observations, actions = _spaces(name)
    return int(np.prod(observations.shape)), int(np.prod(actions.shape))


def _spaces(name: str) -> tuple[Any, Any]:
    """Spaces of observations and of actions in a known environment."""
    if name in _MUJOCO:
        env = make_env(_MUJOCO[name])
        return env.observation_space, env.action_space
    env = envs.make(name)
    return env.observation_space(env.default_params), env.action_space(env.default_params)


def action_bounds(dataset: Dataset, environment_name: str | None) -> tuple[float, ...]:
    """The largest absolute value of each action: the environment's, else what the dataset states, else ().

    Also () for actions within [-1, 1], which need no bounds.
    """
    trajectories, parameters = dataset.trajectories, dataset.provenance.parameters
    if np.abs(np.asarray(trajectories.actions)[np.asarray(trajectories.mask)]).max() <= 1:
        return ()
    low, high = parameters.get("action_low"), parameters.get("action_high")
    if known_environment(environment_name):
        space = _spaces(environment_name)[1]
        low, high = space.low, space.high
    if low is None or high is None:
        return ()
    bounds = np.maximum(np.abs(low), np.abs(high)) * np.ones(trajectories.action_size)
    return tuple(bounds.tolist()) if np.isfinite(bounds).all() else ()


def evaluator(offline: Offline, name: str, episodes: int, every: int) -> Evaluate:
    """Returns and, in MuJoCo, D4RL-normalised scores of policies, after every so many gradient steps.

    Evaluations meet other first states each time, the policies of one evaluation the same ones.
    """

    def measure(policy: TrainedPolicy, iteration: int) -> dict[str, np.ndarray]:
        gained, normalised = returns_of(offline.learner, name, policy, episodes, iteration), normaliser(name)
        return {"return": gained} | ({} if normalised is None else {"score": normalised(gained).mean(-1)})

    return Evaluate(measure, max(1, every // offline.block))


def evaluations(offline: Offline, outcome: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Gradient steps `[V]` and returns `[V, *axes, E]` of a fit's V evaluations."""
    found = [entry for entry in outcome.history if "return" in entry]
    steps = np.array([entry["iteration"] * offline.block for entry in found])
    return steps, np.array([entry["return"] for entry in found], float)


def best_cluster(assignments: np.ndarray, gained: np.ndarray) -> int:
    """The cluster whose trajectories have the highest mean return; of several the first."""
    return best_clusters(assignments, gained)[0]


def best_clusters(assignments: np.ndarray, gained: np.ndarray) -> list[int]:
    """The clusters whose trajectories have the highest mean return: more than one where returns don't tell them apart.

    Means of float64 sums that differ by less than their rounding are equal.
    """
    means = {k: gained[assignments == k].mean() for k in np.unique(assignments).tolist()}
    rounding = 1e-9 * np.abs(gained).max()
    return [k for k, mean in means.items() if mean >= max(means.values()) - rounding]


def chosen_clusters(folder: Path, which: str, dataset: Dataset) -> tuple[np.ndarray, list[int]]:
    """Assignments `[N]` to the chosen clusters of an earlier `trajclust cluster`, and their numbers.

    `which` is `all`, `best` (the highest mean return) or a cluster's number. Other trajectories have -1.

    assignments.csv may have been sorted and saved: its column `trajectory` says what is whose.

    Raises:
        DataError: for a folder that is none of a clustering of this data, an assignments.csv that has not every
            trajectory once, a cluster that is not there, or `best` where no returns tell which it is.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        count, of = len(summary["clusters"]), {summary["fingerprint"], summary.get("trajectories_fingerprint")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"--clusters {folder}: no result of trajclust cluster there ({error})") from None
    trajectories = dataset.trajectories
    if dataset.provenance.fingerprint not in of and fingerprint(trajectories) not in of:
        raise DataError(f"--clusters {folder}: a clustering of other trajectories than {dataset.spec.name}")
    assignments = read_assignments(folder / "assignments.csv", trajectories.num_trajectories, count)
    gained = returns(trajectories)
    filled = [k for k in range(count) if (assignments == k).any()]
    if which == "all":
        chosen = filled
    elif which == "best":
        chosen = best_clusters(assignments, gained)
        if len(chosen) > 1:
            equal = ", ".join(map(str, chosen))
            raise DataError(f"--cluster best: the mean returns of clusters {equal} are equal; give all or a number")
    elif which.isdecimal() and int(which) in filled:
        chosen = [int(which)]
    else:
        numbers = ", ".join(map(str, filled))
        raise DataError(f"--cluster {which}: give best, all or one of {numbers}")
    renumbered = np.full(len(assignments), -1)
    for number, k in enumerate(chosen):
        renumbered[assignments == k] = number
    return renumbered, chosen


def train_on_dataset(
    dataset: Dataset,
    learner_name: str,
    seeds: Sequence[int],
    out: Path,
    track: str,
    progress: Progress,
    *,
    clusters: tuple[np.ndarray, list[int]] | None = None,
    environment_name: str | None = None,
    episodes: int = 10,
    evaluate_every: int = 10_000,
    **settings: Any,
) -> dict[str, Any]:
    """Trains a learner and writes `out`; returns its summary.

    `out` receives summary.json, policy/ (Orbax: actors and scalings of all seeds and clusters), losses.csv,
    learning-curve.png and, where the environment is known, evaluations.csv with the return of every episode. It
    appears whole at the end; a killed run goes on (see `output.staged`).

    Args:
        clusters: what `chosen_clusters` gave: a learner for each of them.
        environment_name: where to evaluate; by default where the dataset says it is from.

    Raises:
        DataError: settings or data that the learner does not allow, an `out` that another process is writing.
    """
    trajectories = dataset.trajectories
    for line in suspicious(trajectories):
        progress.warn(line)
    given = environment_name
    environment_name = environment_name or dataset.provenance.parameters.get("environment")
    if given is not None and not known_environment(given):
        raise DataError(f"--environment {given}: choose one of {', '.join([*_MUJOCO, *envs.ENVIRONMENTS])}")
    try:
        suited = suited_learner(learner_name, environment_name)
        offline = LEARNERS[learner_name].build(trajectories.action_size, **{**suited, **settings})
        offline.check(trajectories)
    except ValueError as error:
        raise DataError(f"--learner {learner_name}: {error}") from None
    sizes = int(np.prod(trajectories.observation_shape)), trajectories.action_size
    if known_environment(environment_name) and sizes != sizes_of(environment_name):
        if given is not None:
            numbers = "{} observations and {} actions".format(*sizes_of(given))
            raise DataError(f"--environment {given} has {numbers}, the dataset {sizes[0]} and {sizes[1]}: give its own")
        environment_name = None  # of that name, but another version
    if not offline.bounds:
        offline = dataclasses.replace(offline, bounds=action_bounds(dataset, environment_name))
    described = {
        "dataset": dataset.spec.name,
        "fingerprint": dataset.provenance.fingerprint,
        "learner": learner_name,
        "settings": dataclasses.asdict(offline),
        "version": [offline.VERSION, offline.learner.VERSION],
        "seeds": list(seeds),
        "clusters": None if clusters is None else clusters[1],
        "assignments": None if clusters is None else cell_id({"assignments": clusters[0].tolist()}),
        "environment": environment_name if known_environment(environment_name) else None,
        "episodes": episodes,
        "evaluate_every": evaluate_every,
    }
    id = cell_id(described)
    evaluate = None
    if described["environment"]:
        evaluate = evaluator(offline, environment_name, episodes, evaluate_every)
    data = trajectories if clusters is None else Clustered(trajectories, clusters[0], len(clusters[1]))
    out = resolve_out(out)
    with staged(out, OUTPUTS) as work:
        tracker = make_tracker(
            track,
            directory=out.parent,
            group=f"{dataset.spec.name}-{learner_name}-{id}",
            tags=[f"dataset:{dataset.spec.name}", f"learner:{learner_name}"],
            config=described,
            seeds=seeds,
            run_ids=[run_id(dataset.spec.name, id, seed) for seed in seeds],
        )
        with tracker, progress.task(f"{dataset.spec.name} {learner_name}") as show:
            track_event = lambda event: tracker.log(event.total, tracked(event))
            outcome = fit(
                offline,
                data,
                seeds,
                evaluate=evaluate,
                callbacks=[show, track_event],
                checkpoint_dir=work / id,
                checkpoint_seconds=checkpoint_seconds(),
            )
        summary = {"id": id, **described, **summarise(offline, outcome, described["environment"])}
        summary["data_return"] = {"mean": returns(trajectories).mean(), "best": returns(trajectories).max()}
        _write(work / "new", offline, outcome, plain({**summary, "machine": environment()}))
    files = [str(out / name) for name in sorted(OUTPUTS) if (out / name).exists()]
    return plain({**summary, "out": str(out), "files": files})


def load_policy(folder: str | os.PathLike) -> tuple[Learner, TrainedPolicy]:
    """The learner and the policies, of all seeds (and clusters), that `trajclust train` left in a folder.

    `evaluation.act(learner, policy, observations)` acts with them.

    Raises:
        DataError: for a folder without them.
    """
    try:
        summary = json.loads((Path(folder) / "summary.json").read_text())
        settings = {name: _tuples(value) for name, value in summary["settings"]["learner"].items()}
        learner = LEARNERS[summary["learner"]].algorithm(**settings)
        stored = load_tree(Path(folder) / "policy")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, CheckpointError) as error:
        raise DataError(f"{folder}: no result of trajclust train there ({error})") from None
    return learner, TrainedPolicy(stored["actor"], Scaling(**stored["scaling"]))


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def returns_of(learner: Acting, name: str, policy: TrainedPolicy, episodes: int, number: int) -> np.ndarray:
    """`[*axes, E]`: returns of policies in an environment; other first states for every `number`."""
    if name in _MUJOCO:
        return mujoco_returns(_MUJOCO[name], learner, policy, episodes, seed=10**6 + number)
    key = jax.random.fold_in(jax.random.key(0x6576), number)
    return gymnax_returns(envs.make(name), learner, policy, episodes, key)


def normaliser(environment_name: str | None) -> Callable[[Any], np.ndarray] | None:
    """D4RL's normalisation of returns in an environment; None without one."""
    return TASKS[_MUJOCO[environment_name]].normalised if environment_name in _MUJOCO else None


def summarise(offline: Offline, outcome: Fit, environment_name: str | None) -> dict[str, Any]:
    """Last and best evaluation of every seed (and cluster), and the seconds; per-episode returns are in the history.

    `diverged` has the seeds whose policies are not finite.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(outcome.result.actor)]
    finite = np.all([np.isfinite(leaf).reshape(len(leaf), -1).all(1) for leaf in leaves], 0)
    summary: dict[str, Any] = {
        "diverged": [seed for seed, sound in zip(outcome.seeds, finite, strict=True) if not sound],
        "timing": {
            "run_seconds": outcome.run_seconds,
            "compile_seconds": outcome.compile_seconds,
            "evaluate_seconds": outcome.evaluate_seconds,
            "resumed": outcome.resumed,
        },
    }
    steps, gained = evaluations(offline, outcome)
    if not len(steps):
        return summary
    means = gained.mean(-1)  # [V, *axes]
    best = np.fmax.reduce(means)  # passes over evaluations that are not finite
    scores = {"last_return": means[-1], "best_return": best}
    normalised = normaliser(environment_name)
    if normalised is not None:
        scores |= {"last_score": normalised(means[-1]), "best_score": normalised(best)}
    return {**summary, "scores": {name: values.tolist() for name, values in scores.items()}}


def _write(folder: Path, offline: Offline, outcome: Fit, summary: dict[str, Any]) -> None:
    folder.mkdir()
    save_tree(folder / "policy", {"actor": outcome.result.actor, "scaling": dataclasses.asdict(outcome.result.scaling)})
    _losses(offline, outcome, summary["clusters"]).to_csv(folder / "losses.csv", index=False)
    steps, gained = evaluations(offline, outcome)
    if len(steps):
        _rows(steps, gained, outcome.seeds, summary).to_csv(folder / "evaluations.csv", index=False)
    save_figure(learning_curve(offline, outcome, summary), folder / "learning-curve.png")
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def _losses(offline: Offline, outcome: Fit, clusters: list[int] | None) -> pd.DataFrame:
    """A row a step of `fit`, seed and cluster: the means of what the learner reports."""
    rows = []
    for entry in outcome.history:
        names = [name for name in entry if "/" in name]
        if not names:
            continue
        for s, seed in enumerate(outcome.seeds):
            for k, cluster in enumerate(clusters or [None]):
                value = lambda name: entry[name][s] if cluster is None else entry[name][s][k]  # noqa: B023
                where = {"phase": entry["phase"], "updates": entry["iteration"] * offline.block, "seed": seed}
                where |= {} if cluster is None else {"cluster": cluster}
                rows.append({**where, **{name: value(name) for name in names}})
    return pd.DataFrame(rows)


def _rows(steps: np.ndarray, gained: np.ndarray, seeds: Sequence[int], summary: dict[str, Any]) -> pd.DataFrame:
    """A row an episode."""
    clusters = summary["clusters"]
    names = ["updates", "seed", "episode"] if clusters is None else ["updates", "seed", "cluster", "episode"]
    labels = [steps, seeds, *([] if clusters is None else [clusters]), range(gained.shape[-1])]
    index = pd.MultiIndex.from_product(labels, names=names)
    frame = pd.DataFrame({"return": gained.ravel()}, index=index).reset_index()
    normalised = normaliser(summary["environment"])
    if normalised is not None:
        frame["score"] = normalised(frame["return"])
    return frame


def learning_curve(offline: Offline, outcome: Fit, summary: dict[str, Any]) -> Figure:
    """Returns (scores, where normalised) against gradient steps, a line a seed, and the losses of the first seed.

    A stage's steps are drawn after those of the stages before it.
    """
    stages = offline.learner.stages()
    begins = dict(zip([each.name for each in stages], np.cumsum([0, *(each.updates for each in stages)]), strict=False))
    steps, gained = evaluations(offline, outcome)
    steps = steps + begins[stages[-1].name]
    clusters = summary["clusters"] or [None]
    figure = new_figure(8.4 if len(steps) else 4.2, 3.0)
    axes = list(np.atleast_1d(figure.subplots(1, 2 if len(steps) else 1)))
    if len(steps):
        ax = axes.pop(0)
        normalised = normaliser(summary["environment"])
        scale = (lambda x: x) if normalised is None else normalised
        means = scale(gained.mean(-1)).reshape(len(steps), len(outcome.seeds), -1)  # [V, S, K]
        for k, cluster in enumerate(clusters):
            color = PALETTE[k % len(PALETTE)]
            ax.plot(steps, means[:, :, k], color=color, linewidth=0.6, alpha=0.6)
            label = "mean of seeds" if cluster is None else f"cluster {cluster}"
            ax.plot(steps, means[:, :, k].mean(1), color=color, linewidth=2, label=label)
        ax.axhline(scale(summary["data_return"]["mean"]), color="gray", linewidth=1, linestyle="--", label="data, mean")
        ax.axhline(scale(summary["data_return"]["best"]), color="gray", linewidth=1, linestyle=":", label="data, best")
        ax.set(xlabel="gradient steps", title="return" if normalised is None else "normalised score")
        ax.legend(fontsize=6)
    losses = _losses(offline, outcome, summary["clusters"])
    losses = losses[losses["seed"] == outcome.seeds[0]]
    if "cluster" in losses:
        losses = losses[losses["cluster"] == clusters[0]]
    ax = axes[0]
    for color, name in zip(PALETTE, [name for name in losses if name.endswith("/loss")], strict=False):
        ax.plot(losses["updates"] + losses["phase"].map(begins), losses[name], color=color, label=name)
    ax.set(xlabel="gradient steps", title=f"losses, seed {outcome.seeds[0]}", yscale="symlog")
    ax.legend(fontsize=6)
    for ax in figure.axes:
        ax.title.set_fontsize(9)
        ax.spines[["top", "right"]].set_visible(False)
    return figure
