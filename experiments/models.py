"""What commands leave in folders, read back in Python."""

import dataclasses
import json
import logging
import math
import os
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from trajclust_experiments.catalogue import CATALOGUE, learner_entry, revisions
from trajclust_jax.checkpoint import CheckpointError, load_tree, save_tree
from trajclust_jax.clustering import Clusterer, Clustering
from trajclust_jax.clustering.images import ImageInputs
from trajclust_jax.clustering.preprocessing import Preprocessing
from trajclust_jax.data import Codebook, DataError, Observations, Trajectories, other_units
from trajclust_jax.data.spaces import renumbered
from trajclust_jax.data.transforms import ActionScaling, Inputs, action_scaling, input_transform
from trajclust_jax.evaluation import act
from trajclust_jax.learners import Learner, Offline, Scaling, TrainedPolicy
from trajclust_jax.records import tuples
from trajclust_jax.relabelling import Model, TrainedRelabeller

WORSE, SHARE = 0.5, 0.25  # nats a step and action dimension below the reference; of how many trajectories
log = logging.getLogger(__name__)
# What may be wrong with a folder that another program, or another version, wrote.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, CheckpointError)


@dataclasses.dataclass(frozen=True)
class ClusteringModel:
    """A trained clustering, which `assign`s trajectories that it was not trained on."""

    method: Clusterer
    model: Any  # what `method.assign` wants
    preprocessing: Preprocessing
    observation_shape: tuple[int, ...]
    action_size: int
    discrete: bool
    action_parts: tuple[tuple[int, ...], ...] = ()
    id: str = ""  # of the clustering that it was saved with
    name: str = ""  # of the method
    # what columns of the data trained on were read less (`data.offsets_of`); `data.rebased` gives others the same
    offsets: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    classifier: Any = None  # parameters of q(cluster | observation), where the method trains one

    @classmethod
    def of(cls, method: Clusterer, clustering: Clustering, trajectories: Trajectories) -> Self:
        """The model of one seed's clustering of these trajectories."""
        return cls(
            method,
            method.model(clustering),
            method.preprocessing(trajectories),
            tuple(trajectories.observation_shape),
            trajectories.action_size,
            trajectories.discrete,
            trajectories.action_parts,
            classifier=clustering.classifier,
        )

    def classify(self, observations: Observations) -> np.ndarray:
        """q(z | s) of EMPO's clustering: whose trajectories, of all that have been at an observation, are a cluster's.

        A cluster whose share is small has hardly been there: what is known of its policy, and of what that earns, is of
        other places. Where no trajectory has been, shares say nothing.

        Args:
            observations: `[..., *D]` in the data's unit, D the shape of the data's observations, or flat `[..., D]`; or
                a codebook, such as `Trajectories` may have.

        Returns:
            `[..., K]` float32; K shares that sum to 1.

        Raises:
            DataError: for a model of a method that trains no such classifier, or one saved before it was kept, and for
                observations of another shape, or other values than 0 and 1 where the model knows no others.
        """
        name = self.name or type(self.method).__name__
        if self.classifier is None:
            raise DataError(f"{name}: no classifier of observations is in this model; cluster with --method empo")
        if isinstance(observations, Codebook):
            return self.classify(observations.table)[np.asarray(observations.ids)]
        given = np.asarray(observations)
        lead = leading_axes(given.shape, self.observation_shape)
        if lead is None:
            one = ", ".join(map(str, self.observation_shape))
            raise DataError(f"observations are {list(given.shape)}: give [..., {one}], as the model was trained on")
        self._check_binary(given)
        inputs = self.preprocessing.inputs(given.reshape(-1, *self.observation_shape))
        shares = self.method.classify(self.classifier, jnp.asarray(inputs, jnp.float32))
        return np.asarray(shares).reshape(*lead, -1)

    def assign(self, trajectories: Trajectories) -> Clustering:
        """Assignments, posterior and log-likelihoods of new trajectories, as `fit` gives them of those trained on.

        Raises:
            DataError: for trajectories with other observations or actions than it was trained on, and for a method
                that does not assign new ones.
        """
        if type(self.method).assign is Clusterer.assign:
            raise DataError(f"{self.name or type(self.method).__name__} does not assign trajectories that are new")
        given = self._as_trained(trajectories)
        try:
            data = self.method.prepare(given, 1, self.preprocessing)
        except ValueError as error:
            raise DataError(str(error)) from None
        return jax.tree.map(np.asarray, jax.jit(self.method.assign)(self.model, data))

    def doubts(self, trajectories: Trajectories, clustering: Clustering | None = None) -> list[str]:
        """Lines for columns of observations and actions that are far from those trained on, or were constant there;
        and, with their `clustering`, for actions that are less likely under every policy than whatever the
        observation: under a Gaussian with the mean and std trained on, or one chance for each discrete action."""
        inputs, actions = self.preprocessing.inputs, self.preprocessing.actions
        lines = []
        if isinstance(inputs, Inputs):
            new = input_transform(trajectories)
            _, there, here = np.intersect1d(new.columns, inputs.columns, return_indices=True)
            lines += _unseen("observations", "zero", len(new.columns) - len(there))
            if np.isfinite(inputs.clip):
                old = inputs.shift[here], inputs.scale[here]
                lines += _far("observations", new.shift[there], new.scale[there], *old)
        if actions is not None:
            new = action_scaling(trajectories)
            columns, there, here = np.intersect1d(new.columns, actions.columns, return_indices=True)
            lines += _unseen("actions", "constant", len(new.columns) - len(there))
            lines += _far("actions", new.shift[columns], new.scale[there], actions.shift[columns], actions.scale[here])
        if clustering is not None and clustering.log_likelihoods is not None:
            lines += self._unlikely(trajectories, np.asarray(clustering.log_likelihoods, np.float64).max(1))
        return lines

    def _unlikely(self, trajectories: Trajectories, found: np.ndarray) -> list[str]:
        """`found [N]` are log-likelihoods under the policy that explains a trajectory best."""
        actions, lengths = self.preprocessing.actions, np.asarray(trajectories.lengths)
        reference, size = np.full(len(lengths), -np.log(self.action_size)), 1
        if actions is not None:
            scaled = actions(np.where(np.asarray(trajectories.mask)[..., None], trajectories.actions, actions.shift))
            size = scaled.shape[-1]
            least = 0.5 * size * np.log(2 * np.pi) + float(actions.log_volume)
            reference = -0.5 * (scaled.astype(np.float64) ** 2).sum((1, 2)) / lengths - least
        elif not self.discrete:
            return []
        unlikely = ~(found / lengths >= reference - WORSE * size)
        if unlikely.mean() <= SHARE:
            return []
        return [
            f"actions of {unlikely.sum()} of {len(found)} trajectories are less likely under every cluster's policy "
            f"({found[unlikely].sum() / lengths[unlikely].sum():.3g} nats a step) than without looking at observations "
            f"({(reference * lengths)[unlikely].sum() / lengths[unlikely].sum():.3g}): are they in the same unit and "
            "order, of the same policies, and were there enough trajectories to train on?"
        ]

    def save(self, folder: Path) -> None:
        """Writes parameters and preprocessing to a folder; `load_clustering` reads the rest from summary.json."""
        fitted = {field.name: getattr(self.preprocessing, field.name) for field in dataclasses.fields(Preprocessing)}
        fitted = {name: value for name, value in fitted.items() if value is not None}
        found = {} if self.classifier is None else {"classifier": self.classifier}
        save_tree(folder, {"model": self.model, "preprocessing": fitted, **found})

    def described(self) -> dict[str, Any]:
        """What data it takes, as JSON."""
        names = ("observation_shape", "action_size", "discrete", "action_parts")
        return {name: getattr(self, name) for name in names}

    def _as_trained(self, trajectories: Trajectories) -> Trajectories:
        shape = tuple(trajectories.observation_shape)
        if shape != self.observation_shape:
            raise DataError(f"observations are {list(shape)}: the model was trained on {list(self.observation_shape)}")
        if trajectories.discrete != self.discrete:
            kinds = ["continuous", "discrete"]
            raise DataError(
                f"actions are {kinds[trajectories.discrete]}: the model was trained on {kinds[self.discrete]} ones"
            )
        self._check_binary(trajectories.observations, np.asarray(trajectories.mask))
        if not self.discrete:
            if trajectories.action_size != self.action_size:
                raise DataError(
                    f"actions have {trajectories.action_size} numbers: the model was trained on {self.action_size}"
                )
            return trajectories
        others = "the model, whose policies have no probability for it"
        return renumbered(trajectories, self.action_size, self.action_parts, others)

    def _check_binary(self, observations: Observations, mask: Any = ...) -> None:
        """`mask` tells which are real."""
        inputs = self.preprocessing.inputs
        if isinstance(inputs, Inputs) and np.isinf(inputs.clip):
            coded = isinstance(observations, Codebook)
            shown = np.asarray(observations.table) if coded else np.asarray(observations)[mask]
            if not np.isin(shown, (0, 1)).all():
                raise DataError("observations have other values than 0 and 1, which alone the model was trained on")


