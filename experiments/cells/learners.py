"""Cells that train or evaluate policies: a learner on a dataset, the policies of a clustering's centres."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from trajclust_experiments.catalogue import LearnerEntry, learner_entry, revisions
from trajclust_experiments.cells.cell import Cell, Job, changed, tracking
from trajclust_experiments.cells.evaluation import best_cluster, evaluator, normaliser, returns_of, summarise
from trajclust_experiments.cells.methods import MethodCell
from trajclust_jax.clustering import Clustering, PGKmeans
from trajclust_jax.data import REGISTRY, Dataset, reduced, returns
from trajclust_jax.data.transforms import ActionScaling
from trajclust_jax.learners import Clustered, Offline, Scaling, TrainedPolicy
from trajclust_jax.metrics import scores
from trajclust_jax.networks import PolicyNetwork
from trajclust_jax.training import Event

CLUSTER_SEED = 0  # of a clustering that learners learn from


@dataclasses.dataclass(frozen=True)
class LearnerCell(Cell):
    """A learner on a registered dataset, evaluated where the data is from; `method` is its name in the catalogue.

    `settings` override the entry's. With `clusters`, a clustering method (and all its `cluster_settings`), it learns
    from that of the k* clusters found whose trajectories have the highest mean return. With `plugin` it is changed by
    that; with `transitions` it learns from so many, whole trajectories `draw`n.
    """

    clusters: str | None = None
    cluster_settings: tuple[tuple[str, Any], ...] = ()
    episodes: int = 10
    evaluate_every: int = 10_000
    plugin: str | None = None
    transitions: int = 0  # 0: all of them
    draw: int = 0
    beside: "SweptCell | None" = dataclasses.field(default=None, compare=False, repr=False)
    """Trains this cell with others in one program; how a cell is trained is no part of what it is."""

    @property
    def title(self) -> str:
        plugged = f" + {self.plugin}" if self.plugin else ""
        reduced = f" of {self.transitions} transitions" if self.transitions else ""
        return super().title + plugged + reduced + (f" on {self.clusters}'s best cluster" if self.clusters else "")

    def of_seeds(self, seeds: tuple[int, ...]) -> Self:
        beside = None if self.beside is None else self.beside.of_seeds(seeds)
        return dataclasses.replace(self, seeds=seeds, beside=beside)

    def load(self) -> tuple[Dataset, float]:
        dataset, seconds = super().load()
        return (reduced(dataset, self.transitions, self.draw) if self.transitions else dataset), seconds

    def build(self, action_size: int = 1) -> Offline:
        entry = learner_entry(self.method, self.plugin).on(not REGISTRY[self.dataset].continuous)
        return entry.build(action_size, **{**self.suited(entry), **dict(self.settings)})

    def suited(self, entry: LearnerEntry) -> dict[str, Any]:
        """A learner's settings for the dataset, where the cell's own do not say otherwise."""
        return entry.suited(REGISTRY[self.dataset].environment)

    def hyperparameters(self) -> set[str]:
        return learner_entry(self.method, self.plugin).names()

    def clustering(self) -> MethodCell:
        """The cell whose clusters it learns from."""
        assert self.clusters is not None
        return MethodCell(
            self.dataset, self.size, self.clusters, (CLUSTER_SEED,), self.cluster_settings, self.data_seed
        )

    def needs(self) -> tuple[Cell, ...]:
        if self.beside is not None:
            return (self.beside,)
        return () if self.clusters is None else (self.clustering(),)

    def essential(self) -> dict[str, Any]:
        offline = self.build()
        chosen = changed(dataclasses.asdict(offline), Offline) | changed(
            dataclasses.asdict(offline.learner), type(offline.learner)
        )
        described = {
            **self.place(),
            **{name: getattr(self, name) for name in ("clusters", "episodes", "evaluate_every")},
            "version": [offline.VERSION, offline.learner.VERSION],
            "settings": {name: value for name, value in chosen.items() if name not in ("learner", "action_size")},
        }
        if self.plugin is not None:
            described["plugin"] = {"name": self.plugin, "revisions": revisions(self.plugin)}
        if self.transitions:
            described |= {"transitions": self.transitions, "draw": self.draw}
        if self.clusters is not None:
            found = self.clustering().essential()
            names = ("version", "actions_version", "hyperparameters")
            described["clustering"] = {name: found[name] for name in names if name in found}
            described["clustering"]["seed"] = CLUSTER_SEED
        return described

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        if self.beside is not None:
            return self._found(dataset, job)
        trajectories, environment = dataset.trajectories, REGISTRY[self.dataset].environment
        offline = self.build(trajectories.action_size)
        body: dict[str, Any] = {"policies": of_policies(dataset, environment), "config": dataclasses.asdict(offline)}
        data, found = trajectories, None
        if self.clusters is not None:
            found = job.needed[self.clustering()]
            assignments = found.arrays["assignments"][0]
            best = best_cluster(assignments, returns(trajectories))
            data = Clustered(trajectories, np.where(assignments == best, 0, -1), 1)
            body["clustering"] = scores(dataset.labels, assignments) | {"size": int((assignments == best).sum())}
        evaluate = evaluator(offline, environment, self.episodes, self.evaluate_every)
        with job.fitted(self, offline, data, folder="learner", evaluate=evaluate) as (outcome, tracker):
            body |= summarise(offline, outcome, environment)
            if found is not None:
                for part in ("run_seconds", "compile_seconds"):
                    body["timing"][part] += found.record["timing"][part]
            body["scores"] = {name: np.ravel(values).tolist() for name, values in body["scores"].items()}
            for index, seed in enumerate(self.seeds):
                tracker.summary(seed, {f"final/{name}": values[index] for name, values in body["scores"].items()})
        return {**body, "history": outcome.history}

    def _found(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        """This cell's part of the record of several, logged as if it had been trained alone."""
        record, index = job.needed[self.beside].record, self.beside.members().index(self)
        history = [_of_member(entry, index) for entry in record["history"]]
        config = dataclasses.asdict(self.build(dataset.trajectories.action_size))
        body = {"policies": record["policies"], "config": config, **record["swept"][index], "history": history}
        with job.tracker(self) as tracker:
            log = tracking(tracker, self.build(dataset.trajectories.action_size))
            for total, entry in enumerate(history):
                metrics = {n: np.asarray(v, float) for n, v in entry.items() if n not in ("phase", "iteration")}
                log(Event(entry["phase"], entry["iteration"], 0, total, metrics, np.zeros(len(self.seeds), bool)))
            for index, seed in enumerate(self.seeds):
                tracker.summary(seed, {f"final/{name}": values[index] for name, values in body["scores"].items()})
        return body


