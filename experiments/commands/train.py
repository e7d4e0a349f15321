"""`trajclust train`: an offline learner on the user's own trajectories, or on the clusters found in them."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajclust_experiments.catalogue import entries, learner_entry, plug_in_entries, revisions
from trajclust_experiments.cells.cell import checkpoint_seconds, seed_table, tracking
from trajclust_experiments.cells.evaluation import (
    Spaces,
    action_bounds,
    evaluations,
    evaluator,
    normaliser,
    spaces_of,
    summarise,
)
from trajclust_experiments.commands.given import chosen_clusters, parsed_settings
from trajclust_experiments.commands.output import check_out, check_unread, resolve_out, staged, work_folder
from trajclust_experiments.commands.printing import number, print_json
from trajclust_experiments.commands.relabel import Asked, relabelled_for_training, warn_of_units
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering.figures import new_figure, save_figure
from trajclust_experiments.usage import UsageError
from trajclust_jax.checkpoint import save_tree
from trajclust_jax.data import DataError, Dataset, Trajectories, load, offsets_of, reduced, returns, suspicious
from trajclust_jax.lazy import lazy
from trajclust_jax.learners import Clustered, Offline
from trajclust_jax.records import cell_id, environment, plain
from trajclust_jax.tracking import make_tracker, track_cell
from trajclust_jax.training import Fit, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")
pd = lazy("pandas")

SMALL = 0.1  # actions that are all below it may be in another unit than [-1, 1], which policies have by default
OUTPUTS = {"summary.json", "policy", "losses.csv", "evaluations.csv", "learning-curve.png", "assignments.csv"}


def train(
    dataset: str,
    learner: str,
    plugin: str | None,
    clusters: Path | None,
    cluster: str | None,
    transitions: int | None,
    draw: int,
    seeds: int,
    environment: str | None,
    episodes: int,
    evaluate_every: int,
    set: tuple[str, ...],
    relabel: str | None,
    expert: str | None,
    set_relabel: tuple[str, ...],
    out: Path,
    track: str,
    json: bool,
) -> int:
    """Trains a learner and prints its scores; arguments as the command has them. Returns 1 if a seed diverged.

    Raises:
        UsageError: for a learner that is not there, numbers below 1, settings that are none.
    """
    if learner not in entries("learner"):
        raise UsageError(f"unknown learner {learner!r}: choose one of {', '.join(entries('learner'))}")
    for option, value in {"seeds": seeds, "episodes": episodes, "evaluate-every": evaluate_every}.items():
        if value < 1:
            raise UsageError(f"--{option} is {value}: at least 1 is needed")
    if cluster is not None and clusters is None:
        raise UsageError(f"--cluster {cluster}: of which clustering? Give its folder with --clusters")
    settings = parsed_settings(set)
    try:
        plug_in_entries(plugin)
    except ValueError as error:
        raise UsageError(f"--plugin: {error}") from None
    if transitions is not None and clusters is not None:
        raise UsageError("--transitions and --clusters: a clustering is of all trajectories; give one of both")
    if "sweep" in settings:
        raise UsageError("--set sweep: sweeps are for Python (Offline); here give each value a run of its own")
    if relabel is None and (expert is not None or set_relabel):
        raise UsageError("--expert and --set-relabel are for a relabeller: name one with --relabel")
    asked = None if relabel is None else Asked(relabel, expert, clusters, set_relabel, seed=0, option="--set-relabel")
    if asked is not None:
        asked.relabeller()
        if cluster is not None:
            raise UsageError("--clusters with --relabel are the experts': give --expert cluster:K, or cluster:all")
    check_out(out, OUTPUTS)
    check_unread(out, f"--out {out}", dataset, clusters, expert)
    loaded, chosen = load(dataset), None
    if transitions is not None:
        loaded = reduced(loaded, transitions, draw)
    if asked is not None:
        work = work_folder(resolve_out(out)) / "relabeller"
        loaded, chosen = relabelled_for_training(loaded, asked, work, Progress())
    elif clusters is not None:
        chosen = chosen_clusters(clusters, cluster or "all", loaded)
    summary = train_on_dataset(
        loaded,
        learner,
        range(seeds),
        out,
        track,
        Progress(),
        clusters=chosen,
        plugin=plugin,
        environment_name=environment,
        episodes=episodes,
        evaluate_every=evaluate_every,
        settings=settings,
    )
    print_json(summary) if json else _print(summary)
    return int(bool(summary["diverged"]))


def _print(summary: dict[str, Any]) -> None:
    for name, values in summary.get("scores", {}).items():
        print(f"{name.replace('_', ' ')}, by seed: {_by_seed(values, summary['clusters'])}")
    if not np.any(np.array(summary.get("scores", {}).get("best_return", True), float)):
        where = summary["environment"]
        print(f"every return is 0: no reward was met in {where}, or it gives none; losses.csv has what was learnt")
    if summary["diverged"]:
        print(f"diverged: seeds {summary['diverged']} have policies that are not finite; lower the learning rate")
    if "scores" not in summary:
        print("not evaluated: the dataset is of no known environment; give one with --environment")
    print(f"{summary['timing']['run_seconds']:.0f} s of training; files in {summary['out']}")


def _by_seed(values: list, clusters: list[int] | None) -> str:
    """Numbers `[S]`, or `[S, K]` with their clusters, for people."""
    if clusters is None:
        return ", ".join(number(value, 1) for value in values)
    named = lambda row: ", ".join(f"{number(value, 1)} (cluster {k})" for k, value in zip(clusters, row, strict=True))
    return "; ".join(map(named, values))


def train_on_dataset(
    dataset: Dataset,
    learner_name: str,
    seeds: Sequence[int],
    out: Path,
    track: str,
    progress: Progress,
    *,
    clusters: tuple[np.ndarray, list[int]] | None = None,
    plugin: str | None = None,
    environment_name: str | None = None,
    episodes: int = 10,
    evaluate_every: int = 10_000,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Trains a learner and writes `out`; returns its summary.

    `out` receives summary.json, policy/ (Orbax: actors and scalings of all seeds and clusters), losses.csv,
    learning-curve.png, assignments.csv where the learner finds clusters itself (a column a seed and cluster) and, where
    the environment is known, evaluations.csv with the return of every episode. It appears whole at the end; a killed
    run goes on (see `output.staged`).

    Args:
        clusters: what `chosen_clusters` gave: a learner for each of them.
        plugin: the names of what changes the learner, joined by `+`.
        environment_name: where to evaluate; by default where the dataset says it is from.
        episodes: of an evaluation.
        evaluate_every: gradient steps between evaluations.
        settings: of the learner, of its plug-ins and of `Offline`.

    Raises:
        DataError: settings or data that the learner does not allow, an `out` that another process is writing.
    """
    trajectories = dataset.trajectories
    if "action_offsets" in dataset.provenance.parameters:
        raise DataError("actions were read less an offset, which 32 bits need: subtract one before you learn from them")
    for line in suspicious(trajectories):
        progress.warn(line)
    given = environment_name
    stated = dataset.provenance.parameters
    named = environment_name or stated.get("environment")
    environment_name = _where(dataset, named, given, progress)
    references = stated.get("reference_returns") if environment_name == stated.get("environment") else None
    relabelled = stated.get("relabelled")
    try:
        entry = learner_entry(learner_name, plugin).on(trajectories.discrete)
        suited = entry.suited(named)  # also where it cannot be evaluated in
        if relabelled is not None or not np.isin(np.asarray(trajectories.rewards), (0, 1)).all():
            suited.pop("reward_shift", None)  # that of rewards of 0 and, at the goal, 1
        if (relabelled or {}).get("settings", {}).get("returns_range") is not None:
            suited.pop("reward_range", None)  # that of the relabeller holds, for each expert's rewards by themselves
        for name in settings or {}:
            suited.pop(name, None)
        offline = entry.build(trajectories.action_size, **suited, **(settings or {}))
        offline.check(trajectories)
    except ValueError as error:
        with_plugin = "" if plugin is None else f" --plugin {plugin}"
        raise DataError(f"--learner {learner_name}{with_plugin}: {error}") from None
    if suited:
        told = " ".join(f"{name}={value}" for name, value in suited.items())
        progress.note(f"{learner_name}'s settings for {named}: {told}; --set gives others")
    warn_of_units(trajectories, offline.normalise, "--set", progress)
    if not offline.bounds and not trajectories.discrete:
        offline = dataclasses.replace(offline, bounds=action_bounds(dataset, environment_name))
        largest = np.abs(np.asarray(trajectories.actions)[np.asarray(trajectories.mask)]).max()
        if not offline.bounds and environment_name is None and "action_high" not in stated and largest < SMALL:
            progress.warn(
                f"no action exceeds {largest:.2g}, but policies' may reach 1, for nothing says what their bounds are: "
                "give --set bounds=[...], a number for each"
            )
    described = {
        "dataset": dataset.spec.name,
        "fingerprint": dataset.provenance.fingerprint,
        "learner": learner_name,
        **({} if plugin is None else {"plugin": plugin, "revisions": revisions(plugin)}),
        **({"discrete": True} if trajectories.discrete else {}),
        **({"reduced": drawn} if (drawn := dataset.provenance.parameters.get("reduced")) else {}),
        "settings": dataclasses.asdict(offline),
        "version": [offline.VERSION, offline.learner.VERSION],
        "seeds": list(seeds),
        "clusters": None if clusters is None else clusters[1],
        "assignments": None if clusters is None else cell_id({"assignments": clusters[0].tolist()}),
        "environment": environment_name,
        "episodes": episodes,
        "evaluate_every": evaluate_every,
    }
    id = cell_id(described)
    evaluate = None
    if described["environment"]:
        evaluate = evaluator(offline, environment_name, episodes, evaluate_every, references)
    data: Trajectories | Clustered = trajectories
    if clusters is not None:
        data = Clustered(trajectories, clusters[0], len(clusters[1]), tuple(clusters[1]))
    out = resolve_out(out)
    place = {"name": f"{dataset.spec.name}-{learner_name}", "id": id, "directory": out.parent, "config": described}
    place["tags"] = [f"dataset:{dataset.spec.name}", f"learner:{learner_name}"]
    with staged(out, OUTPUTS) as work, contextlib.ExitStack() as stack:
        tracker = stack.enter_context(make_tracker(track, seeds=seeds, **place))
        whole = stack.enter_context(track_cell(track, **place))
        with progress.task(f"{dataset.spec.name} {learner_name}") as show:
            outcome = fit(
                offline,
                data,
                seeds,
                evaluate=evaluate,
                callbacks=[show, tracking(tracker, offline)],
                checkpoint_dir=work / id,
                checkpoint_seconds=checkpoint_seconds(),
            )
        summary = {"id": id, **described, "reference_returns": references}
        summary |= summarise(offline, outcome, environment_name, references)
        summary["losses_not_finite"], begun = _broken_losses(offline, outcome)
        if begun:
            progress.warn(
                f"losses of seeds {summary['losses_not_finite']} are not finite, first {begun}: do not trust these "
                "policies; look for mistakes in the rewards, or lower the learning rate"
            )
        if relabelled is not None:
            summary["relabelled"] = relabelled
        summary["observation_shape"] = list(trajectories.observation_shape)
        if trajectories.action_parts:
            summary["action_parts"] = trajectories.action_parts
        summary["offsets"] = offsets_of(dataset)
        summary["data_return"] = None  # of other rewards than the environment's: they are no measure of its returns
        if relabelled is None:
            summary["data_return"] = {"mean": returns(trajectories).mean(), "best": returns(trajectories).max()}
        _write(work / "new", offline, outcome, plain({**summary, "machine": environment()}), data)
        final = summary.get("scores", {})
        for index, seed in enumerate(seeds):
            told = {f"final/{name}": values[index] for name, values in final.items()}
            if clusters is not None:
                each = lambda name, values: {f"{name}/cluster{k}": x for k, x in zip(clusters[1], values, strict=True)}
                told = {key: x for name, values in told.items() for key, x in each(name, values).items()}
            tracker.summary(seed, {**told, "health/diverged": seed in summary["diverged"]})
        whole.page(*seed_table(seeds, final), [work / "new" / "learning-curve.png"], work / "new" / "summary.json")
    files = [str(out / name) for name in sorted(OUTPUTS) if (out / name).exists()]
    return plain({**summary, "out": str(out), "files": files})