def _unseen(what: str, value: str, count: int) -> list[str]:
    if not count:
        return []
    return [f"{count} columns of {what} were {value} in the data trained on: the model does not look at them"]


def _far(what: str, mean: np.ndarray, std: np.ndarray, old_mean: np.ndarray, old_std: np.ndarray) -> list[str]:
    far = other_units(mean, std, old_mean, old_std)
    if not far.any():
        return []
    return [
        f"{int(far.sum())} of {len(far)} columns of {what} are far from those that the model was trained on: are they "
        "in the same unit?"
    ]


def load_clustering(folder: str | os.PathLike) -> ClusteringModel:
    """The model that `trajclust cluster` left in a folder.

    Raises:
        DataError: for a folder without one, or with that of another version of the method.
    """
    folder = Path(folder)
    try:
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        algorithm, takes = CATALOGUE[summary["method"]].algorithm, summary["takes"]
        method = algorithm(**{name: tuples(value) for name, value in summary["hyperparameters"].items()})
        version, tree = summary["version"], load_tree(folder / "model")
        fitted = _preprocessing(tree["preprocessing"])
        described = {name: tuples(value) for name, value in takes.items()}
        saved = {"id": summary["id"], "name": summary["method"], "classifier": tree.get("classifier")}
        saved["offsets"] = summary.get("offsets", {})
        model = ClusteringModel(method, tree["model"], fitted, **described, **saved)
    except _UNREADABLE as error:
        raise DataError(f"{folder}: no model of trajclust cluster there ({type(error).__name__}: {error})") from None
    if version != [method.VERSION, method.ACTIONS_VERSION]:
        raise DataError(f"{folder}: a model of another version of {summary['method']}: cluster again")
    return model