@dataclasses.dataclass(frozen=True)
class SweptCell(LearnerCell):
    """Learners that differ in numbers of their losses alone, side by side in one program; its record has all of theirs,
    scores named by value.

    `settings` are the common ones.
    """

    sweep: tuple[tuple[str, tuple[float, ...]], ...] = ()  # as `Offline` has it

    @property
    def title(self) -> str:
        names = ", ".join(name for name, _ in self.sweep)
        return f"{super().title}, {len(self.sweep[0][1])} values of {names}"

    def build(self, action_size: int = 1) -> Offline:
        return dataclasses.replace(super().build(action_size), sweep=self.sweep)

    def members(self) -> list[LearnerCell]:
        """The cells, in order."""
        values = zip(*(values for _, values in self.sweep), strict=True)
        names = [name for name, _ in self.sweep]
        common = {field.name: getattr(self, field.name) for field in dataclasses.fields(LearnerCell)}
        return [
            LearnerCell(**{**common, "settings": tuple(sorted({**dict(self.settings), **dict(pairs)}.items()))})
            for pairs in (zip(names, each, strict=True) for each in values)
        ]

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        trajectories, environment = dataset.trajectories, REGISTRY[self.dataset].environment
        offline, members = self.build(trajectories.action_size), self.members()
        evaluate = evaluator(offline, environment, self.episodes, self.evaluate_every)
        untracked = dataclasses.replace(job, track="off")  # the members are
        with untracked.fitted(self, offline, trajectories, folder="learner", evaluate=evaluate) as (outcome, _):
            policies = jax.device_get(outcome.result)
        found = []
        for index, member in enumerate(members):
            alone = dataclasses.replace(
                outcome,
                result=jax.tree.map(lambda x, index=index: x[:, index], policies),
                history=[_of_member(entry, index) for entry in outcome.history],
            )
            body = summarise(member.build(trajectories.action_size), alone, environment)
            body["timing"] |= {name: body["timing"][name] / len(members) for name in _SHARED_SECONDS}
            found.append({**body, "timing": {**body["timing"], "beside": len(members)}})  # that shared the seconds
        named = {
            f"{name} {' '.join(f'{value:g}' for value in values)}": of_seeds
            for values, body in zip(zip(*(values for _, values in self.sweep), strict=True), found, strict=True)
            for name, of_seeds in body["scores"].items()
        }
        return {
            "policies": of_policies(dataset, environment),
            "config": dataclasses.asdict(offline),
            "scores": named,
            "swept": found,
            "history": outcome.history,  # [S, V] each
            "arrays": {},
            "timing": outcome.timing,
        }


