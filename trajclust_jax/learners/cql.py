"""Conservative Q-learning (Kumar, Zhou, Tucker and Levine, "Conservative Q-Learning for Offline Reinforcement
Learning", 2020), CQL(H): soft actor-critic whose critics are pushed down on actions that are not the data's.

for each gradient step, as in `sac.py`, with
    critics   + alpha_i (log sum_a exp Q_i(s, a) - Q_i(s, a_data)),  the sum estimated from uniform actions and those
              of pi at s and at s', each divided by its density
    multiplier (optional)   alpha' so that the difference is `gap`

Of discrete actions (`DiscreteCQL`) the sum is exact, and there is no actor: the paper's agents for Atari are
Q-learners, here double ones (van Hasselt, Guez and Silver, 2016), without quantiles:

    critics   Q_i(s, a) -> r + gamma min_j Q'_j(s', a'),  a' the best action by the critics' mean at s'
              + alpha (log sum_a exp Q_i(s, a) - Q_i(s, a_data))
"""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from trajclust_jax.learners.learner import ActorCritic, Backup, LearnerState, Part, gradient, step_keys
from trajclust_jax.learners.sac import SAC
from trajclust_jax.learners.sampling import Batch
from trajclust_jax.networks import TanhGaussianActor, sample_squashed
from trajclust_jax.training import Info
from trajclust_jax.validation import check_above, check_at_least

MAX_MULTIPLIER = 1e6
LOG_STD_BOUNDS = (-20.0, 2.0)


