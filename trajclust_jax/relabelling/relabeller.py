"""What gives rewards to trajectories that have none: a protocol, and the training that CLUE and ORIL share.

A relabeller is a frozen dataclass of settings; `relabel` gives it `ExpertData` and returns rewards of S seeds and E
experts. One that is trained is a method for `training.fit`: all seeds and experts in one program.
"""

import abc
import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from trajclust_jax.data.dataset import build_dataset, transitions
from trajclust_jax.data.preparation import ScaleReturns, action_bound, normalisation
from trajclust_jax.data.types import DataError, Dataset, Trajectories, dense
from trajclust_jax.documented import documented
from trajclust_jax.metrics import auc
from trajclust_jax.networks import member_keys
from trajclust_jax.relabelling.experts import ExpertData, joined
from trajclust_jax.training import Fit, Info, Phase, fit
from trajclust_jax.validation import check_above, check_at_least

CHUNK = 16_384  # steps whose rewards are computed at a time
_BATCHES = 0x62617463  # keeps the keys of minibatches apart from those of losses
_NOISE = 0x6E6F6973  # and from those that rewards are drawn with
_PARAMETERS = _NOISE + 1  # and from those that networks begin with


class Relabelled(NamedTuple):
    """New rewards, by seed and expert."""

    rewards: np.ndarray  # [S, E, P] float32, of the steps of `rewarded`
    model: Any = None  # what was trained, leaves [S, E, ...]; None where nothing is
    outcome: Fit | None = None  # its training

    @property
    def timing(self) -> dict[str, Any]:
        """What a record says of the training; of none where nothing is trained."""
        if self.outcome is None:
            return {"run_seconds": 0.0, "compile_seconds": 0.0, "resumed": False}
        return self.outcome.timing


@dataclasses.dataclass(frozen=True)
class Relabeller(abc.ABC):
    """Settings of every relabeller."""

    returns_range: float | None = 1000.0
    """Rewards are then scaled so that the best return of all trajectories exceeds the worst by so much (CLUE, appendix
    8.2; IQL's code); None: they stay as they are."""

    VERSION: ClassVar[int] = 1  # raise it when results change
    NEEDS_EXPERT: ClassVar[bool] = True
    WITH_DEMONSTRATIONS: ClassVar[bool] = False  # demonstrations get rewards, too, and are learned from
    normalise: ClassVar[bool | None] = None  # whether observations get mean 0 and std 1; None: they do not enter

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        documented(cls)

    def __post_init__(self) -> None:
        if self.returns_range is not None:
            check_above(self, 0, "returns_range")

    def check(self, data: ExpertData) -> None:
        """Raises DataError for data or experts that it has no answer for."""
        if self.NEEDS_EXPERT:
            data.check()

    def rewarded(self, data: ExpertData) -> Trajectories:
        """The trajectories that get rewards."""
        return data.pooled if self.WITH_DEMONSTRATIONS else data.trajectories

    @abc.abstractmethod
    def relabel(self, data: ExpertData, seeds: tuple[int, ...], **options: Any) -> Relabelled:
        """Rewards of the steps of `rewarded`; `options` are those of `fit` for what is trained."""

    def chosen(self, found: Relabelled, data: ExpertData) -> dict[str, list[Any]]:
        """Settings that were left to the data: of the first seed, by expert."""
        del found, data
        return {}


@struct.dataclass
class Steps:
    """All steps on the device, standardised, and the experts' rows."""

    observations: jax.Array  # [P + Q, D]
    actions: jax.Array  # [P + Q, A] in [-1, 1]
    rows: jax.Array  # [R] int32: the experts' steps, expert by expert
    first: jax.Array  # [E] int32: where an expert's rows begin
    count: jax.Array  # [E] int32
    mean: jax.Array  # [D], of the observations before
    std: jax.Array  # [D]
    bound: jax.Array  # [A], of the actions before


