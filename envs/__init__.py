"""JAX-native environments in gymnax's API, registered with gymnax on import."""

from functools import cache
from typing import Any

from trajclust_envs._gymnax import gymnax
from trajclust_envs.diagonal import Diagonal
from trajclust_envs.extra import Extra, ExtraFixed
from trajclust_envs.gates import Gates
from trajclust_envs.gridworld import Expert, GridWorld
from trajclust_envs.navigation import Navigation, Ways, drawn_subgoals, routes
from trajclust_envs.pathfollowing import Pathfollowing
from trajclust_envs.pointmaze import PointMaze
from trajclust_envs.rollout import (
    Rollout,
    draw_observations,
    expert_policy,
    expert_rollout,
    expert_rollouts,
    first_steps,
    rollout,
)
from trajclust_envs.takeball import Takeball, TakeballPermuted

ENVIRONMENTS = {
    "Diagonal-v0": Diagonal,
    "Takeball-v0": Takeball,
    "TakeballPermuted-v0": TakeballPermuted,
    "Extra-v0": Extra,
    "ExtraFixed-v0": ExtraFixed,
    "Pathfollowing-v0": Pathfollowing,
    "Navigation-v0": Navigation,
    "Gates-v0": Gates,
    "PointMaze-v0": PointMaze,
}

for _name, _class in ENVIRONMENTS.items():
    if _name not in gymnax.registered_envs:  # gymnax refuses to register a name twice
        gymnax.register(_name, _class)


@cache
def make(name: str, **options: Any) -> Any:
    """An environment, made once for each name and options: every new object compiles its own programs."""
    return ENVIRONMENTS[name](**options)


__all__ = [
    "ENVIRONMENTS",
    "Diagonal",
    "Expert",
    "Extra",
    "ExtraFixed",
    "Gates",
    "GridWorld",
    "Navigation",
    "Pathfollowing",
    "PointMaze",
    "Rollout",
    "Takeball",
    "TakeballPermuted",
    "Ways",
    "draw_observations",
    "drawn_subgoals",
    "expert_policy",
    "expert_rollout",
    "expert_rollouts",
    "first_steps",
    "make",
    "rollout",
    "routes",
]
