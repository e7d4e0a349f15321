"""Soft actor-critic (Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018).

for each gradient step:
    critics   Q_i(s, a) -> r + gamma (min_j Q'_j(s', a') - alpha log pi(a' | s')),  a' ~ pi(. | s')
    actor     maximise  min_j Q_j(s, a) - alpha log pi(a | s),  a ~ pi(. | s)
    alpha     so that the entropy of pi is its target
    targets   Q' <- Q' + tau (Q - Q')
"""

import dataclasses
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from trajclust_jax.learners.replay import Batch
from trajclust_jax.networks import Critic, TanhGaussianActor, ensemblize, sample_squashed
from trajclust_jax.training import Info

CRITICS = 2


@struct.dataclass
class SACState:
    """State of one run."""

    params: dict[str, Any]  # "actor"; "critics", leaves [2, ...]; "log_alpha" []
    targets: Any  # as params["critics"]
    optimizer: Any
    key: jax.Array
    step: jax.Array  # [] int32: gradient steps so far


@dataclasses.dataclass(frozen=True)
class SAC:
    """Settings; the defaults are the paper's (its Table 1)."""

    action_size: int
    discount: float = 0.99
    target_rate: float = 0.005
    """tau."""
    learning_rate: float = 3e-4
    """Adam's, for actor, critics and alpha."""
    batch_size: int = 256
    features: tuple[int, ...] = (256, 256)
    """Hidden layers of the critics."""
    actor_features: tuple[int, ...] = (256, 256)
    """Hidden layers of the actor."""
    layer_norm: bool = False
    """Layer normalisation in the critics (not in the paper)."""
    target_entropy: float | None = None
    """Minus the number of action dimensions by default."""

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)

    @cached_property
    def actor(self) -> TanhGaussianActor:
        return TanhGaussianActor(self.action_size, self.actor_features)

    @cached_property
    def critic(self) -> Critic:
        return Critic(self.features, self.layer_norm)

    def init(self, key: jax.Array, observation_size: int) -> SACState:
        """A new run; the key is consumed."""
        key, key_actor, key_critics = jax.random.split(key, 3)
        observation, action = jnp.zeros((1, observation_size)), jnp.zeros((1, self.action_size))
        keys = jax.random.split(key_critics, CRITICS)
        critics = ensemblize(self.critic.init, 1, (0, None, None))(keys, observation, action)
        params = {"actor": self.actor.init(key_actor, observation), "critics": critics, "log_alpha": jnp.zeros(())}
        return SACState(params, jax.tree.map(jnp.copy, critics), self.optimizer.init(params), key, jnp.int32(0))

    def values(self, critics: Any, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """`[2, B]`: each critic's Q."""
        return ensemblize(self.critic.apply, 1, (0, None, None))(critics, observations, actions)

    def critic_loss(
        self, critics: Any, params: dict[str, Any], targets: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Info]:
        """Both critics' squared Bellman error (Eq. 5 and 6); the key is consumed."""
        actions, log_prob = sample_squashed(key, self.actor.apply(params["actor"], batch.next_observations))
        following = self.values(targets, batch.next_observations, actions).min(0)
        following = following - jnp.exp(params["log_alpha"]) * log_prob
        wanted = batch.rewards + self.discount * jnp.where(batch.terminated, 0, following)
        values = self.values(critics, batch.observations, batch.actions)
        loss = ((values - jax.lax.stop_gradient(wanted)) ** 2).mean(-1).sum()
        return loss, {"critic/loss": loss, "critic/value": values.mean()}

    def actor_loss(self, actor: Any, params: dict[str, Any], batch: Batch, key: jax.Array) -> tuple[jax.Array, Info]:
        """Eq. 9; the key is consumed."""
        actions, log_prob = sample_squashed(key, self.actor.apply(actor, batch.observations))
        values = self.values(params["critics"], batch.observations, actions).min(0)
        loss = (jnp.exp(params["log_alpha"]) * log_prob - values).mean()
        return loss, {"actor/loss": loss, "actor/entropy": -log_prob.mean()}

    def alpha_loss(self, log_alpha: jax.Array, entropy: jax.Array) -> tuple[jax.Array, Info]:
        """Eq. 18, with log alpha in place of alpha as in the authors' code: the same sign, a steadier size."""
        target = -float(self.action_size) if self.target_entropy is None else self.target_entropy
        return log_alpha * (entropy - target), {"alpha": jnp.exp(log_alpha)}

    def update(self, state: SACState, batch: Batch) -> tuple[SACState, Info]:
        """One gradient step of everything, from the same parameters."""
        key_critic, key_actor = jax.random.split(jax.random.fold_in(state.key, state.step))
        params = state.params
        gradient = lambda loss: jax.grad(loss, has_aux=True)
        critics, critic_info = gradient(self.critic_loss)(params["critics"], params, state.targets, batch, key_critic)
        actor, actor_info = gradient(self.actor_loss)(params["actor"], params, batch, key_actor)
        alpha, alpha_info = gradient(self.alpha_loss)(params["log_alpha"], actor_info["actor/entropy"])
        gradients = {"actor": actor, "critics": critics, "log_alpha": alpha}
        updates, optimizer = self.optimizer.update(gradients, state.optimizer, params)
        params = optax.apply_updates(params, updates)
        targets = optax.incremental_update(params["critics"], state.targets, self.target_rate)
        state = state.replace(params=params, targets=targets, optimizer=optimizer, step=state.step + 1)
        return state, critic_info | actor_info | alpha_info
