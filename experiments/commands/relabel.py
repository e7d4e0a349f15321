"""`trajclust relabel`: a dataset with rewards by an expert's few trajectories; and `trajclust train --relabel`."""

import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajclust_experiments.catalogue import CATALOGUE, entries
from trajclust_experiments.cells.cell import checkpoint_seconds
from trajclust_experiments.cells.evaluation import environment_names
from trajclust_experiments.commands.given import chosen_clusters, parsed_settings
from trajclust_experiments.commands.output import (
    check_out,
    check_unread,
    check_writable,
    resolve_out,
    staged,
    work_folder,
)
from trajclust_experiments.commands.printing import number, print_json
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering.figures import new_figure, save_figure
from trajclust_experiments.usage import UsageError
from trajclust_jax.checkpoint import save_tree
from trajclust_jax.data import (
    DataError,
    Dataset,
    Trajectories,
    build_dataset,
    check_seed,
    fingerprint,
    ill_scaled,
    load,
    offsets_of,
    rebased,
    returns,
    save_hdf5,
    save_npz,
    suspicious,
    transitions,
)
from trajclust_jax.lazy import lazy
from trajclust_jax.metrics import auc, rank_correlation
from trajclust_jax.records import cell_id, environment, plain
from trajclust_jax.relabelling import (
    ExpertData,
    Relabelled,
    Relabeller,
    expert_auc,
    of_best,
    of_clusters,
    of_demonstrations,
    of_successes,
    relabelled_dataset,
    rewarded_copies,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plotting = lazy("trajclust_envs.plotting")
pd = lazy("pandas")

log = logging.getLogger(__name__)

CHANCE = 0.55  # an AUC below it is hardly better than .5
MODEL = ("params", "centre", "seed", "mean", "std", "bound")  # of a trained relabeller
OUTPUTS = {"summary.json", "model", "losses.csv", "rewards.png"}


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a user asks of a relabelling."""

    method: str
    expert: str | None  # a file, best:K, success:K or cluster:K
    clusters: Path | None  # the clustering that cluster:K is of
    settings: tuple[str, ...]
    seed: int
    option: str = "--set"  # that gives the settings

    def relabeller(self) -> Relabeller:
        """Raises UsageError for a method or settings that there are not."""
        if self.method not in entries("relabeller"):
            raise UsageError(f"unknown relabeller {self.method!r}: choose one of {', '.join(entries('relabeller'))}")
        try:
            relabeller = CATALOGUE[self.method].build(**parsed_settings(self.settings, self.option))
        except ValueError as error:
            raise UsageError(f"{self.method}: {error}") from None
        if relabeller.NEEDS_EXPERT and self.expert is None:
            raise UsageError(f"{self.method} needs an expert: give --expert FILE, best:1, success:1 or cluster:K")
        if self.clusters is not None and (self.expert or "").partition(":")[0].lower() != "cluster":
            raise UsageError("--clusters needs --expert cluster:K, whose clusters they are")
        return relabeller

    def expert_data(self, dataset: Dataset) -> tuple[ExpertData, dict[str, Any]]:
        """The data with the expert, and how the expert was given, as JSON.

        Raises:
            DataError: for a file that cannot be read, an expert that is none: see `relabelling.experts`.
        """
        trajectories = dataset.trajectories
        if self.expert is None:
            return ExpertData(trajectories), {}
        kind, _, text = self.expert.partition(":")
        described: dict[str, Any] = {"expert": self.expert}
        if kind == "best":
            return of_best(trajectories, self._count(text or "1")), described
        if kind == "success":
            return of_successes(trajectories, self._count(text) if text else None), described
        if kind == "cluster":
            if self.clusters is None:
                raise UsageError(f"--expert {self.expert}: of which clustering? Give its folder with --clusters")
            assignments, numbers = chosen_clusters(self.clusters, text or "all", dataset)
            described |= {"clusters": numbers, "assignments": cell_id({"assignments": assignments.tolist()})}
            return of_clusters(trajectories, assignments, list(range(len(numbers)))), described
        if kind.lower() in ("best", "success", "cluster") and not Path(self.expert).exists():
            raise UsageError(f"--expert {self.expert}: did you mean {self.expert.lower()}?")
        given = load(self.expert)
        _check_environments(self.expert, *(each.provenance.parameters.get("environment") for each in (given, dataset)))
        described["expert_fingerprint"] = fingerprint(given.trajectories)
        return of_demonstrations(trajectories, rebased(given, offsets_of(dataset))), described

    def _count(self, text: str) -> int:
        if not text.isdecimal():
            raise UsageError(f"--expert {self.expert}: give a number of trajectories, such as best:1")
        return int(text)

    def described(self, dataset: Dataset, relabeller: Relabeller, expert: dict[str, Any]) -> dict[str, Any]:
        """Everything that determines the rewards, as JSON."""
        given = {
            "method": self.method,
            "settings": dataclasses.asdict(relabeller),
            "version": relabeller.VERSION,
            "seed": self.seed,
            **expert,
            "made_from": dataset.provenance.source,
            "made_from_fingerprint": dataset.provenance.fingerprint,
        }
        if "relabelled" in dataset.provenance.parameters:  # again
            given["earlier"] = dataset.provenance.parameters["relabelled"]
        return plain({"id": cell_id(given), **given})


def _check_environments(expert: str, theirs: str | None, ours: str | None) -> None:
    """Warns of an expert of another environment than the data's; where both are known ones, raises DataError.

    Versions, options and kinds of reward, which are not read, may differ.
    """
    if theirs is None or ours is None:
        return
    task = lambda name: re.sub(r"(sparse|dense)?(-v\d+)?$", "", name.partition("{")[0].split(":")[-1].casefold())
    if task(theirs) == task(ours):
        return
    told = f"--expert {expert} is of {theirs}, the data of {ours}"
    if {task(theirs), task(ours)} <= set(map(task, environment_names())):
        raise DataError(f"{told}: give one of the same environment")
    log.warning("%s: are they the same environment?", told)


def relabel(
    dataset: str,
    expert: str | None,
    method: str,
    clusters: Path | None,
    seed: int,
    set: tuple[str, ...],
    out: Path,
    json: bool,
) -> None:
    """Relabels a dataset and prints what the rewards are like; arguments as the command has them."""
    check_seed(seed, "--seed")
    asked = Asked(method, expert, clusters, set, seed)
    asked.relabeller()
    if out.suffix not in (".hdf5", ".npz"):
        raise UsageError(f"--out {out}: give a file name that ends in .hdf5 or .npz")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: give a file name")
    folder = folder_of(out)
    check_writable(out.parent, str(out.parent))
    check_out(folder, OUTPUTS)
    for target in (out, folder):
        check_unread(target, f"--out {out}", dataset, expert, clusters)
    ours = (folder / "summary.json", work_folder(resolve_out(folder)))  # of a run that is done, or was killed
    if out.exists() and not any(path.exists() for path in ours):
        raise UsageError(f"--out {out} is another file: give a new name")
    summary = relabel_dataset(load(dataset), asked, out, Progress())
    if json:
        return print_json(summary)
    print(f"rewards {number(summary['rewards']['mean'], 3)} ± {number(summary['rewards']['std'], 3)} a step")
    if summary["rank_correlation"] is not None:
        print(f"rank correlation of returns with those of the data's rewards: {summary['rank_correlation']:.2f}")
    for name, values in summary.get("chosen", {}).items():
        print(f"chosen without true rewards: {name} {values[0]:g}")
    for value in summary.get("expert_auc", []):
        if value is not None:
            print(f"steps of the expert above others with probability {value:.2f} (AUC)")
    for name, value in (summary["auc"] or {}).items():
        print(f"steps of {name} above others with probability {value:.2f} (AUC)")
    print(f"{summary['timing']['run_seconds']:.0f} s; written to {out}, the model to {folder}")
    return None


def folder_of(out: Path) -> Path:
    """Where the model of a dataset's rewards is, beside it."""
    return out.with_name(f"{out.name}-relabeller")


def relabel_dataset(dataset: Dataset, asked: Asked, out: Path, progress: Progress) -> dict[str, Any]:
    """Writes the dataset `out` with new rewards, and beside it a folder; returns its summary.

    The folder receives summary.json, rewards.png and, of what is trained, model/ (Orbax) and losses.csv. A killed run
    goes on (see `output.staged`).

    Raises:
        DataError: for an expert that is none, an `out` that cannot be written.
    """
    relabeller = asked.relabeller()
    data, expert = asked.expert_data(dataset)
    if len(data.experts) > 1:
        raise UsageError(f"--expert {asked.expert} are {len(data.experts)} experts: give one, such as cluster:0")
    for line in suspicious(data.pooled):
        progress.warn(line)
    warn_of_units(data.pooled, relabeller.normalise, asked.option, progress)
    described = asked.described(dataset, relabeller, expert)
    with staged(folder_of(out), OUTPUTS) as work:
        found = _fitted(relabeller, data, described, asked, work, progress)
        described |= _judged(relabeller, found, data, described, asked, progress)
        rewards = found.rewards[0, 0]
        made = relabelled_dataset(dataset, relabeller, data, rewards, {"relabelled": described})
        (save_npz if out.suffix == ".npz" else save_hdf5)(made, resolve_out(out.parent) / out.name)
        summary = plain(
            {
                **described,
                "fingerprint": made.provenance.fingerprint,
                **compared(dataset, rewards[: data.num_steps]),
                "offsets": offsets_of(dataset),
                "timing": found.timing,
                "machine": environment(),
            }
        )
        (work / "new").mkdir()
        _write(work / "new", dataset, found, rewards[: data.num_steps], summary)
    return {**summary, "out": str(out), "folder": str(folder_of(out))}


def relabelled_for_training(
    dataset: Dataset, asked: Asked, work: Path, progress: Progress
) -> tuple[Dataset, tuple[np.ndarray, list[int]] | None]:
    """A dataset to train on; with several experts as many copies of it, and what `train_on_dataset` takes for clusters.

    Checkpoints are kept in `work`, which is the caller's to remove.
    """
    relabeller = asked.relabeller()
    data, expert = asked.expert_data(dataset)
    lines = [] if data.demonstrations is None else suspicious(data.demonstrations)
    for line in lines + suspicious(dataset.trajectories, ("rewards",)):  # that of the rest comes with the training
        progress.warn(line)
    warn_of_units(data.pooled, relabeller.normalise, asked.option, progress)
    described = asked.described(dataset, relabeller, expert)
    found = _fitted(relabeller, data, described, asked, work, progress)
    described |= _judged(relabeller, found, data, described, asked, progress)
    if len(data.experts) > 1:
        return _dataset_of_copies(dataset, relabeller, data, found.rewards[0], described)
    return relabelled_dataset(dataset, relabeller, data, found.rewards[0, 0], {"relabelled": described}), None


def warn_of_units(trajectories: Trajectories, normalised: bool | None, option: str, progress: Progress) -> None:
    """Warns of observations that are not seen as they are (None: at all), or `normalised`; `option` sets that."""
    line = None if normalised is None else ill_scaled(trajectories, normalised)
    if line is not None:
        progress.warn(f"{line}: {'' if normalised else f'give {option} normalise=true, or '}shift and scale them")


def _dataset_of_copies(
    dataset: Dataset, relabeller: Relabeller, data: ExpertData, rewards: np.ndarray, described: dict[str, Any]
) -> tuple[Dataset, tuple[np.ndarray, list[int]]]:
    """A copy of the data for each expert's rewards `[E, P]`, and which copy is whose."""
    copies, assignments = rewarded_copies(relabeller, data, rewards)
    labels = None if dataset.labels is None else np.tile(dataset.labels, len(rewards))
    made = build_dataset(
        copies,
        labels,
        name=dataset.spec.name,
        source=dataset.provenance.source,
        policy_names=dataset.spec.policy_names,
        parameters={**dataset.provenance.parameters, "relabelled": described},
    )
    return made, (assignments, described["clusters"])


def _fitted(
    relabeller: Relabeller, data: ExpertData, described: dict[str, Any], asked: Asked, work: Path, progress: Progress
) -> Relabelled:
    """The rewards, of a relabeller that is trained where it has `phases`.

    Raises:
        DataError: for rewards that are not finite.
    """
    trained, title = hasattr(relabeller, "phases"), f"{described['made_from']} {described['method']}"
    if trained:
        with progress.task(title) as show:
            found = relabeller.relabel(
                data,
                (described["seed"],),
                callbacks=[show],
                checkpoint_dir=work / described["id"],
                checkpoint_seconds=checkpoint_seconds(),
            )
    else:
        with progress.waiting(title):
            found = relabeller.relabel(data, (described["seed"],))
    if not np.isfinite(found.rewards).all():
        remedy = "lower the learning_rate" if trained else "look at its settings"
        raise DataError(f"{asked.method} gave rewards that are not finite: {remedy} ({asked.option})")
    return found


def _judged(
    relabeller: Relabeller,
    found: Relabelled,
    data: ExpertData,
    described: dict[str, Any],
    asked: Asked,
    progress: Progress,
) -> dict[str, Any]:
    """What training chose, and whether the rewards tell each expert's steps, which is warned of where they do not."""
    if not relabeller.NEEDS_EXPERT:
        return {}
    told = expert_auc(relabeller, found, data)
    clusters = described.get("clusters")
    for place, (value, rewards) in enumerate(zip(told, found.rewards[0], strict=True)):
        named = "the expert's" if clusters is None else f"cluster {clusters[place]}'s"
        if not np.ptp(rewards):
            progress.warn(
                f"{asked.method} gave every step the same reward, {named} among them: look at its settings "
                f"({asked.option})"
            )
        elif value is not None and value < CHANCE:
            progress.warn(
                f"the rewards tell {named} steps from others hardly better than chance (AUC {value:.2f}), as where it "
                "does as the others do, or was learned too briefly"
            )
    return plain({"expert_auc": told, "chosen": relabeller.chosen(found, data)})


def compared(dataset: Dataset, rewards: np.ndarray) -> dict[str, Any]:
    """What rewards `[P]` are like, beside labels and the data's own rewards, which nothing else reads."""
    flat = transitions(dataset.trajectories)
    new = np.bincount(flat.trajectory, rewards)
    correlation = rank_correlation(new, returns(dataset.trajectories))
    names = dataset.spec.policy_names or tuple(f"label {k}" for k in range(dataset.num_policies or 0))
    labels = None if dataset.labels is None else dataset.labels[flat.trajectory]
    return {
        "rewards": {"mean": rewards.mean(dtype=np.float64), "std": rewards.std(dtype=np.float64), "unit": "unscaled"},
        "rank_correlation": None if np.isnan(correlation) else correlation,
        "auc": None if len(names) < 2 else {name: auc(rewards, labels == k) for k, name in enumerate(names)},
    }


def _write(folder: Path, dataset: Dataset, found: Relabelled, rewards: np.ndarray, summary: dict[str, Any]) -> None:
    if found.outcome is not None:
        save_tree(folder / "model", {name: getattr(found.model, name) for name in MODEL})
        rows = [
            {"step": entry["iteration"], **{name: entry[name][0] for name in entry if "/" in name}}
            for entry in found.outcome.history
            if entry["iteration"]
        ]
        pd.DataFrame(rows).to_csv(folder / "losses.csv", index=False)
    save_figure(rewards_figure(dataset, rewards), folder / "rewards.png")
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def rewards_figure(dataset: Dataset, rewards: np.ndarray) -> "Figure":
    """Rewards of steps by label; mean rewards of trajectories against the data's returns."""
    flat = transitions(dataset.trajectories)
    labels = np.zeros(dataset.trajectories.num_trajectories, int) if dataset.labels is None else dataset.labels
    names = dataset.spec.policy_names or tuple(f"label {k}" for k in range(labels.max() + 1))
    means = np.bincount(flat.trajectory, rewards) / np.bincount(flat.trajectory)
    figure = new_figure(7.2, 2.8)
    steps, trajectories = figure.subplots(1, 2)
    for k, name in enumerate(names):
        color = plotting.PALETTE[k % len(plotting.PALETTE)]
        of_steps = rewards[labels[flat.trajectory] == k]
        steps.hist(of_steps, bins=np.linspace(rewards.min(), rewards.max() + 1e-6, 41), histtype="step", color=color)
        own = labels == k
        trajectories.plot(returns(dataset.trajectories)[own], means[own], ".", color=color, ms=4, label=name)
    steps.set(title="rewards of steps", xlabel="reward, unscaled", yscale="log")
    trajectories.set(title="trajectories", xlabel="return by the data's rewards", ylabel="mean new reward")
    if dataset.labels is not None:
        trajectories.legend(fontsize=6)
    for ax in figure.axes:
        ax.title.set_fontsize(9)
        ax.spines[["top", "right"]].set_visible(False)
    return figure
