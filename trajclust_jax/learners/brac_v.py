"""BRAC-v (Wu, Tucker and Nachum, "Behavior Regularized Offline Reinforcement Learning", 2019) with KL.

first, for `behaviour_updates` gradient steps:
    behaviour   maximise  log b(a | s)
then, with pi <- b, for each gradient step:
    critics   Q_i(s, a) -> r + gamma (min_j Q'_j(s', a') - beta KL(pi || b)(s')),  a' ~ pi(. | s')
    actor     minimise  beta KL(pi || b)(s) - min_j Q_j(s, a''),  a'' ~ pi(. | s)
    targets   Q' <- Q' + tau (Q - Q')
"""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from trajclust_jax.lazy import lazy
from trajclust_jax.learners.learner import ActorCritic, Backup, LearnerState, Part, Stage, gradient
from trajclust_jax.learners.sampling import Batch
from trajclust_jax.networks import TanhGaussianActor, sample_squashed
from trajclust_jax.training import Info
from trajclust_jax.validation import check_above

distrax = lazy("distrax")

MARGIN = 1e-3  # the data's actions are taken as inside their bounds by so much: the tanh must be undone


@dataclasses.dataclass(frozen=True)
class BRACv(ActorCritic):
    """Settings; the defaults are those that LBRAC-v's release has for its own method, whose baseline this is.

    That release's BRAC-v has other rates, and leaves Q out of the actor's first steps, so that pi comes near b before
    it counts: here pi begins as b. The KL is in closed form: pi and b are squashed by the same tanh, so that it is
    their Gaussians'. The release estimates it from 10 samples.
    """

    updates: int = 500_000
    behaviour_updates: int = 500_000
    """Gradient steps of the behaviour policy, before the others."""
    target_rate: float = 1e-3
    features: tuple[int, ...] = (300, 300, 300)
    """Hidden layers of the critics."""
    actor_features: tuple[int, ...] = (200, 200, 200)
    """Hidden layers of actor and behaviour."""
    learning_rate: float = 1e-4
    """Of the critics."""
    actor_rate: float = 5e-5
    """Of actor and behaviour."""
    penalty: float = 1.0
    """beta."""

    def check(self) -> None:
        super().check()
        check_above(self, 0, "actor_rate")

    @property
    def actor(self) -> TanhGaussianActor:
        return TanhGaussianActor(self.action_size, self.actor_features)

    def parts(self) -> dict[str, Part]:
        actor = lambda key, observation, action: self.actor.init(key, observation)
        return {"actor": actor, "behaviour": actor, "critics": self.init_critics}

    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage("behaviour", self.update_behaviour, self.behaviour_updates, uniform=True),
            Stage("train", self.update, self.updates, self.begin_as_behaviour),
        )

    def rate(self, part: str, step: jax.Array) -> float:
        return self.learning_rate if part == "critics" else self.actor_rate

    def divergence(self, policy: "distrax.Independent", behaviour: Any, observations: jax.Array) -> jax.Array:
        """`[B]`: KL(pi || b) (Eq. 9 of LBRAC-v), nats."""
        return policy.kl_divergence(self.actor.apply(behaviour, observations))

    def behaviour_loss(self, behaviour: Any, batch: Batch) -> tuple[jax.Array, Info]:
        """Negative log-likelihood of the data's actions."""
        actions = jnp.clip(batch.actions, -1 + MARGIN, 1 - MARGIN)
        of_gaussian = self.actor.apply(behaviour, batch.observations).log_prob(jnp.arctanh(actions))
        change = jnp.log1p(-(actions**2)).sum(-1)
        chex.assert_equal_shape([of_gaussian, change])
        loss = -(of_gaussian - change).mean()
        return loss, {"behaviour/loss": loss}

    def backup(self, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: jax.Array) -> Backup:
        """The policy's action, and the lesser of its target values less the penalty (Eq. 8); the key is consumed."""
        policy = self.actor.apply(params["actor"], batch.next_observations)
        actions, _ = sample_squashed(key, policy)
        next_values = self.values(targets["critics"], batch.next_observations, actions).min(0)
        penalty = self.penalty * self.divergence(policy, params["behaviour"], batch.next_observations)
        return Backup(actions, next_values - penalty)

    def actor_loss(self, actor: Any, params: dict[str, Any], batch: Batch, key: jax.Array) -> tuple[jax.Array, Info]:
        """Eq. 8; the key is consumed."""
        policy = self.actor.apply(actor, batch.observations)
        actions, _ = sample_squashed(key, policy)
        divergence = self.divergence(policy, params["behaviour"], batch.observations)
        values = self.values(params["critics"], batch.observations, actions).min(0)
        chex.assert_equal_shape([divergence, values, batch.rewards])
        divergence = divergence.mean()
        loss = self.penalty * divergence - values.mean()
        return loss, {"actor/loss": loss, "actor/divergence": divergence}

    def begin_as_behaviour(self, state: LearnerState) -> LearnerState:
        """The actor is the behaviour policy."""
        return state.replace(params={**state.params, "actor": jax.tree.map(jnp.copy, state.params["behaviour"])})

    def update_behaviour(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """One gradient step of the behaviour policy."""
        behaviour, info = gradient(self.behaviour_loss, state.params["behaviour"], batch)
        return self.descend(state, {"behaviour": behaviour}, step), info

    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        return jnp.tanh(self.actor.apply(actor, observations).distribution.loc)