def _preprocessing(tree: dict[str, Any]) -> Preprocessing:
    made = dict(tree)
    if "inputs" in made:
        made["inputs"] = (ImageInputs if "params" in made["inputs"] else Inputs)(**made["inputs"])
    if "actions" in made:
        made["actions"] = ActionScaling(**made["actions"])
    if "agent" in made:
        made["agent"] = int(made["agent"])
    return Preprocessing(**made)


def leading_axes(shape: tuple[int, ...], observation_shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes before those of an observation, which may be flat; None where the last ones are not an observation's."""
    for last in ((math.prod(observation_shape),), observation_shape):
        if len(shape) >= len(last) and shape[len(shape) - len(last) :] == last:
            return shape[: len(shape) - len(last)]
    return None


@dataclasses.dataclass(frozen=True)
class Policies:
    """The policies of a training, one a seed (and cluster), which `predict` actions without their noise."""

    learner: Learner
    policy: TrainedPolicy  # leaves [S, ...], or [S, K, ...]
    seeds: tuple[int, ...]
    clusters: tuple[int, ...] | None  # numbers of those learned from; None: one policy a seed
    observation_shape: tuple[int, ...]
    offsets: dict[int, float] = dataclasses.field(default_factory=dict)  # subtracted from columns of observations
    action_parts: tuple[tuple[int, ...], ...] = ()  # of actions that are combinations, see `Trajectories`

    def predict(self, observations: Any, seed: int = 0, cluster: int | None = None) -> np.ndarray:
        """Actions in the environment's unit, float32; discrete ones are numbers, int32, combinations their F parts.

        Args:
            observations: one `[*D]`, several `[n, *D]`, for the policy of `seed`; or `[S, n, *D]` for the policies of
                all seeds, each its own. D is the shape of the data's observations, or flat.
            seed: one that was trained.
            cluster: of a training on several clusters, which one's policy.

        Returns:
            `[A]`, `[n, A]` or `[S, n, A]`; of discrete actions without A, of combinations with F in its place.

        Raises:
            ValueError: for other shapes, numbers that are not finite, a seed or a cluster that was not trained.
        """
        given = np.asarray(observations)
        lead = leading_axes(given.shape, self.observation_shape)
        if lead is None or len(lead) > 2 or (len(lead) == 2 and lead[0] != len(self.seeds)):
            one = ", ".join(map(str, self.observation_shape))
            raise ValueError(
                f"observations are {list(given.shape)}: give one, [{one}], several, [n, {one}], or some for each seed, "
                f"[{len(self.seeds)}, n, {one}]"
            )
        policy = self._of_cluster(cluster)
        if len(lead) < 2:
            if seed not in self.seeds:
                raise ValueError(f"seed {seed} was not trained: there are {', '.join(map(str, self.seeds))}")
            policy = jax.tree.map(lambda x: x[self.seeds.index(seed)][None], policy)
        rows = given.reshape(lead[0] if len(lead) == 2 else 1, -1, math.prod(self.observation_shape))
        if self.offsets:
            rows = rows.astype(np.float64)
            rows[..., list(self.offsets)] -= list(self.offsets.values())
        rows = rows.astype(np.float32)
        if not np.isfinite(rows).all():
            raise ValueError("observations have a NaN or an infinite number, which no policy has an action for")
        actions = np.asarray(act(self.learner, policy, rows))
        if self.action_parts:
            actions = np.array(self.action_parts, np.int32)[actions]
        return actions.reshape((*lead, *actions.shape[2:]))

    def _of_cluster(self, cluster: int | None) -> TrainedPolicy:
        if self.clusters is None:
            if cluster is not None:
                raise ValueError(f"cluster {cluster}: the policies are of no clusters")
            return self.policy
        if cluster is None and len(self.clusters) == 1:
            (cluster,) = self.clusters
        if cluster not in self.clusters:
            said = "cluster is not given" if cluster is None else f"cluster {cluster} was not learned from"
            raise ValueError(f"{said}: give one of {', '.join(map(str, self.clusters))}")
        return jax.tree.map(lambda x: x[:, self.clusters.index(cluster)], self.policy)


def load_policy(folder: str | os.PathLike) -> Policies:
    """The policies, of all seeds (and clusters), that `trajclust train` left in a folder.

    Warns of those of another version of the learner.

    Raises:
        DataError: for a folder without them.
    """
    try:
        summary = json.loads((Path(folder) / "summary.json").read_text())
        settings = {name: tuples(value) for name, value in summary["settings"]["learner"].items()}
        entry = learner_entry(summary["learner"], summary.get("plugin")).on(summary.get("discrete", False))
        saved = summary["version"], summary.get("revisions", [])
        if saved != ([Offline.VERSION, entry.algorithm.VERSION], revisions(summary.get("plugin"))):
            log.warning("%s: policies that another version of %s trained; train again if in doubt", folder, entry.title)
        learner, stored = entry.algorithm(**settings), load_tree(Path(folder) / "policy")
        policy = TrainedPolicy(stored["actor"], Scaling(**stored["scaling"]))
        shape = summary.get("observation_shape", policy.scaling.mean.shape[-1:])
        clusters = summary["clusters"] if summary["clusters"] is None else tuple(summary["clusters"])
        offsets = summary.get("offsets", {}).get("observation_offsets", {})
        offsets = {int(column): offset for column, offset in offsets.items()}
        parts = tuples(summary.get("action_parts", ()))
        return Policies(learner, policy, tuple(summary["seeds"]), clusters, tuple(shape), offsets, parts)
    except _UNREADABLE as error:
        raise DataError(f"{folder}: no result of trajclust train there ({error})") from None


def load_relabeller(folder: str | os.PathLike) -> tuple[TrainedRelabeller, Model]:
    """The relabeller and its model, of one seed and expert, that `trajclust relabel` left in a folder.

    `relabeller.rewards(model, data)` are its rewards `[1, 1, P]` of any data of the same environment, read less what
    its own were (`data.rebased` by the `offsets` in summary.json).

    Raises:
        DataError: for a folder without them.
    """
    try:
        summary = json.loads((Path(folder) / "summary.json").read_text())
        settings = {name: tuples(value) for name, value in summary["settings"].items()}
        settings |= {name: values[0] for name, values in summary.get("chosen", {}).items()}
        relabeller = CATALOGUE[summary["method"]].algorithm(**settings)
        model = Model(**load_tree(Path(folder) / "model"))
    except _UNREADABLE as error:
        raise DataError(f"{folder}: no model of trajclust relabel there ({error})") from None
    if summary["version"] != relabeller.VERSION:
        raise DataError(f"{folder}: a model of another version of {summary['method']}: relabel again")
    return relabeller, model