@struct.dataclass
class State:
    """State of one run."""

    params: Any  # leaves [E, ...]
    optimizer: Any
    keys: jax.Array  # [E]
    converged: jax.Array  # [] bool, False: the budget alone ends it


@struct.dataclass
class Model:
    """A trained relabeller's, with what its inputs are scaled by."""

    params: Any  # leaves [E, ...]
    centre: jax.Array  # [E, Z]: z_e; of a relabeller without latents [E, 0]
    seed: jax.Array  # [E] uint32, of what is drawn when rewards are computed
    mean: jax.Array  # [D]
    std: jax.Array  # [D]
    bound: jax.Array  # [A]


@dataclasses.dataclass(frozen=True)
class TrainedRelabeller(Relabeller):
    """Settings of a relabeller that is trained on minibatches of all steps beside minibatches of the expert's."""

    normalise: ClassVar[bool | None] = True

    updates: int = 10_000
    """Gradient steps."""
    block: int = 1_000
    """Gradient steps a step of `fit`; they divide the updates."""
    batch_size: int = 128
    """Of either minibatch."""
    learning_rate: float = 1e-4
    """Adam's."""
    features: tuple[int, ...] = (128, 128)
    """Hidden layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above(self, 0, "learning_rate")
        check_at_least(self, 1, "updates", "block", "batch_size")
        if self.updates % self.block:
            raise ValueError(f"block is {self.block}: it must divide {self.updates} updates")

    @abc.abstractmethod
    def init(self, key: jax.Array, steps: Steps) -> Any:
        """The parameters of one expert's networks; the key is consumed."""

    @abc.abstractmethod
    def loss(self, params: Any, batch: Any, expert: Any, key: jax.Array) -> tuple[jax.Array, Info]:
        """Of one expert's networks, on `(observations [B, D], actions [B, A])` of all and of the expert's steps."""

    def centre(self, params: Any, steps: Steps, first: jax.Array, count: jax.Array) -> jax.Array:
        """`[Z]`: what a model keeps of the expert's steps; by default nothing."""
        del params, steps, first, count
        return jnp.zeros(0)

    @abc.abstractmethod
    def score(
        self, params: Any, centre: jax.Array, observations: jax.Array, actions: jax.Array, key: jax.Array
    ) -> jax.Array:
        """`[B]`, of steps: what `rewards_of` makes rewards of; the key is consumed."""

    def rewards_of(self, scores: np.ndarray, trajectory: np.ndarray) -> np.ndarray:
        """`[E, P]` float32: rewards of `score`'s `[E, P]`, on the host; the trajectory of each step is `[P]` int."""
        del trajectory
        return scores

    # --- for `training.fit` ---------------------------------------------------------------------

    def prepare(self, data: ExpertData, num_seeds: int) -> Steps:
        """All steps on the host, standardised over data and demonstrations.

        Raises:
            DataError: what `check` says, and for discrete actions.
        """
        self.check(data)
        observations, actions = _inputs(data)
        mean, std = normalisation(observations)
        bound = action_bound(actions, data.flat.trajectory, ())
        scales = [np.asarray(each, np.float32) for each in (mean, std, bound)]
        count = np.array([len(steps) for steps in data.experts], np.int32)
        rows = np.concatenate(data.experts).astype(np.int32)
        return Steps(
            *_scaled(observations, actions, *scales), rows, (np.cumsum(count) - count).astype(np.int32), count, *scales
        )

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("relabeller", self.start, self.step, self.updates // self.block, light_start=True),)

    def start(self, key: jax.Array, data: Steps, previous: None) -> tuple[State, Info]:
        """One run; the key is consumed."""
        keys = member_keys(key, len(data.count))
        params = jax.vmap(lambda key: self.init(key, data))(jax.vmap(jax.random.fold_in, (0, None))(keys, _PARAMETERS))
        return State(params, jax.vmap(self._adam.init)(params), keys, jnp.array(False)), {}

    def step(self, state: State, data: Steps, iteration: jax.Array) -> tuple[State, Info]:
        """`block` gradient steps of every expert's networks; infos are means over them."""
        numbers = iteration * self.block + jnp.arange(self.block)
        taken = lambda rows: (data.observations[rows], data.actions[rows])

        def train(params, optimizer, key, first, count):
            def body(carry, number):
                params, optimizer = carry
                key_loss = jax.random.fold_in(key, number)
                keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, _BATCHES), number))
                rows = jax.random.randint(keys[0], (self.batch_size,), 0, len(data.actions))
                own = data.rows[first + jax.random.randint(keys[1], (self.batch_size,), 0, count)]
                gradient, info = jax.grad(self.loss, has_aux=True)(params, taken(rows), taken(own), key_loss)
                change, optimizer = self._adam.update(gradient, optimizer)
                return (optax.apply_updates(params, change), optimizer), info

            carry, infos = jax.lax.scan(body, (params, optimizer), numbers)
            return *carry, jax.tree.map(jnp.mean, infos)

        trained = jax.vmap(train)(state.params, state.optimizer, state.keys, data.first, data.count)
        params, optimizer, info = trained
        return state.replace(params=params, optimizer=optimizer), info

    def result(self, state: State, data: Steps) -> Model:
        """What rewards are computed with."""
        seed = jax.vmap(lambda key: jax.random.bits(jax.random.fold_in(key, _NOISE), (), jnp.uint32))(state.keys)
        each = lambda one: self.centre(one[0], data, *one[1:])
        centre = jax.lax.map(each, (state.params, data.first, data.count))  # experts in turn: each has its own number
        return Model(state.params, centre, seed, data.mean, data.std, data.bound)

    @property
    def _adam(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)

    # --- rewards --------------------------------------------------------------------------------

    def relabel(self, data: ExpertData, seeds: tuple[int, ...], **options: Any) -> Relabelled:
        """Trains all seeds and experts in one program, then computes the rewards of all steps."""
        outcome = fit(self, data, seeds, **options)
        model = jax.device_get(outcome.result)
        return Relabelled(self.rewards(model, data), model, outcome)

    def rewards(self, model: Model, data: ExpertData) -> np.ndarray:
        """`[S, E, P]` float32: a trained model's rewards, of data that may be new to it and need no expert."""
        trajectory = transitions(self.rewarded(data)).trajectory
        return np.stack([self.rewards_of(each, trajectory) for each in self.scores(model, data)])

    def scores(self, model: Model, data: ExpertData) -> np.ndarray:
        """`[S, E, P]` float32: what `rewards` are made of."""
        ones = [jax.tree.map(lambda x, seed=seed: x[seed], model) for seed in range(len(model.seed))]
        count = int(np.asarray(self.rewarded(data).lengths).sum())
        inputs = (each[:count] for each in _inputs(data))
        steps = _scaled(*inputs, ones[0].mean, ones[0].std, ones[0].bound)  # as for every seed
        return np.stack([np.asarray(_scores(self, one, *steps)) for one in ones])


