"""AWAC (Nair, Gupta, Dalal and Levine, "AWAC: Accelerating Online Reinforcement Learning with Offline Datasets", 2020).

for each gradient step:
    critics   Q_i(s, a) -> r + gamma min_j Q'_j(s', a'),  a' ~ pi(. | s')
    actor     maximise  exp((min_j Q_j(s, a) - min_j Q_j(s, a'')) / lambda) log pi(a | s),  a'' ~ pi(. | s),
              the weight at most 100
    targets   Q' <- Q' + tau (Q - Q')
"""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from trajclust_jax.learners.learner import ActorCritic, Backup
from trajclust_jax.learners.sampling import Batch
from trajclust_jax.networks import GaussianActor
from trajclust_jax.training import Info
from trajclust_jax.validation import check_above

MAX_WEIGHT = 100.0


@dataclasses.dataclass(frozen=True)
class AWAC(ActorCritic):
    """Settings; the defaults are CORL's, whose scores the papers cite.

    Its critics take their step before the actor's loss is computed; here all losses are of the same parameters. Its log
    std has a lower floor (-20).
    """

    features: tuple[int, ...] = (256, 256, 256)
    """Hidden layers of the critics."""
    actor_features: tuple[int, ...] = (256, 256, 256)
    """Hidden layers of the actor."""
    temperature: float = 1 / 3
    """lambda."""

    def check(self) -> None:
        super().check()
        check_above(self, 0, "temperature")

    @property
    def actor(self) -> GaussianActor:
        return GaussianActor(self.action_size, self.actor_features, bounded=False)

    def sample(self, actor: Any, observations: jax.Array, key: jax.Array) -> jax.Array:
        """Actions `[B, A]`, clipped to their bounds; the key is consumed."""
        return jnp.clip(self.actor.apply(actor, observations).sample(seed=key), -1, 1)

    def backup(self, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: jax.Array) -> Backup:
        """The policy's action, and the lesser of its target values; the key is consumed."""
        actions = self.sample(params["actor"], batch.next_observations, key)
        return Backup(actions, self.values(targets["critics"], batch.next_observations, actions).min(0))

    def actor_loss(self, actor: Any, params: dict[str, Any], batch: Batch, key: jax.Array) -> tuple[jax.Array, Info]:
        """Advantage-weighted regression (Eq. 13); the key is consumed."""
        drawn = self.sample(params["actor"], batch.observations, key)
        of_data, of_policy = (
            self.values(params["critics"], batch.observations, actions).min(0) for actions in (batch.actions, drawn)
        )
        weight = jnp.minimum(jnp.exp((of_data - of_policy) / self.temperature), MAX_WEIGHT)
        log_prob = self.actor.apply(actor, batch.observations).log_prob(batch.actions)
        chex.assert_equal_shape([weight, log_prob, batch.rewards])
        loss = -(jax.lax.stop_gradient(weight) * log_prob).mean()
        return loss, {"actor/loss": loss, "actor/weight": weight.mean()}

    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        return jnp.clip(self.actor.apply(actor, observations).distribution.loc, -1, 1)
