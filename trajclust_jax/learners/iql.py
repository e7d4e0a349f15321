"""Implicit Q-learning (Kostrikov, Nair and Levine, "Offline Reinforcement Learning with Implicit Q-Learning", 2021).

for each gradient step:
    value     V(s) -> the expectile of  min_j Q'_j(s, a)  over the data's actions
    critics   Q_i(s, a) -> r + gamma V(s')
    actor     maximise  exp(beta (min_j Q'_j(s, a) - V(s))) log pi(a | s),  the weight at most 100
    targets   Q' <- Q' + tau (Q - Q')
"""

import dataclasses
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from trajclust_jax.learners.learner import ActorCritic, Backup, LearnerState, Part, gradient, step_keys
from trajclust_jax.learners.sampling import Batch
from trajclust_jax.networks import ORTHOGONAL, STANDARD, CategoricalActor, Critic, GaussianActor
from trajclust_jax.training import Info
from trajclust_jax.validation import check_at_least, check_fraction, check_inner_share

MAX_WEIGHT = 100.0


@dataclasses.dataclass(frozen=True)
class IQL(ActorCritic):
    """Settings; the defaults are those of the authors' code for locomotion, but `orthogonal`, which theirs is.

    Their code takes the value that was just updated into the losses of critics and actor; here, as in CORL, all losses
    are of the same parameters.

    Antmaze: expectile .9, temperature 10. Adroit and kitchen: temperature .5, dropout .1.
    """

    expectile: float = 0.7
    """tau, of V: above .5 leans to the better actions."""
    temperature: float = 3.0
    """beta, an inverse temperature."""
    dropout: float = 0.0
    """In the actor."""
    orthogonal: bool = False
    """All layers begin orthogonal, times the root of 2, as in the authors' code."""

    FIXED = ("dropout",)

    def check(self) -> None:
        super().check()
        check_inner_share(self, "expectile")
        check_at_least(self, 0, "temperature")
        check_fraction(self, "dropout")

    @property
    def kernel_init(self) -> nn.initializers.Initializer:
        return ORTHOGONAL if self.orthogonal else STANDARD

    @property
    def actor(self) -> GaussianActor:
        return GaussianActor(self.action_size, self.actor_features, dropout=self.dropout, kernel_init=self.kernel_init)

    @property
    def critic(self) -> Critic:
        return Critic(self.features, self.layer_norm, self.kernel_init)

    def parts(self) -> dict[str, Part]:
        return {**super().parts(), "value": lambda key, observation, action: self.critic.init(key, observation)}

    def rate(self, part: str, step: jax.Array) -> jax.Array | float:
        """The actor's falls to nothing as a cosine."""
        if part != "actor":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / self.updates, 1)))

    def advantage(self, value: Any, targets: dict[str, Any], batch: Batch) -> jax.Array:
        """`[B]`: how much better the data's action is than V."""
        values = self.values(targets["critics"], batch.observations, batch.actions).min(0)
        return values - self.critic.apply(value, batch.observations)

    def value_loss(self, value: Any, targets: dict[str, Any], batch: Batch) -> tuple[jax.Array, Info]:
        """Expectile regression (Eq. 5)."""
        advantage = self.advantage(value, targets, batch)
        chex.assert_equal_shape([advantage, batch.rewards])
        loss = (jnp.where(advantage > 0, self.expectile, 1 - self.expectile) * advantage**2).mean()
        return loss, {"value/loss": loss}

    def backup(self, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: None) -> Backup:
        """V, which looks at no action (Eq. 6); beside it the policy's."""
        actions = self.act(params["actor"], batch.next_observations)
        return Backup(actions, self.critic.apply(params["value"], batch.next_observations))

    def actor_loss(
        self, actor: Any, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Info]:
        """Advantage-weighted regression (Eq. 7); the key is consumed by dropout."""
        advantage = jax.lax.stop_gradient(self.advantage(params["value"], targets, batch))
        weight = jnp.minimum(jnp.exp(self.temperature * advantage), MAX_WEIGHT)
        policy = self.actor.apply(actor, batch.observations, rngs={"dropout": key} if self.dropout else None)
        log_prob = policy.log_prob(batch.actions)
        chex.assert_equal_shape([weight, log_prob, batch.rewards])
        loss = -(weight * log_prob).mean()
        return loss, {"actor/loss": loss, "actor/weight": weight.mean()}

    def update(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """One gradient step of everything, from the same parameters."""
        (key,) = step_keys(state, step, 1)
        params, targets = state.params, state.targets
        value, value_info = gradient(self.value_loss, params["value"], targets, batch)
        critics, critic_info = gradient(self.critic_loss, params["critics"], params, targets, batch, None)
        actor, actor_info = gradient(self.actor_loss, params["actor"], params, targets, batch, key)
        state = self.descend(state, {"value": value, "critics": critics, "actor": actor}, step)
        return self.lag(state), value_info | critic_info | actor_info

    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        return self.actor.apply(actor, observations).distribution.loc


@dataclasses.dataclass(frozen=True)
class DiscreteIQL(IQL):
    """IQL of discrete actions: a categorical actor; Q of an action's one-hot vector. All else is the same."""

    DISCRETE = True

    @property
    def actor(self) -> CategoricalActor:
        return CategoricalActor(self.action_size, self.actor_features, self.dropout, self.kernel_init)

    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        return self.actor.apply(actor, observations).mode()