_SHARED_SECONDS = "run_seconds", "compile_seconds", "evaluate_seconds"


def _of_member(entry: dict[str, Any], index: int) -> dict[str, Any]:
    """An iteration of all members as one of a member's: `[S, V, ...]` as `[S, ...]`."""
    part = lambda values: [each[index] for each in values] if isinstance(values, list) else values
    return {name: part(values) for name, values in entry.items()}


def side_by_side(cells: Sequence[Cell], stored: Callable[[Cell], bool]) -> list[Cell]:
    """The cells, those of learners that one program can train told so: equal but for numbers of a learner's losses.

    Cells that are `stored` are left out of a program, unless it has run.
    """
    groups: dict[Any, list[LearnerCell]] = defaultdict(list)
    for cell in cells:
        if type(cell) is LearnerCell and cell.clusters is None:
            swept = [name for name, _ in cell.settings if _can_be_swept(cell, name)]
            common = tuple((name, value) for name, value in cell.settings if name not in swept)
            groups[dataclasses.replace(cell, settings=common), tuple(swept)].append(cell)
    told: dict[Cell, Cell] = {}
    for (common, names), members in groups.items():
        for some in (members, [cell for cell in members if not stored(cell)]):
            varying = [name for name in names if len({dict(cell.settings)[name] for cell in some}) > 1]
            if not varying:
                continue
            fixed = {name: dict(some[0].settings)[name] for name in names if name not in varying}
            values = tuple((name, tuple(dict(cell.settings)[name] for cell in some)) for name in varying)
            fields = {field.name: getattr(common, field.name) for field in dataclasses.fields(LearnerCell)}
            fields["settings"] = tuple(sorted({**dict(common.settings), **fixed}.items()))
            together = SweptCell(**fields, sweep=values)
            if some is not members or stored(together) or not any(map(stored, members)):
                told |= {cell: dataclasses.replace(cell, beside=together) for cell in some}
                break
    return [told.get(cell, cell) for cell in cells]


def _can_be_swept(cell: LearnerCell, name: str) -> bool:
    offline = cell.build()
    value = dict(cell.settings)[name]
    if not isinstance(value, float) or not hasattr(offline.learner, name):
        return False
    try:
        dataclasses.replace(offline, sweep=((name, (value,)),))
    except ValueError:
        return False
    return True