def _where(dataset: Dataset, name: str | None, given: str | None, progress: Progress) -> str | None:
    """The environment to evaluate in, if it is there and is that of the data.

    Raises:
        DataError: for a `given` one that is not.
    """
    if name is None:
        return None
    try:
        found, data = spaces_of(name), Spaces.of(dataset.trajectories)
        if not found.match(data):
            raise DataError(f"{name} has {found.described}, the dataset {data.described}: give its own")
        if "observation_offsets" in dataset.provenance.parameters:
            raise DataError("observations were read less an offset, which an environment's do not have")
    except DataError as error:
        if given is not None:
            raise DataError(f"--environment {given}: {error}") from None
        progress.note(f"not evaluated in {name}, which the dataset names: {error}")
        return None
    return name


def _write(
    folder: Path, offline: Offline, outcome: Fit, summary: dict[str, Any], data: Trajectories | Clustered
) -> None:
    folder.mkdir()
    save_tree(folder / "policy", {"actor": outcome.result.actor, "scaling": dataclasses.asdict(outcome.result.scaling)})
    _losses(offline, outcome, summary["clusters"]).to_csv(folder / "losses.csv", index=False)
    found = offline.learner.assignments(outcome.result.actor)
    if found is not None:
        all_seen = offline.learner.before() is not None  # by what clusters before the learner does
        groups = (dataclasses.replace(offline, best=1.0) if all_seen else offline).learned_from(data)
        _assignments(np.asarray(found), outcome.seeds, summary["clusters"], groups).to_csv(folder / "assignments.csv")
    steps, episode_returns = evaluations(offline, outcome)
    if len(steps):
        _rows(steps, episode_returns, outcome.seeds, summary).to_csv(folder / "evaluations.csv", index=False)
    save_figure(learning_curve(offline, outcome, summary), folder / "learning-curve.png")
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def _assignments(
    found: np.ndarray, seeds: Sequence[int], clusters: list[int] | None, groups: list[np.ndarray]
) -> "pd.DataFrame":
    """A row a trajectory: the clusters that learners found themselves, `[S, N]`, or `[S, K, N]` of a learner on each of
    `clusters`; empty where a learner has not seen it, of whom `groups` are."""
    titles = [""] if clusters is None else [f" cluster {cluster}" for cluster in clusters]
    columns = {}
    for seed, each in zip(seeds, found, strict=True):
        for title, codes, group in zip(titles, np.atleast_2d(each), groups, strict=True):
            columns[f"seed {seed}{title}"] = pd.Series(codes[group], index=group)
    rows = pd.RangeIndex(found.shape[-1], name="trajectory")
    return pd.DataFrame(columns, index=rows).astype("Int64")


