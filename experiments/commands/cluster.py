"""`trajclust cluster`: a method on the user's own trajectories."""

import contextlib
import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from trajclust_experiments.catalogue import CATALOGUE, entries
from trajclust_experiments.cells.cell import checkpoint_seconds, seed_table, tracking
from trajclust_experiments.commands.choose_k import choice_figure, choose_k
from trajclust_experiments.commands.clusters import (
    OUTPUTS,
    Split,
    describe_clusters,
    listed,
    print_clusters,
    print_end,
    write_clusters,
)
from trajclust_experiments.commands.data import labelled
from trajclust_experiments.commands.output import check_out, check_unread, resolve_out, staged
from trajclust_experiments.commands.printing import pairs, print_json
from trajclust_experiments.models import ClusteringModel
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering.figures import save_figure
from trajclust_experiments.usage import UsageError
from trajclust_jax.clustering import Clusterer
from trajclust_jax.clustering.ambiguity import ambiguity
from trajclust_jax.clustering.health import diagnose
from trajclust_jax.clustering.images import describe_inputs
from trajclust_jax.clustering.support import LEAST, UNTOLD, support_of
from trajclust_jax.data import DataError, Dataset, Trajectories, check_seed, offsets_of, suspicious
from trajclust_jax.metrics import batch_scores
from trajclust_jax.records import cell_id, environment
from trajclust_jax.tracking import make_tracker, track_cell
from trajclust_jax.training import fit


