"""JAX-native environments in gymnax's API, registered with gymnax on import."""

import gymnax

from envs.diagonal import Diagonal
from envs.gridworld import Expert, GridWorld
from envs.rollout import Rollout, expert_policy, rollout
from envs.takeball import Takeball, TakeballPermuted

ENVIRONMENTS = {"Diagonal-v0": Diagonal, "Takeball-v0": Takeball, "TakeballPermuted-v0": TakeballPermuted}

for _name, _class in ENVIRONMENTS.items():
    if _name not in gymnax.registered_envs:  # gymnax refuses to register a name twice
        gymnax.register(_name, _class)

__all__ = [
    "ENVIRONMENTS",
    "Diagonal",
    "Expert",
    "GridWorld",
    "Rollout",
    "Takeball",
    "TakeballPermuted",
    "expert_policy",
    "rollout",
]