def _losses(offline: Offline, outcome: Fit, clusters: list[int] | None) -> "pd.DataFrame":
    """A row a step of `fit`, seed and cluster: the means of what the learner reports."""
    rows = []
    for entry in outcome.history:
        names = [name for name in entry if "/" in name]
        if not names:
            continue
        for s, seed in enumerate(outcome.seeds):
            for k, cluster in enumerate(clusters or [None]):
                value = lambda name: entry[name][s] if cluster is None else entry[name][s][k]  # noqa: B023
                updates = entry["iteration"] * offline.updates_a_step(entry["phase"])
                where = {"phase": entry["phase"], "updates": updates, "seed": seed}
                where |= {} if cluster is None else {"cluster": cluster}
                rows.append({**where, **{name: value(name) for name in names}})
    return pd.DataFrame(rows)


def _broken_losses(offline: Offline, outcome: Fit) -> tuple[list[int], str]:
    """The seeds of which a loss is not finite at some step, and the name and the updates of the first such loss."""
    broken, first = set(), ""
    pausing = offline.learner.PAUSING  # NaN where their part had no turn
    for entry in outcome.history:
        for name in (name for name in entry if name.endswith("/loss") and not name.startswith(pausing)):
            losses = np.array(entry[name], float).reshape(len(outcome.seeds), -1)  # [S, K]; NaN for null
            bad = np.flatnonzero(~np.isfinite(losses).all(1))
            if len(bad) and not first:
                first = f"{name} after {entry['iteration'] * offline.updates_a_step(entry['phase'])} updates"
            broken |= {outcome.seeds[s] for s in bad}
    return sorted(broken), first