def cluster(
    dataset: str,
    k: int | str,
    k_max: int,
    method: str,
    policy: str | None,
    extra_clusters: int | None,
    restarts: int | None,
    iterations: int | None,
    seed: int,
    labels: Path | None,
    split: Split | None,
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
    check_seed(seed, "--seed")
    for option in settings:
        if option not in CATALOGUE[name].settings():
            raise UsageError(f"--{option.replace('_', '-')} is no setting of {method}")
    check_out(out, OUTPUTS)
    check_unread(out, f"--out {out}", dataset, labels)
    num_clusters = None if k == "auto" else int(k)
    loaded = labelled(dataset, labels)
    summary = cluster_dataset(loaded, name, num_clusters, seed, out, track, Progress(), k_max, split, **settings)
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
        chosen = families[method].get(policy or "mlp")
        if chosen is None:
            raise UsageError(f"--policy {policy} is none of {method}: choose one of {', '.join(families[method])}")
        return chosen, None
    if method not in known:
        choices = [*families, *(name for name, entry in known.items() if entry.family not in families)]
        raise UsageError(f"unknown method {method!r}: choose one of {', '.join(choices)}")
    if policy and known[method].family in families:
        raise UsageError(f"--policy {policy}: {method} has its own; give --method {known[method].family}")
    return method, policy


def _print(summary: dict[str, Any]) -> None:
    if summary["choice_of_k"] is not None:
        print(summary["choice_of_k"]["message"])
    print_clusters(summary)
    if summary["ambiguity"] is not None:
        print(summary["ambiguity"]["message"])
    print(f"seen: {summary['inputs']}")
    if summary["suited"]:
        print("settings for such data: " + pairs(summary["suited"]))
    if summary["support"] is not None:
        gain = "{over_one:+.3f} ± {over_one_error:.3f}".format(**summary["support"])
        print(f"held-out actions, beside one policy for all: {gain} nats a step")
    print_end(summary)


def cluster_dataset(
    dataset: Dataset,
    method_name: str,
    num_clusters: int | None,
    seed: int,
    out: Path,
    track: str,
    progress: Progress,
    k_max: int = 10,
    split: Split | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Clusters a dataset and writes `out`; returns its summary, with assignments and posterior.

    `out` receives what docs/data.md lists: tables, the posterior, the model (Orbax; see `models`), summary.json,
    figures, and with `split` datasets. It appears whole at the end; a killed run goes on (see `output.staged`).

    Args:
        num_clusters: K, or None: it is chosen from 1 to `k_max` (see `choose_k`).
        split: write each cluster as a dataset of this format.
        settings: of the method, in place of those that suit the data.

    Raises:
        DataError: more clusters than trajectories, a method that this data does not allow, an `out` that holds
            other files or that another process is writing.
    """
    trajectories = dataset.trajectories
    most = trajectories.num_trajectories
    if num_clusters is None and most < 2:
        raise DataError("--k auto: one trajectory cannot be held out from another; give --k 1")
    for option, value in {"--k": num_clusters, "--k-max": k_max if num_clusters is None else None}.items():
        if value is not None and not 1 <= value <= most:
            raise DataError(f"{option} is {value}: give 1 to {most}, the number of trajectories")
    # Whatever K will be, what is wrong with the method or the data is told before long work.
    suiting, method = _built(method_name, num_clusters or 1, trajectories, settings)
    out = resolve_out(out)
    with staged(out, OUTPUTS) as work, contextlib.ExitStack() as stack:
        choice = None
        if num_clusters is None:
            policy = settings.get("policy") or CATALOGUE[method_name].policy
            choice = choose_k(trajectories, k_max, seed, policy, work / "choice", progress, dataset.spec.name)
            suiting, method = _built(method_name, choice.num_clusters, trajectories, settings)
        described = {
            "dataset": dataset.spec.name,
            "fingerprint": dataset.provenance.fingerprint,
            "method": method_name,
            "hyperparameters": dataclasses.asdict(method),
            "version": [method.VERSION, method.ACTIONS_VERSION],
            "seed": seed,
        }
        id = cell_id(described)
        place = {"name": f"{dataset.spec.name}-{method_name}", "id": id, "directory": out.parent, "config": described}
        place["tags"] = [f"dataset:{dataset.spec.name}", f"method:{method_name}"]
        tracker = stack.enter_context(make_tracker(track, seeds=[seed], **place))
        whole = stack.enter_context(track_cell(track, **place))
        score = None if dataset.labels is None else functools.partial(batch_scores, dataset.labels)
        with progress.task(f"{dataset.spec.name} {method_name}") as show:
            outcome = fit(
                method,
                trajectories,
                [seed],
                score=score,
                callbacks=[show, tracking(tracker, method)],
                checkpoint_dir=work / id,
                checkpoint_seconds=checkpoint_seconds(),
            )
        clustering = jax.tree.map(lambda x: np.asarray(x[0]), outcome.result)
        support = None
        if method.support_policies() is not None:
            with progress.task(f"{dataset.spec.name}, held out") as show:
                support = support_of(method, trajectories, clustering, [show])
        health, warnings = diagnose(clustering)
        if method.support_policies() is not None and most < LEAST and health["used_clusters"] > 1:
            warnings.append(UNTOLD)
        warnings += [] if support is None or not support.warning else [support.warning]
        warnings += [] if choice is None else choice.warnings
        model = ClusteringModel.of(method, clustering, trajectories)
        summary = {
            "id": id,
            **described,
            "takes": model.described(),
            "offsets": offsets_of(dataset),
            "suited": suiting,
            "inputs": describe_inputs(trajectories),
            "choice_of_k": None if choice is None else choice.to_dict(),
            **describe_clusters(dataset, clustering),
            "restart": int(clustering.restart),
            "restart_objectives": clustering.restart_objectives,
            "ambiguity": ambiguity(clustering) if len(clustering.restart_objectives) > 1 else None,
            "health": health,
            "support": None if support is None else dataclasses.asdict(support) | {"supported": support.supported},
            "warnings": [*suspicious(trajectories), *warnings],
            "timing": {"run_seconds": outcome.run_seconds, "compile_seconds": outcome.compile_seconds},
            "environment": environment(),
        }
        folder = work / "new"
        folder.mkdir()
        model.save(folder / "model")
        if choice is not None:
            save_figure(choice_figure(choice), folder / "choice-of-k.png")
        write_clusters(folder, dataset, clustering, outcome.history, split, summary)
        final = {**(summary["scores"] or {}), "objective": summary["objective"]}
        tracker.summary(seed, {f"final/{name}": value for name, value in final.items()})
        tracker.summary(seed, {f"health/{name}": value for name, value in health.items()})
        figures = sorted(folder.glob("*.png"))
        whole.page(*seed_table([seed], final), figures, folder / "summary.json")
    return listed(summary, clustering, out)


def _built(
    name: str, num_clusters: int, trajectories: Trajectories, settings: dict[str, Any]
) -> tuple[dict[str, Any], Clusterer]:
    """The method, with `settings` and in place of what they leave open what suits the data; and the latter.

    Raises:
        DataError: for settings or data that the method does not allow.
    """
    try:
        suiting = CATALOGUE[name].suited(trajectories, settings.get("policy"))
        method = CATALOGUE[name].build(num_clusters, **{**suiting, **settings})
        method.check(trajectories)
    except ValueError as error:
        raise DataError(f"--method {name}: {error}") from None
    return {name: value for name, value in suiting.items() if name not in settings}, method
