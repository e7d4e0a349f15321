"""Soft actor-critic (Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018).

for each gradient step:
    critics   Q_i(s, a) -> r + gamma (min_j Q'_j(s', a') - alpha log pi(a' | s')),  a' ~ pi(. | s')
    actor     maximise  min_j Q_j(s, a) - alpha log pi(a | s),  a ~ pi(. | s)
    alpha     so that the entropy of pi is its target
    targets   Q' <- Q' + tau (Q - Q')
"""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from trajclust_jax.learners.learner import ActorCritic, Backup, LearnerState, Part, gradient, step_keys
from trajclust_jax.learners.sampling import Batch
from trajclust_jax.networks import TanhGaussianActor, sample_squashed
from trajclust_jax.training import Info


@dataclasses.dataclass(frozen=True)
class SAC(ActorCritic):
    """Settings; the defaults are the paper's (its Table 1)."""

    backup_entropy: bool = True
    """The critics' targets contain the entropy."""
    target_entropy: float | None = None
    """Minus the number of action dimensions by default."""

    @property
    def actor(self) -> TanhGaussianActor:
        return TanhGaussianActor(self.action_size, self.actor_features)

    def parts(self) -> dict[str, Part]:
        return {**super().parts(), "log_alpha": lambda key, observation, action: jnp.zeros(())}

    def backup(self, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: jax.Array) -> Backup:
        """The policy's action, and the lesser of its target values with the entropy (Eq. 3); the key is consumed."""
        actions, log_prob = sample_squashed(key, self.actor.apply(params["actor"], batch.next_observations))
        next_values = self.values(targets["critics"], batch.next_observations, actions).min(0)
        if self.backup_entropy:
            next_values = next_values - jnp.exp(params["log_alpha"]) * log_prob
        return Backup(actions, next_values)

    def actor_loss(self, actor: Any, params: dict[str, Any], batch: Batch, key: jax.Array) -> tuple[jax.Array, Info]:
        """Eq. 9; the key is consumed."""
        actions, log_prob = sample_squashed(key, self.actor.apply(actor, batch.observations))
        values = self.values(params["critics"], batch.observations, actions).min(0)
        chex.assert_equal_shape([log_prob, values, batch.rewards])
        loss = (jnp.exp(params["log_alpha"]) * log_prob - values).mean()
        return loss, {"actor/loss": loss, "actor/entropy": -log_prob.mean()}

    def alpha_loss(self, log_alpha: jax.Array, entropy: jax.Array) -> tuple[jax.Array, Info]:
        """Eq. 18, with log alpha in place of alpha as in the authors' code: the same sign, a steadier size."""
        chex.assert_rank([log_alpha, entropy], 0)
        target = -float(self.action_size) if self.target_entropy is None else self.target_entropy
        return log_alpha * (entropy - target), {"actor/alpha": jnp.exp(log_alpha)}

    def update(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """One gradient step of everything, from the same parameters."""
        key_critic, key_actor = step_keys(state, step, 2)
        params = state.params
        critics, critic_info = gradient(self.critic_loss, params["critics"], params, state.targets, batch, key_critic)
        actor, actor_info = gradient(self.actor_loss, params["actor"], params, batch, key_actor)
        alpha, alpha_info = gradient(self.alpha_loss, params["log_alpha"], actor_info["actor/entropy"])
        state = self.descend(state, {"critics": critics, "actor": actor, "log_alpha": alpha}, step)
        return self.lag(state), critic_info | actor_info | alpha_info

    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        return jnp.tanh(self.actor.apply(actor, observations).distribution.loc)