@dataclasses.dataclass(frozen=True)
class Centres:
    """Acts by the policies of PG-Kmeans' clusters, as they are, without another training."""

    columns: tuple[int, ...]  # of an observation: a network's inputs
    clip: float
    varying: tuple[int, ...]  # of an action: what a network models, and how: see `ActionScaling`
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        inputs = jnp.clip(observations[..., jnp.array(self.columns)], -self.clip, self.clip)
        policy = PolicyNetwork(len(self.varying), discrete=False).apply(actor, inputs)
        scaling = ActionScaling(*(np.array(field) for field in (self.varying, self.shift, self.scale)))
        return jnp.clip(scaling.undo(policy.distribution.loc), -1, 1)


@dataclasses.dataclass(frozen=True)
class CentreCell(MethodCell):
    """PG-Kmeans, and the returns of its centres' policies; `method` is of the kind `centres`."""

    episodes: int = 10

    def essential(self) -> dict[str, Any]:
        return {**super().essential(), "episodes": self.episodes}

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        return {**super().identity(dataset), "episodes": self.episodes}

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        trajectories, environment = dataset.trajectories, REGISTRY[self.dataset].environment
        episode_returns = returns(trajectories)
        with job.fitted(self, self.build(), trajectories) as (outcome, tracker):
            clustering = jax.device_get(outcome.result)
            policies, learner = centre_policies(self.build(), dataset, clustering)
            episodes = returns_of(learner, environment, policies, self.episodes, 0)
            means = episodes.mean(-1)  # [S, K]
            found = [np.asarray(each) for each in clustering.assignments]
            filled = np.stack([[(each == k).any() for k in range(means.shape[1])] for each in found])
            chosen = np.array([best_cluster(each, episode_returns) for each in found])
            results = {
                "best_return": np.where(filled, means, -np.inf).max(1),
                "chosen_return": means[np.arange(len(means)), chosen],
            }
            results |= {f"{name[:-7]}_score": normaliser(environment)(values) for name, values in results.items()}
            results["nmi"] = np.array([scores(dataset.labels, each)["nmi"] for each in found])
            final = {name: values.tolist() for name, values in results.items()}
            for index, seed in enumerate(self.seeds):
                tracker.summary(seed, {f"final/{name}": values[index] for name, values in final.items()})
        return {
            "scores": final,
            "policies": of_policies(dataset, environment),
            "centre_scores": normaliser(environment)(means).tolist(),
            "centre_returns": episodes.tolist(),  # [S, K, E]
            "cluster_returns": [
                episode_returns[found[0] == k].tolist() for k in range(means.shape[1])
            ],  # of the first seed
            "timing": outcome.timing,
        }


def of_policies(dataset: Dataset, environment: str) -> dict[str, float]:
    """What each true policy's trajectories are worth: the mean normalised score or, where there is none, return."""
    normalised = normaliser(environment) or np.asarray
    found = normalised(returns(dataset.trajectories))
    return {name: float(found[dataset.labels == label].mean()) for label, name in enumerate(dataset.spec.policy_names)}


def centre_policies(method: PGKmeans, dataset: Dataset, clustering: Clustering) -> tuple[TrainedPolicy, Centres]:
    """The centres' networks `[S, K]` with the inputs they were trained on."""
    trajectories = dataset.trajectories
    fitted, size = method.preprocessing(trajectories), int(np.prod(trajectories.observation_shape))
    inputs, actions = fitted.inputs, fitted.actions
    mean, std = np.zeros(size, np.float32), np.ones(size, np.float32)
    mean[inputs.columns], std[inputs.columns] = inputs.shift, inputs.scale
    axes = jax.tree.leaves(clustering.params)[0].shape[:2]
    every = lambda x: jnp.broadcast_to(x, (*axes, *x.shape))
    scaling = Scaling(every(mean), every(std), every(np.ones(trajectories.action_size, np.float32)))
    learner = Centres(
        columns=tuple(inputs.columns.tolist()),
        clip=float(inputs.clip),
        varying=tuple(actions.columns.tolist()),
        shift=tuple(actions.shift.tolist()),
        scale=tuple(actions.scale.tolist()),
    )
    return TrainedPolicy(clustering.params, scaling), learner
