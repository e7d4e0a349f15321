"""Cells of rewards that an expert gives: what the rewards are like, and what learners make of them."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from trajclust_experiments.catalogue import CATALOGUE, LearnerEntry
from trajclust_experiments.cells.cell import Cell, Job, changed
from trajclust_experiments.cells.evaluation import action_bounds, evaluator, summarise
from trajclust_experiments.cells.learners import LearnerCell, of_policies
from trajclust_jax.data import REGISTRY, Dataset, Trajectories, make, returns, subset, transitions
from trajclust_jax.data.preparation import best_share
from trajclust_jax.learners import Clustered
from trajclust_jax.metrics import auc, rank_correlation
from trajclust_jax.relabelling import (
    CLUE,
    ExpertData,
    Relabelled,
    Relabeller,
    TrainedRelabeller,
    of_best,
    of_demonstrations,
    of_successes,
    rewarded_copies,
    with_rewards,
)
from trajclust_jax.relabelling.clue import TEMPERATURES, trajectory_means
from trajclust_jax.relabelling.experts import joined

DEMONSTRATION_SEED = 2**31  # of the data that demonstrations are taken from: no dataset of a table has it
SHOWN_OF = 4  # episodes that are rolled out for each demonstration: who shows how does not show a fall
SHOWN = 1_500  # steps that a record keeps, for pictures


def demonstrations(name: str, count: int) -> Trajectories:
    """Episodes of the expert policy of a made dataset's task, which the dataset does not hold: of `SHOWN_OF` times as
    many those with the highest returns."""
    task = name.partition("-")[0]
    whole = make(f"{task}-medium-expert", SHOWN_OF * count, DEMONSTRATION_SEED)
    expert = np.flatnonzero(whole.labels == whole.spec.policy_names.index("expert"))
    best = best_share(expert, returns(whole.trajectories), 1 / SHOWN_OF)
    return subset(whole, best, {}).trajectories


def expert_data(dataset: Dataset, name: str, expert: str) -> ExpertData:
    """The data with their expert: `demonstrations:K` of MuJoCo's expert policy, `best:K`, `success:K` or `success`."""
    kind, _, count = expert.partition(":")
    if kind == "demonstrations":
        return of_demonstrations(dataset.trajectories, demonstrations(name, int(count)))
    if kind == "best":
        return of_best(dataset.trajectories, int(count))
    return of_successes(dataset.trajectories, int(count) if count else None)


@dataclasses.dataclass(frozen=True)
class _Relabelling(Cell):
    """What both kinds of cell say of a relabeller, whose name they have as `relabeller`."""

    relabeller_settings: tuple[tuple[str, Any], ...] = ()
    expert: str = "demonstrations:1"

    def build_relabeller(self) -> Relabeller:
        return CATALOGUE[self.relabeller].build(**dict(self.relabeller_settings))

    def relabelling(self) -> dict[str, Any]:
        """What of it a record's id rests on."""
        relabeller = self.build_relabeller()
        return {
            "relabeller": self.relabeller,
            "relabeller_version": relabeller.VERSION,
            "relabeller_settings": changed(dataclasses.asdict(relabeller), type(relabeller)),
            "expert": self.expert,
        }

    def relabelled(self, data: ExpertData, job: Job) -> Relabelled:
        """Of every seed."""
        relabeller = self.build_relabeller()
        if not isinstance(relabeller, TrainedRelabeller):
            return relabeller.relabel(data, self.seeds)
        with job.fitted(self, relabeller, data, folder="relabeller") as (outcome, _):
            model = jax.device_get(outcome.result)
        return Relabelled(relabeller.rewards(model, data), model, outcome)


