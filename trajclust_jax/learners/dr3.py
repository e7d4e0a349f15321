"""DR3, a plug-in for any learner with critics (Kumar et al., "DR3: Value-Based Deep Reinforcement Learning Requires
Explicit Regularization", 2022).

    critics   the learner's loss + c_0 mean phi(s, a) . phi(s', a'),   phi what the critic's last layer sees,
              a' the action that the TD target values
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from trajclust_jax.learners.learner import ActorCritic, PlugIn
from trajclust_jax.learners.sampling import Batch
from trajclust_jax.training import Info
from trajclust_jax.validation import check_at_least


@dataclasses.dataclass(frozen=True)
class DR3(PlugIn):
    """Settings. Both features carry gradients; after a terminal step nothing is valued, and nothing is added."""

    feature_weight: float = 1e-3
    """c_0."""

    def check(self) -> None:
        super().check()
        if not isinstance(self, ActorCritic):
            raise ValueError("dr3 needs a learner that values an action at the next state")
        check_at_least(self, 0, "feature_weight")

    def critic_loss(
        self, critics: Any, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: Any
    ) -> tuple[jax.Array, Info]:
        """The learner's, and the features' inner products; the key is the learner's."""
        loss, info = super().critic_loss(critics, params, targets, batch, key)
        actions = jax.lax.stop_gradient(self.backup(params, targets, batch, key).actions)  # as the learner drew them
        features = self.penultimate(critics, batch.observations, batch.actions)
        next_features = self.penultimate(critics, batch.next_observations, actions)
        products = jnp.where(batch.terminated, 0, (features * next_features).sum(-1))  # [2, B]
        return loss + self.feature_weight * products.mean(-1).sum(), info | {"critic/coadaptation": products.mean()}