def _rows(
    steps: np.ndarray, episode_returns: np.ndarray, seeds: Sequence[int], summary: dict[str, Any]
) -> "pd.DataFrame":
    """A row an episode."""
    clusters = summary["clusters"]
    names = ["updates", "seed", "episode"] if clusters is None else ["updates", "seed", "cluster", "episode"]
    labels = [steps, seeds, *([] if clusters is None else [clusters]), range(episode_returns.shape[-1])]
    index = pd.MultiIndex.from_product(labels, names=names)
    frame = pd.DataFrame({"return": episode_returns.ravel()}, index=index).reset_index()
    normalised = normaliser(summary["environment"], summary["reference_returns"])
    if normalised is not None:
        frame["score"] = normalised(frame["return"])
    return frame


def learning_curve(offline: Offline, outcome: Fit, summary: dict[str, Any]) -> "Figure":
    """Returns (scores, where normalised) against gradient steps, a line a seed, and the losses of the first seed.

    A stage's steps are drawn after those of the stages before it.
    """
    stages = offline.learner.stages()
    begins = {stage.name: offline.gradient_steps(stage.name, 0) for stage in stages}
    steps, episode_returns = evaluations(offline, outcome)
    steps = steps + begins[stages[-1].name]
    clusters = summary["clusters"] or [None]
    figure = new_figure(8.4 if len(steps) else 4.2, 3.0)
    axes = list(np.atleast_1d(figure.subplots(1, 2 if len(steps) else 1)))
    if len(steps):
        ax = axes.pop(0)
        normalised = normaliser(summary["environment"], summary["reference_returns"])
        scale = (lambda x: x) if normalised is None else normalised
        means = scale(episode_returns.mean(-1)).reshape(len(steps), len(outcome.seeds), -1)  # [V, S, K]
        for k, cluster in enumerate(clusters):
            color = plotting.PALETTE[k % len(plotting.PALETTE)]
            ax.plot(steps, means[:, :, k], color=color, linewidth=0.6, alpha=0.6)
            label = "mean of seeds" if cluster is None else f"cluster {cluster}"
            ax.plot(steps, means[:, :, k].mean(1), color=color, linewidth=2, label=label)
        for (name, value), style in zip((summary["data_return"] or {}).items(), ("--", ":"), strict=False):
            ax.axhline(scale(value), color="gray", linewidth=1, linestyle=style, label=f"data, {name}")
        ax.set(xlabel="gradient steps", title="return" if normalised is None else "normalised score")
        ax.legend(fontsize=6)
    losses = _losses(offline, outcome, summary["clusters"])
    losses = losses[losses["seed"] == outcome.seeds[0]]
    if "cluster" in losses:
        losses = losses[losses["cluster"] == clusters[0]]
    ax = axes[0]
    for color, name in zip(plotting.PALETTE, [name for name in losses if name.endswith("/loss")], strict=False):
        ax.plot(losses["updates"] + losses["phase"].map(begins), losses[name], color=color, label=name)
    ax.set(xlabel="gradient steps", title=f"losses, seed {outcome.seeds[0]}", yscale="symlog")
    ax.legend(fontsize=6)
    for ax in figure.axes:
        ax.title.set_fontsize(9)
        ax.spines[["top", "right"]].set_visible(False)
    return figure