@dataclasses.dataclass(frozen=True)
class RewardCell(_Relabelling):
    """A relabeller's rewards, judged by labels and by the data's own rewards; `method` is the relabeller's name."""

    @property
    def relabeller(self) -> str:
        return self.method

    @property
    def title(self) -> str:
        settings = "".join(f" {name}={value}" for name, value in self.relabeller_settings)
        return f"rewards of {self.dataset} {self.method}{settings}"

    def build(self) -> Relabeller:
        """The relabeller."""
        return self.build_relabeller()

    def essential(self) -> dict[str, Any]:
        return {**self.place(), "kind": "rewards", **self.relabelling()}

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        data = expert_data(dataset, self.dataset, self.expert)
        began = time.perf_counter()
        found = self.relabelled(data, job)
        seconds = time.perf_counter() - began
        rewards = found.rewards[:, 0, : data.num_steps]
        body = {
            "scores": judged(dataset, rewards),
            "temperatures": {},
            "steps": _steps(dataset, rewards[0]),
            "timing": _timing(found, seconds),
        }
        relabeller = self.build_relabeller()
        if isinstance(relabeller, CLUE) and not relabeller.expected:  # whose latents are the same
            means = dataclasses.replace(relabeller, sampled=False).rewards(found.model, data)[:, 0]
            body["means"] = judged(dataset, means)
            body["temperatures"] = _by_temperature(dataset, relabeller, found, data)
            body["latents"] = _latents(dataset, relabeller, found, data)
        if found.outcome is not None:
            body["history"] = found.outcome.history
        return body


@dataclasses.dataclass(frozen=True)
class RelabelledCell(LearnerCell, _Relabelling):
    """A learner, by its name in the catalogue, on rewards that an expert gives; each seed by its own relabelling.

    Without a relabeller it learns from the expert's trajectories alone; without an expert, from the data as they are.
    """

    relabeller: str | None = "clue"

    @property
    def title(self) -> str:
        settings = "".join(f" {name}={value}" for name, value in self.relabeller_settings)
        by = f" by {self.relabeller or 'the expert alone'}{settings} {self.expert}" if self.expert else ""
        return super().title + by

    def suited(self, entry: LearnerEntry) -> dict[str, Any]:
        found = super().suited(entry)
        if self.relabeller is not None and self.build_relabeller().returns_range is not None:
            found.pop("reward_range", None)  # that of the relabeller holds, for each seed's rewards by themselves
        return found

    def relabelling(self) -> dict[str, Any]:
        return {"relabeller": None, "expert": self.expert} if self.relabeller is None else super().relabelling()

    def essential(self) -> dict[str, Any]:
        return {**super().essential(), **self.relabelling()}

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        environment = REGISTRY[self.dataset].environment
        offline = self.build(dataset.trajectories.action_size)
        offline = dataclasses.replace(offline, bounds=action_bounds(dataset, environment))
        body: dict[str, Any] = {"policies": of_policies(dataset, environment), "config": dataclasses.asdict(offline)}
        learned, cell, relabelling_seconds = self._data(dataset, job, body)
        evaluate = evaluator(offline, environment, self.episodes, self.evaluate_every)
        with job.fitted(cell, offline, learned, folder="learner", evaluate=evaluate) as (outcome, tracker):
            if cell is not self:  # the learners' axis is that of the seeds
                whole = jax.tree.map(lambda x: x[0], outcome.result)
                outcome = dataclasses.replace(outcome, result=whole, seeds=self.seeds)
            body |= summarise(offline, outcome, environment)
            body["scores"] = {name: np.ravel(values).tolist() for name, values in body["scores"].items()}
            for index, seed in enumerate(cell.seeds):
                tracker.summary(seed, {f"final/{name}": values[index] for name, values in body["scores"].items()})
        body["timing"]["relabelling_seconds"] = relabelling_seconds
        return {**body, "history": outcome.history}

    def _data(self, dataset: Dataset, job: Job, body: dict[str, Any]) -> tuple[Any, Cell, float]:
        """What is learned from, the cell whose seeds `fit` trains, and the relabelling's seconds."""
        if not self.expert:
            return dataset.trajectories, self, 0.0
        data = expert_data(dataset, self.dataset, self.expert)
        if self.relabeller is None:
            rows = np.unique(data.flat.trajectory[data.experts[0]])
            return jax.tree.map(lambda x: np.asarray(x)[rows], joined(data.pooled)), self, 0.0  # joined: no codebook
        began = time.perf_counter()
        found, relabeller = self.relabelled(data, job), self.build_relabeller()
        body["relabelling"] = judged(dataset, found.rewards[:, 0, : data.num_steps])
        seconds = time.perf_counter() - began
        if found.model is None:  # the same for all seeds
            trajectories = with_rewards(relabeller.rewarded(data), found.rewards[0, 0], relabeller.returns_range)
            return trajectories, self, seconds
        copies, whose = rewarded_copies(relabeller, data, found.rewards[:, 0])
        learned = Clustered(copies, whose, len(self.seeds))
        return learned, dataclasses.replace(self, seeds=self.seeds[:1]), seconds


