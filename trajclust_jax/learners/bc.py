"""Behaviour cloning.

for each gradient step:
    actor   minimise  ||pi(s) - a||^2        (deterministic)
            or        -log pi(a | s)         (stochastic, and of discrete actions)
"""

import dataclasses
from typing import Any

import chex
import jax

from trajclust_jax.learners.learner import Learner, LearnerState, Part, gradient
from trajclust_jax.learners.sampling import Batch
from trajclust_jax.networks import CategoricalActor, DeterministicActor, GaussianActor
from trajclust_jax.training import Info


@dataclasses.dataclass(frozen=True)
class BC(Learner):
    """Settings; the defaults are CORL's, whose scores the papers cite."""

    actor_features: tuple[int, ...] = (256, 256)
    """Hidden layers of the actor."""
    stochastic: bool = False
    """A Gaussian policy by maximum likelihood instead of its mode by least squares."""

    @property
    def actor(self) -> GaussianActor | DeterministicActor:
        return (GaussianActor if self.stochastic else DeterministicActor)(self.action_size, self.actor_features)

    def parts(self) -> dict[str, Part]:
        return {"actor": lambda key, observation, action: self.actor.init(key, observation)}

    def actor_loss(self, actor: Any, batch: Batch) -> tuple[jax.Array, Info]:
        """Squared error (mean over action dimensions), or negative log-likelihood."""
        chex.assert_rank([batch.observations, batch.actions], 2)
        policy = self.actor.apply(actor, batch.observations)
        by_likelihood = self.stochastic or self.DISCRETE
        if not by_likelihood:
            chex.assert_equal_shape([policy, batch.actions])
        loss = -policy.log_prob(batch.actions) if by_likelihood else (policy - batch.actions) ** 2
        return loss.mean(), {"actor/loss": loss.mean()}

    def update(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """One gradient step."""
        actor, info = gradient(self.actor_loss, state.params["actor"], batch)
        return self.descend(state, {"actor": actor}, step), info

    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        policy = self.actor.apply(actor, observations)
        return policy.distribution.loc if self.stochastic else policy


@dataclasses.dataclass(frozen=True)
class DiscreteBC(BC):
    """Behaviour cloning of discrete actions, by maximum likelihood."""

    DISCRETE = True

    def check(self) -> None:
        super().check()
        if self.stochastic:
            raise ValueError("stochastic chooses between continuous policies: leave it out, the actions are discrete")

    @property
    def actor(self) -> CategoricalActor:
        return CategoricalActor(self.action_size, self.actor_features)

    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        return self.actor.apply(actor, observations).mode()
