"""What the learners share: a state of named parts, Adam for each part, networks that lag behind.

A learner is a frozen dataclass of its algorithm's settings with three pure functions, written for ONE run:

    init(key, observation_size) -> LearnerState
    update(state, batch, step) -> (LearnerState, Info)     one gradient step
    act(actor, observations) -> actions                    without noise, for evaluation

and one function `..._loss` for each loss, which returns `(loss, info)`. `Offline` trains it from trajectories,
`train_online` by acting. Observations are flat float32, actions in [-1, 1].

A plug-in changes any learner with critics without its knowing: a class that overrides what it changes (`critic_loss`,
`sampler`, ...) and calls `super()`. `plugged(Mine, TD3BC)` is TD3+BC with it, and a `PlugIn` takes a learner, too:
`C4(TD3BC(3), clusters=5)`.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from trajclust_jax.data import Trajectories
from trajclust_jax.documented import documented
from trajclust_jax.learners.sampling import Batch, Sampler, Uniform
from trajclust_jax.networks import Critic, ensemblize
from trajclust_jax.training import Info, Method
from trajclust_jax.validation import check_above, check_share

CRITICS = 2
_ADAM = optax.scale_by_adam()


@struct.dataclass
class LearnerState:
    """State of one run; all by part."""

    params: dict[str, Any]  # "actor", "critics" with leaves [2, ...], ...
    targets: dict[str, Any]  # of the parts that lag
    optimizer: dict[str, Any]
    key: jax.Array
    sampler: Any = ()  # the state of what draws its minibatches


class Stage(NamedTuple):
    """A stretch of training."""

    name: str
    update: Callable[[LearnerState, Batch, jax.Array], tuple[LearnerState, Info]]
    updates: int  # gradient steps; of a whole stage epochs
    begin: Callable[[LearnerState], LearnerState] = lambda state: state  # what the stage before left; any axes
    whole: bool = False  # update takes the `View` of all transitions in place of a minibatch
    uniform: bool = False  # it trains no critic: minibatches are drawn uniformly, whatever the learner's sampler


Part = Callable[[jax.Array, jax.Array, jax.Array], Any]  # (key, observation [1, D], action [1, A]) -> parameters


@dataclasses.dataclass(frozen=True)
class Learner(abc.ABC):
    """Settings of every learner."""

    action_size: int
    """How many numbers an action has; of discrete ones, how many there are."""
    updates: int = 1_000_000
    """Gradient steps of a training; schedules end there."""
    batch_size: int = 256
    """Transitions of a gradient step."""
    learning_rate: float = 3e-4
    """Adam's."""

    VERSION: ClassVar[int] = 1  # of the algorithm: part of a record's identity; raise it when results change
    PAUSING: ClassVar[tuple[str, ...]] = ()  # prefixes of infos that are NaN at steps where their part has no turn
    FIXED: ClassVar[tuple[str, ...]] = ()  # numbers that decide what is computed: they cannot be swept
    SWEPT: ClassVar[tuple[str, ...]] = ()  # whole numbers that enter computations alone: they can be swept
    ASKS: ClassVar[tuple[str, ...]] = ()  # of "next_actions", "pairs", "n_steps" (`self.n_steps`), "returns": `Batch`
    BOOTSTRAPS: ClassVar[bool] = False  # it learns from values of what followed
    DISCRETE: ClassVar[bool] = False  # actions are one of `action_size`: one-hot in a batch, and where it acts

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        documented(cls)

    def check(self) -> None:
        """Raises ValueError for settings that make no sense."""
        for stage in self.stages():
            if stage.updates < 1:
                raise ValueError(f"{stage.name}: {stage.updates} updates, at least 1 is needed")
        check_above(self, 0, "batch_size", "learning_rate")

    def advise(self, trajectories: Trajectories) -> None:
        """Warns of settings that do not fit the data, whose rewards are scaled already, or raises ValueError where they
        cannot; by default neither."""
        del trajectories

    def before(self) -> Method | None:
        """What is trained on the same trajectories before it, in its own units; its result goes to `informed`."""
        return None

    def informed(self, state: LearnerState, found: Any) -> LearnerState:
        """A new state that knows what was found `before`; a learner with something before it says how."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it takes of what is trained before it")

    @property
    def sampler(self) -> Sampler:
        """What draws the minibatches."""
        return Uniform()

    @abc.abstractmethod
    def parts(self) -> dict[str, Part]:
        """How the parameters of each part begin."""

    def lagged(self) -> tuple[str, ...]:
        """The parts that have targets."""
        return ()

    def rate(self, part: str, step: jax.Array) -> jax.Array | float:
        """A part's learning rate, `[]`, at a gradient step."""
        return self.learning_rate

    def stages(self) -> tuple[Stage, ...]:
        """The training, in order."""
        return (Stage("train", self.update, self.updates),)

    def parts_for(self, num_trajectories: int) -> dict[str, Part]:
        """`parts` of a training on so many trajectories; by default the same for any number."""
        del num_trajectories
        return self.parts()

    def init(self, key: jax.Array, observation_size: int, num_trajectories: int = 1) -> LearnerState:
        """A new run; the key is consumed."""
        observation, action = jnp.zeros((1, observation_size)), jnp.zeros((1, self.action_size))
        parts = self.parts_for(num_trajectories)
        key, *keys = jax.random.split(key, 1 + len(parts))
        params = {name: begin(k, observation, action) for k, (name, begin) in zip(keys, parts.items(), strict=True)}
        targets = {name: jax.tree.map(jnp.copy, params[name]) for name in self.lagged()}
        return LearnerState(params, targets, {name: _ADAM.init(params[name]) for name in parts}, key)

    @abc.abstractmethod
    def update(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """One gradient step, the `step`-th (int32, the same for all runs trained together)."""

    def policy(self, params: dict[str, Any]) -> Any:
        """Of a training's parameters what `act` needs, one network or a pytree of several."""
        return params["actor"]

    def assignments(self, actor: Any) -> jax.Array | None:
        """`[..., N]` int32: of each trajectory trained on, in order, the cluster that was found `before`; by default
        None."""
        del actor
        return None

    @abc.abstractmethod
    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        """`[..., D] -> [..., A]` in [-1, 1]: the policy without its noise."""

    def descend(self, state: LearnerState, gradients: dict[str, Any], step: jax.Array) -> LearnerState:
        """Adam's step on the parts that have gradients."""
        params, optimizer = dict(state.params), dict(state.optimizer)
        for part, gradient in gradients.items():
            rate = self.rate(part, step)
            direction, optimizer[part] = _ADAM.update(gradient, state.optimizer[part])
            params[part] = jax.tree.map(lambda p, d, rate=rate: p - rate * d, params[part], direction)
        return state.replace(params=params, optimizer=optimizer)


class Backup(NamedTuple):
    """What stands for the future in a TD target."""

    actions: jax.Array  # [B, A]: a', the action at s' that is valued or, where none is, the policy's
    values: jax.Array  # [B]: of s', what is taken off for entropy or penalties included


@dataclasses.dataclass(frozen=True)
class ActorCritic(Learner):
    """Settings of learners with two critics that bootstrap."""

    BOOTSTRAPS = True
    CRITIC: ClassVar[str] = "critics"  # the part that plug-ins change

    discount: float = 0.99
    """gamma."""
    target_rate: float = 0.005
    """tau."""
    features: tuple[int, ...] = (256, 256)
    """Hidden layers of critics (and values)."""
    actor_features: tuple[int, ...] = (256, 256)
    """Hidden layers of the actor."""
    layer_norm: bool = False
    """Layer normalisation in the critics (in none of the papers)."""

    def check(self) -> None:
        super().check()
        check_share(self, "discount", "target_rate")

    @property
    def critic(self) -> Critic:
        return Critic(self.features, self.layer_norm)

    def parts(self) -> dict[str, Part]:
        """Actor and critics; learners with further ones add them."""
        return {
            "actor": lambda key, observation, action: self.actor.init(key, observation),
            "critics": self.init_critics,
        }

    def init_critics(self, key: jax.Array, observation: jax.Array, action: jax.Array) -> Any:
        """Both critics' parameters, leaves `[2, ...]`; the key is consumed."""
        keys = jax.random.split(key, CRITICS)
        return ensemblize(self.critic.init, 1, (0, None, None))(keys, observation, action)

    def lagged(self) -> tuple[str, ...]:
        return ("critics",)

    def values(self, critics: Any, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """`[2, ...]`: each critic's Q of `[..., D]` and `[..., A]`."""
        rows = _rows(critics, observations, actions)
        return ensemblize(self.critic.apply, 1)(critics, *rows).reshape(-1, *actions.shape[:-1])

    def first_values(self, critics: Any, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """`[...]`: the first critic's Q of `[..., D]` and `[..., A]`."""
        return self.critic.apply(jax.tree.map(lambda x: x[0], critics), observations, actions)

    def input_gradients(self, critics: Any, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """`[2, B, D + A]`: of each critic's Q in its input `[B, D]` and `[B, A]`."""
        total = lambda *rows: ensemblize(self.critic.apply, 1)(critics, *rows).sum()
        # the forward pass is that of `values`, to the operation: a program that has both computes it once
        return jnp.concatenate(jax.grad(total, (0, 1))(*_rows(critics, observations, actions)), axis=-1)

    def penultimate(self, critics: Any, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """`[2, B, H]`: of each critic what its last layer sees of `[B, D]` and `[B, A]`."""
        hidden = lambda critic, *rows: self.critic.apply(critic, *rows, penultimate=True)
        return ensemblize(hidden, 1)(critics, *_rows(critics, observations, actions))

    # What of critics plug-ins look at; learners with others have these, too.

    def first_critic(self, critics: Any) -> Any:
        """The first of them, with its axis."""
        return jax.tree.map(lambda x: x[:1], critics)

    def valued(self, critics: Any, params: Any, batch: Batch, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """`[E, B]`: of each critic Q in other inputs, `[B, D]` and `[B, A]`, of a minibatch's transitions."""
        del params, batch
        return self.values(critics, observations, actions)

    def valued_gradients(
        self, critics: Any, params: Any, batch: Batch, observations: jax.Array, actions: jax.Array
    ) -> jax.Array:
        """`[E, B, D + A]`: its gradients in them."""
        del params, batch
        return self.input_gradients(critics, observations, actions)

    @abc.abstractmethod
    def backup(self, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: Any) -> Backup:
        """What the critics' TD target bootstraps from; `key` as `update` gives it, consumed."""

    def critic_loss(
        self, critics: Any, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: Any
    ) -> tuple[jax.Array, Info]:
        """Both critics' squared TD error, in `critics` alone; `key` as `update` gives it, consumed."""
        next_values = self.backup(params, targets, batch, key).values
        chex.assert_rank([batch.observations, batch.actions], 2)
        chex.assert_shape([batch.rewards, batch.terminated, next_values], batch.actions.shape[:1])  # not [B, 1] by [B]
        td_target = batch.rewards + self.discount * jnp.where(batch.terminated, 0, next_values)
        values = self.values(critics, batch.observations, batch.actions)
        loss = ((values - jax.lax.stop_gradient(td_target)) ** 2).mean(-1).sum()
        return loss, {"critic/loss": loss, "critic/value": values.mean()}

    def update(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """One gradient step of critics and actor, from the same parameters.

        For learners that have `actor_loss(actor, params, batch, key)` and no more; others have their own.
        """
        key_critic, key_actor = step_keys(state, step, 2)
        params = state.params
        critics, critic_info = gradient(self.critic_loss, params["critics"], params, state.targets, batch, key_critic)
        actor, actor_info = gradient(self.actor_loss, params["actor"], params, batch, key_actor)
        state = self.descend(state, {"critics": critics, "actor": actor}, step)
        return self.lag(state), critic_info | actor_info

    def lag(self, state: LearnerState) -> LearnerState:
        """Targets move a `target_rate` of the way."""
        now = {part: state.params[part] for part in state.targets}
        return state.replace(targets=optax.incremental_update(now, state.targets, self.target_rate))


def _rows(critics: Any, *inputs: jax.Array) -> list[jax.Array]:
    """Inputs `[..., I]` as rows of their own for each critic: products by shared rows come out with the critics' axis
    inside."""
    count = jax.tree.leaves(critics)[0].shape[0]
    flat = (x.reshape(-1, x.shape[-1]) for x in inputs)
    return [jnp.broadcast_to(x, (count, *x.shape)) for x in flat]


def gradient(loss: Callable, *arguments: Any) -> tuple[Any, Info]:
    """Of a loss `(params, ...) -> (loss, info)`, in its first argument."""
    return jax.grad(loss, has_aux=True)(*arguments)


def step_keys(state: LearnerState, step: jax.Array, count: int) -> list[jax.Array]:
    """The keys of a gradient step."""
    return list(jax.random.split(jax.random.fold_in(state.key, step), count))


class _Wrapping(abc.ABCMeta):
    """Of plug-ins, which are called with a learner."""

    def __call__(cls, *args: Any, **settings: Any) -> Any:
        if issubclass(cls, Learner):  # it has one already
            return super().__call__(*args, **settings)
        if len(args) != 1 or not isinstance(args[0], Learner):
            raise ValueError(f"{cls.__name__} takes a learner, and its own settings by name")
        (learner,) = args
        if isinstance(learner, cls):
            raise ValueError(f"{cls.__name__}: the learner has it already")
        own = {field.name for field in dataclasses.fields(cls)}
        names = [field.name for field in dataclasses.fields(learner) if field.name not in own]
        return plugged(cls, type(learner))(**{name: getattr(learner, name) for name in names}, **settings)


class PlugIn(metaclass=_Wrapping):
    """A plug-in that wraps a learner and is one: `C4(TD3BC(3), clusters=5)`; its own settings by name.

    Derive from it, with fields that have defaults.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        documented(cls)

    REVISION: ClassVar[int] = 1  # of the plug-in, beside the learner's VERSION: raise it when results change


@functools.cache
def plugged(plug_in: type, algorithm: type[ActorCritic]) -> type[ActorCritic]:
    """The algorithm with a plug-in: a class with the settings of both, the plug-in's methods first.

    What both ask of a batch, or do not allow to be swept, is joined.
    """
    joined = {
        name: tuple(dict.fromkeys((*getattr(algorithm, name), *getattr(plug_in, name, ()))))
        for name in ("ASKS", "FIXED", "PAUSING", "SWEPT")
    }
    both = type(
        f"{plug_in.__name__}{algorithm.__name__}",
        (plug_in, algorithm),
        {"__doc__": f"{plug_in.__name__} of {algorithm.__name__}.", **joined},
    )
    return dataclasses.dataclass(frozen=True)(both)