@dataclasses.dataclass(frozen=True)
class CQL(SAC):
    """Settings; the defaults are those of young-geng's code.

    CORL's for locomotion: conservatism 10, actor_rate 3e-5, features 3 x 256, normalised observations (its
    initialisation, orthogonal with small last layers, is left out). With `gap` the weight of the conservative term
    adapts, as for antmaze (.8 in CORL, which also takes the best of several actions into the targets there: not here).
    """

    backup_entropy: bool = False
    conservatism: float = 5.0
    """alpha of the paper's Eq. 4."""
    num_actions: int = 10
    """Actions drawn from each of the three sources."""
    actor_rate: float = 3e-4
    """Learning rate of actor and entropy weight."""
    gap: float | None = None
    """Lagrange: what log-sum-exp and Q of the data are to differ by."""

    def check(self) -> None:
        super().check()
        check_above(self, 0, "num_actions", "actor_rate")
        check_at_least(self, 0, "conservatism")

    @property
    def actor(self) -> TanhGaussianActor:
        return TanhGaussianActor(self.action_size, self.actor_features, LOG_STD_BOUNDS, affine_log_std=True)

    def parts(self) -> dict[str, Part]:
        more = {} if self.gap is None else {"log_multiplier": lambda key, observation, action: jnp.ones(())}
        return {**super().parts(), **more}

    def rate(self, part: str, step: jax.Array) -> jax.Array | float:
        return self.actor_rate if part in ("actor", "log_alpha") else self.learning_rate

    def log_sum_exp(self, critics: Any, actor: Any, batch: Batch, key: jax.Array) -> jax.Array:
        """`[2, B]`: log of the integral of exp Q at s by importance sampling (appendix F); the key is consumed.

        Actions that the policy proposes at s' are valued at s, as in the authors' code.
        """
        key_uniform, *keys = jax.random.split(key, 3)
        shape = self.num_actions, *batch.actions.shape
        actions = [jax.random.uniform(key_uniform, shape, minval=-1, maxval=1)]
        log_density = [jnp.full(shape[:-1], -self.action_size * jnp.log(2.0))]
        for source, k in zip((batch.observations, batch.next_observations), keys, strict=True):
            policy = self.actor.apply(actor, source)
            drawn, log_prob = jax.vmap(lambda each: sample_squashed(each, policy))(  # noqa: B023
                jax.random.split(k, self.num_actions)
            )
            actions.append(drawn)
            log_density.append(log_prob)
        actions, log_density = jax.lax.stop_gradient((jnp.concatenate(actions), jnp.concatenate(log_density)))
        observations = jnp.broadcast_to(batch.observations, (*actions.shape[:-1], batch.observations.shape[-1]))
        values = self.values(critics, observations, actions)
        return jax.nn.logsumexp(values - log_density, axis=1)

    def backup(
        self, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: tuple[jax.Array, jax.Array]
    ) -> Backup:
        """As SAC's; the first key is consumed."""
        return super().backup(params, targets, batch, key[0])

    def critic_loss(
        self,
        critics: Any,
        params: dict[str, Any],
        targets: dict[str, Any],
        batch: Batch,
        key: tuple[jax.Array, jax.Array],
    ) -> tuple[jax.Array, Info]:
        """Both critics' squared TD error, and the conservative term; both keys are consumed."""
        bellman, info = super().critic_loss(critics, params, targets, batch, key)
        conservative, more = self.conservative_loss(critics, params, batch, key[1])
        return bellman + conservative, info | more

    def conservative_loss(
        self, critics: Any, params: dict[str, Any], batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Info]:
        """Both critics' log-sum-exp over Q of the data (Eq. 4), weighted; the key is consumed."""
        of_data = self.values(critics, batch.observations, batch.actions)
        of_all = self.log_sum_exp(critics, params["actor"], batch, key)
        chex.assert_equal_shape([of_all, of_data])  # [2, B]
        differences = (of_all - of_data).mean(1)
        loss, info = self.conservatism * differences.sum(), {"critic/difference": differences.mean()}
        if self.gap is not None:
            multiplier = jnp.clip(jnp.exp(params["log_multiplier"]), 0, MAX_MULTIPLIER)
            loss = multiplier * self.conservatism * (differences - self.gap).sum()
        return loss, {**info, "critic/conservative": loss}

    def multiplier_loss(self, log_multiplier: jax.Array, difference: jax.Array) -> tuple[jax.Array, Info]:
        """Dual ascent (Eq. 30): the multiplier grows while the mean difference is above the gap."""
        chex.assert_rank([log_multiplier, difference], 0)
        multiplier = jnp.clip(jnp.exp(log_multiplier), 0, MAX_MULTIPLIER)
        return -multiplier * self.conservatism * (difference - self.gap), {"critic/multiplier": multiplier}

    def update(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """One gradient step of everything, from the same parameters."""
        key_critic, key_actor, key_actions = step_keys(state, step, 3)
        params = state.params

        keys = key_critic, key_actions
        critics, critic_info = gradient(self.critic_loss, params["critics"], params, state.targets, batch, keys)
        actor, actor_info = gradient(self.actor_loss, params["actor"], params, batch, key_actor)
        alpha, alpha_info = gradient(self.alpha_loss, params["log_alpha"], actor_info["actor/entropy"])
        gradients = {"critics": critics, "actor": actor, "log_alpha": alpha}
        info = critic_info | actor_info | alpha_info
        if self.gap is not None:
            difference = critic_info["critic/difference"]
            gradients["log_multiplier"], more = gradient(self.multiplier_loss, params["log_multiplier"], difference)
            info |= more
        return self.lag(self.descend(state, gradients, step)), info


@dataclasses.dataclass(frozen=True)
class DiscreteCQL(ActorCritic):
    """CQL(H) of discrete actions. It acts by the highest mean of both critics."""

    conservatism: float = 1.0
    """alpha of the paper's Eq. 4."""

    DISCRETE = True

    def parts(self) -> dict[str, Part]:
        return {"critics": self.init_critics}

    def all_values(self, critics: Any, observations: jax.Array) -> jax.Array:
        """`[2, ..., A]`: each critic's Q of every action at `[..., D]`."""
        actions = jnp.eye(self.action_size)
        shape = *observations.shape[:-1], self.action_size
        every = jnp.broadcast_to(observations[..., None, :], (*shape, observations.shape[-1]))
        values = self.values(critics, every, jnp.broadcast_to(actions, (*shape, self.action_size)))
        return values.reshape(-1, *shape)

    def best(self, critics: Any, observations: jax.Array) -> jax.Array:
        """`[..., A]`: the best action by the critics' mean, one-hot."""
        chosen = self.all_values(critics, observations).mean(0).argmax(-1)
        return jax.nn.one_hot(chosen, self.action_size)

    def backup(self, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: None) -> Backup:
        """The lower target value of the action that the critics choose."""
        actions = self.best(params["critics"], batch.next_observations)
        return Backup(actions, self.values(targets["critics"], batch.next_observations, actions).min(0))

    def critic_loss(
        self, critics: Any, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: None
    ) -> tuple[jax.Array, Info]:
        """Both critics' squared TD error, and the conservative term."""
        bellman, info = super().critic_loss(critics, params, targets, batch, key)
        of_all = jax.nn.logsumexp(self.all_values(critics, batch.observations), axis=-1)
        of_data = self.values(critics, batch.observations, batch.actions)
        chex.assert_equal_shape([of_all, of_data])  # [2, B]
        differences = (of_all - of_data).mean(1)
        loss = self.conservatism * differences.sum()
        return bellman + loss, {**info, "critic/difference": differences.mean(), "critic/conservative": loss}

    def update(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """One gradient step of both critics."""
        params = state.params
        critics, info = gradient(self.critic_loss, params["critics"], params, state.targets, batch, None)
        return self.lag(self.descend(state, {"critics": critics}, step)), info

    def policy(self, params: dict[str, Any]) -> Any:
        return params["critics"]

    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        return self.best(actor, observations)
