"""Layer normalisation of the critics as a plug-in (Yue et al., "Understanding, Predicting and Better Resolving Q-Value
Divergence in Offline-RL", 2023): after each hidden layer, before its ReLU."""

import dataclasses

from trajclust_jax.learners.learner import ActorCritic, PlugIn


@dataclasses.dataclass(frozen=True)
class LayerNorm(PlugIn):
    """A learner with critics has the setting; here it is on."""

    layer_norm: bool = True

    def check(self) -> None:
        super().check()
        if not isinstance(self, ActorCritic):
            raise ValueError("layer_norm needs a learner whose critics have it")
        if not self.layer_norm:
            raise ValueError("layer_norm is false: leave the plug-in out")
