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
from trajclust_jax.learners.learner import ActorCritic, Backup, LearnerState, Part, Stage, gradient, step_keys
from trajclust_jax.learners.sampling import Batch
from trajclust_jax.networks import TanhGaussianActor, sample_squashed, squashed_log_prob
from trajclust_jax.training import Info
from trajclust_jax.validation import check_above, check_at_least

distrax = lazy("distrax")


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
    warm_updates: int = 0
    """Gradient steps after that of the critics alone, the policy staying the behaviour: a warm start."""
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
    value_penalty: float = 1.0
    """The share of the penalty that the critics' targets have; 0: the actor's alone (BRAC-p, policy regularisation)."""

    def check(self) -> None:
        super().check()
        check_above(self, 0, "actor_rate")
        check_at_least(self, 0, "warm_updates", "penalty", "value_penalty")

    @property
    def actor(self) -> TanhGaussianActor:
        return TanhGaussianActor(self.action_size, self.actor_features)

    def parts(self) -> dict[str, Part]:
        actor = lambda key, observation, action: self.actor.init(key, observation)
        return {"actor": actor, "behaviour": actor, "critics": self.init_critics}

    def stages(self) -> tuple[Stage, ...]:
        warm = Stage("warm", self.update_critics, self.warm_updates, self.begin_as_behaviour)
        return (
            Stage("behaviour", self.update_behaviour, self.behaviour_updates, uniform=True),
            *((warm,) if self.warm_updates else ()),
            Stage("train", self.update, self.updates, self.begin_as_behaviour),
        )

    def rate(self, part: str, step: jax.Array) -> float:
        return self.learning_rate if part == "critics" else self.actor_rate

    def pi(self, actor: Any, observations: jax.Array) -> "distrax.Independent":
        """The policy that is learned, at `[..., D]`: Gaussians of `[..., A]` before its tanh."""
        return self.actor.apply(actor, observations)

    def divergence(
        self, policy: "distrax.Independent", params: dict[str, Any], observations: jax.Array, trajectory: Any
    ) -> jax.Array:
        """`[B]`: KL(pi || b) at `[B, D]` of trajectories `[B]` (Eq. 9 of LBRAC-v's paper), nats."""
        del trajectory
        return policy.kl_divergence(self.actor.apply(params["behaviour"], observations))

    def behaviour_loss(self, behaviour: Any, batch: Batch) -> tuple[jax.Array, Info]:
        """Negative log-likelihood of the data's actions."""
        loss = -squashed_log_prob(self.actor.apply(behaviour, batch.observations), batch.actions).mean()
        return loss, {"behaviour/loss": loss}

    def backup(self, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: jax.Array) -> Backup:
        """The policy's action, and the lesser of its target values less the penalty (Eq. 8); the key is consumed."""
        policy = self.pi(params["actor"], batch.next_observations)
        actions, _ = sample_squashed(key, policy)
        next_values = self.values(targets["critics"], batch.next_observations, actions).min(0)
        divergence = self.divergence(policy, params, batch.next_observations, batch.trajectory)
        return Backup(actions, next_values - self.value_penalty * self.penalty * divergence)

    def actor_loss(self, actor: Any, params: dict[str, Any], batch: Batch, key: jax.Array) -> tuple[jax.Array, Info]:
        """Eq. 8 of LBRAC-v's paper; the key is consumed."""
        policy = self.pi(actor, batch.observations)
        actions, _ = sample_squashed(key, policy)
        divergence = self.divergence(policy, params, batch.observations, batch.trajectory)
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

    def update_critics(self, state: LearnerState, batch: Batch, step: jax.Array) -> tuple[LearnerState, Info]:
        """One gradient step of the critics."""
        (key,) = step_keys(state, step, 1)
        critics, info = gradient(self.critic_loss, state.params["critics"], state.params, state.targets, batch, key)
        return self.lag(self.descend(state, {"critics": critics}, step)), info

    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        return jnp.tanh(self.pi(actor, observations).distribution.loc)
