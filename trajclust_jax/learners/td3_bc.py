"""TD3+BC (Fujimoto and Gu, "A Minimalist Approach to Offline Reinforcement Learning", 2021).

for each gradient step:
    critics   Q_i(s, a) -> r + gamma min_j Q'_j(s', a'),  a' = pi'(s') + clipped noise
    every second step:
        actor     maximise  lambda Q_1(s, pi(s)) - (pi(s) - a)^2,  lambda = alpha / mean |Q_1|
        targets   Q' <- Q' + tau (Q - Q'),  pi' likewise
"""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from trajclust_jax.learners.learner import ActorCritic, Backup, LearnerState, gradient, step_keys
from trajclust_jax.learners.sampling import Batch
from trajclust_jax.networks import DeterministicActor
from trajclust_jax.training import Info
from trajclust_jax.validation import check_above, check_at_least


@dataclasses.dataclass(frozen=True)
class TD3BC(ActorCritic):
    """Settings; the defaults are those of the authors' code."""

    alpha: float = 2.5
    """Weight of Q beside the cloning term."""
    target_noise: float = 0.2
    """Std of the noise of target actions."""
    noise_clip: float = 0.5
    """At most so much of that noise."""
    actor_every: int = 2
    """Critic steps for each step of actor and targets."""

    PAUSING = ("actor/",)

    def check(self) -> None:
        super().check()
        check_above(self, 0, "actor_every")
        check_at_least(self, 0, "alpha", "target_noise", "noise_clip")

    @property
    def actor(self) -> DeterministicActor:
        return DeterministicActor(self.action_size, self.actor_features)

    def lagged(self) -> tuple[str, ...]:
        return ("actor", "critics")

    def backup(self, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: jax.Array) -> Backup:
        """The smoothed target policy's action, and the lesser of its target values; the key is consumed."""
        noise = self.target_noise * jax.random.normal(key, batch.actions.shape)
        noise = jnp.clip(noise, -self.noise_clip, self.noise_clip)
        actions = jnp.clip(self.actor.apply(targets["actor"], batch.next_observations) + noise, -1, 1)
        return Backup(actions, self.values(targets["critics"], batch.next_observations, actions).min(0))

    def actor_loss(self, actor: Any, params: dict[str, Any], batch: Batch) -> tuple[jax.Array, Info]:
        """Eq. 5 with the first critic alone, as its code has it."""
        actions = self.actor.apply(actor, batch.observations)
        values = self.first_values(params["critics"], batch.observations, actions)
        chex.assert_equal_shape([actions, batch.actions])
        chex.assert_rank(values, 1)
        weight = self.alpha / jax.lax.stop_gradient(jnp.abs(values).mean())
        cloning = ((actions - batch.actions) ** 2).mean()
        loss = cloning - weight * values.mean()
        return loss, {"actor/loss": loss, "actor/cloning": cloning}

    def update(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """A step of the critics; every `actor_every`-th time then one of actor and targets."""
        (key,) = step_keys(state, step, 1)
        critics, critic_info = gradient(
            self.critic_loss, state.params["critics"], state.params, state.targets, batch, key
        )
        state = self.descend(state, {"critics": critics}, step)

        def improve(state):
            actor, info = gradient(self.actor_loss, state.params["actor"], state.params, batch)
            return self.lag(self.descend(state, {"actor": actor}, step)), info

        # `step` is the same for all runs, so that the branch is not taken for naught under vmap
        def skip(state):
            return state, jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan), jax.eval_shape(improve, state)[1])

        state, actor_info = jax.lax.cond(step % self.actor_every == self.actor_every - 1, improve, skip, state)
        return state, critic_info | actor_info

    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        return self.actor.apply(actor, observations)