def _inputs(data: ExpertData) -> tuple[np.ndarray, np.ndarray]:
    """Observations `[P + Q, D]`, flat, and actions `[P + Q, A]` of all steps, float32.

    Raises:
        DataError: for discrete actions.
    """
    if data.trajectories.discrete:
        raise DataError("actions are discrete: these rewards are learned from continuous ones")
    actions = np.asarray(data.flat.actions, np.float32)
    return np.asarray(dense(data.flat.observations), np.float32).reshape(len(actions), -1), actions


def _scaled(observations, actions, mean, std, bound) -> tuple[np.ndarray, np.ndarray]:
    """As networks see them; the arguments are NumPy's."""
    return (observations - mean) / std, np.clip(actions / bound, -1, 1)


@jax.jit(static_argnums=0)
def _scores(relabeller: TrainedRelabeller, model: Model, observations: jax.Array, actions: jax.Array) -> jax.Array:
    """`[E, P]`: experts in turn, steps in chunks, each with a key of its own."""
    count = len(actions)
    size = min(CHUNK, count)
    chunks = -(-count // size)
    split = lambda x: jnp.pad(x, ((0, chunks * size - count), (0, 0))).reshape(chunks, size, -1)
    observations, actions = split(observations), split(actions)

    def of_expert(one):
        params, centre, seed = one

        def of_chunk(chunk):
            number, *steps = chunk
            return relabeller.score(params, centre, *steps, jax.random.fold_in(jax.random.key(seed), number))

        return jax.lax.map(of_chunk, (jnp.arange(chunks), observations, actions)).reshape(-1)[:count]

    return jax.lax.map(of_expert, (model.params, model.centre, model.seed))


def with_rewards(trajectories: Trajectories, rewards: np.ndarray, returns_range: float | None = None) -> Trajectories:
    """The trajectories with other rewards `[P]`, in the order of `transitions`.

    With `returns_range` they are scaled so that the best return exceeds the worst by so much (CLUE, appendix 8.2);
    equal returns stay as they are.
    """
    mask = np.asarray(trajectories.mask)
    padded = np.zeros(mask.shape, np.float32)
    padded[mask] = rewards
    changed = trajectories.replace(rewards=padded)
    if returns_range is None:
        return changed
    scaled = ScaleReturns(returns_range)(changed)
    return scaled.replace(rewards=np.asarray(scaled.rewards, np.float32))


def expert_auc(relabeller: Relabeller, found: Relabelled, data: ExpertData) -> list[float | None]:
    """Of each expert the probability that a step of it is rewarded above one that is not; .5 is chance.

    Of the first seed; None where nothing rewards the expert's steps, which are no part of the data.
    """
    rewards = found.rewards[0]
    if rewards.shape[-1] < len(data.flat.rewards) and isinstance(relabeller, TrainedRelabeller):
        rewards = relabeller.rewards(found.model, ExpertData(data.pooled))[0]
    members = data.members()[:, : rewards.shape[-1]]
    return [auc(row, own) if own.any() else None for row, own in zip(rewards, members, strict=True)]


def rewarded_copies(relabeller: Relabeller, data: ExpertData, rewards: np.ndarray) -> tuple[Trajectories, np.ndarray]:
    """A copy of the trajectories for each row of rewards `[M, P]`, scaled, and `[M N]` int: whose copy each is.

    `Clustered` then trains a learner for each, all in one program; on the device there are M times the transitions.
    """
    trajectories = relabeller.rewarded(data)
    copies = joined(*(with_rewards(trajectories, row, relabeller.returns_range) for row in rewards))
    return copies, np.repeat(np.arange(len(rewards)), trajectories.num_trajectories)


def relabelled_dataset(
    dataset: Dataset,
    relabeller: Relabeller,
    data: ExpertData,
    rewards: np.ndarray,
    parameters: dict[str, Any],
) -> Dataset:
    """A dataset with the rewards `[P]` that a relabeller gave `rewarded(data)`, scaled.

    `parameters` join its provenance's. Labels stay, but where demonstrations, which have none, are joined to the data.
    """
    trajectories = with_rewards(relabeller.rewarded(data), rewards, relabeller.returns_range)
    same = trajectories.num_trajectories == dataset.trajectories.num_trajectories
    return build_dataset(
        trajectories,
        dataset.labels if same else None,
        name=dataset.spec.name,
        source=dataset.provenance.source,
        policy_names=dataset.spec.policy_names if same else (),
        parameters={**dataset.provenance.parameters, **parameters},
        seed=dataset.provenance.seed,
        true_log_likelihoods=dataset.true_log_likelihoods if same else None,
    )