def judged(dataset: Dataset, rewards: np.ndarray) -> dict[str, list[float | None]]:
    """Of each seed's rewards `[S, P]`: how well they tell the last label's policy, or who succeeded; what they are.

    `auc`: a step of it above another's. `trajectory_auc`: by mean rewards of trajectories. `rank_correlation`,
    `step_correlation` (Pearson's) and `step_rank_correlation`: with true returns and rewards.
    """
    flat, lengths = transitions(dataset.trajectories), np.asarray(dataset.trajectories.lengths)
    true = returns(dataset.trajectories)
    own = dataset.labels == dataset.labels.max()
    if len(np.unique(flat.rewards)) == 2:  # sparse
        own = np.bincount(flat.trajectory, flat.rewards == flat.rewards.max()) > 0
    measured = []
    for row in rewards:
        means = trajectory_means(row, flat.trajectory)
        measured.append(
            {
                "auc": auc(row, own[flat.trajectory]),
                "trajectory_auc": auc(means, own),
                "rank_correlation": rank_correlation(means * lengths, true),
                "mean_rank_correlation": rank_correlation(means, true),
                "step_correlation": _correlation(row, flat.rewards),
                "step_rank_correlation": rank_correlation(row, flat.rewards),
                "mean": float(row.mean(dtype=np.float64)),
                "std": float(row.std(dtype=np.float64)),
                "spread": float(means.std()),
            }
        )
    return {name: [each[name] if np.isfinite(each[name]) else None for each in measured] for name in measured[0]}


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(one.astype(np.float64), other.astype(np.float64))[0, 1])


def _by_temperature(dataset: Dataset, relabeller: CLUE, found: Relabelled, data: ExpertData) -> dict[str, Any]:
    """For each c of `TEMPERATURES` what `judged` says: distances are computed once."""
    distances = relabeller.scores(found.model, data)[:, 0]
    return {f"{c:g}": judged(dataset, np.exp(-np.float32(c) * distances)) for c in TEMPERATURES}


def _some_of_each(group: np.ndarray) -> np.ndarray:
    """Rows of `group [n]` int, as many of each number from 0 on, at most `SHOWN`; -1 is none."""
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(group == k) for k in range(group.max() + 1)]
    return np.concatenate([rng.permutation(each)[: SHOWN // len(rows)] for each in rows])


def _steps(dataset: Dataset, rewards: np.ndarray) -> dict[str, Any]:
    """Some steps of each label: their true rewards and the new ones, of `[P]`."""
    flat = transitions(dataset.trajectories)
    group = dataset.labels[flat.trajectory]
    rows = _some_of_each(group)
    names = list(dataset.spec.policy_names) or [f"label {k}" for k in range(group.max() + 1)]
    rounded = lambda x: [float(f"{each:.4g}") for each in x[rows]]
    return {
        "true": rounded(flat.rewards),
        "new": rounded(rewards),
        "groups": group[rows].tolist(),
        "names": names,
    }


def _latents(dataset: Dataset, relabeller: CLUE, found: Relabelled, data: ExpertData) -> dict[str, Any]:
    """Two principal axes of the first seed's latent means: some steps of each label and of the expert."""
    one = jax.tree.map(lambda x: x[0], found.model)
    steps = relabeller.prepare(data, 1)
    group = np.full(len(steps.actions), -1)
    group[: data.num_steps] = dataset.labels[transitions(dataset.trajectories).trajectory]
    group[data.experts[0]] = int(dataset.labels.max()) + 1
    rows = _some_of_each(group)
    params = jax.tree.map(lambda x: x[0], one.params)
    network = relabeller.network(steps.actions.shape[-1])
    mean, _ = network.apply(params, steps.observations[rows], steps.actions[rows], method="encode")
    mean = np.asarray(mean, np.float64)
    _, _, axes = np.linalg.svd(mean - mean.mean(0), full_matrices=False)
    place = lambda points: np.round(points @ axes[:2].T, 3).tolist()
    names = [*dataset.spec.policy_names, "expert's trajectory"]
    return {
        "points": place(mean),
        "centre": place(np.asarray(one.centre)[0]),
        "groups": group[rows].tolist(),
        "names": names,
    }


def _timing(found: Relabelled, seconds: float) -> dict[str, Any]:
    if found.outcome is None:
        return found.timing | {"run_seconds": seconds}
    training = found.outcome.run_seconds + found.outcome.compile_seconds
    return found.timing | {"rewards_seconds": max(0.0, seconds - training)}
