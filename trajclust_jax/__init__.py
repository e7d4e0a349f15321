# ruff: noqa: F401 (of the names below, which are imported on demand)
"""Policy-based trajectory clustering in offline RL, in JAX.

What most programs need stands here: data, clusterers, learners, and `fit`, which trains them. Each is imported when it
is first asked for; the packages below have the rest.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "clustering": ("CAAE", "DEC", "BehaviourSet", "EmpoEM", "PGKmeans", "Sorl", "SummaryKmeans", "VAEKmeans"),
    "data": ("DataError", "Dataset", "Trajectories", "from_episodes", "load", "make", "validate"),
    "evaluation": ("act",),
    "learners": ("AWAC", "BC", "BCQ", "CQL", "EMPO", "IQL", "PLAS", "SQIL", "TD3BC", "BRACv", "LBRACv"),
    "metrics": ("scores",),
    "training": ("Fit", "fit"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_HOME |= dict.fromkeys(("C4", "DR3", "Clustered", "LayerNorm", "Offline"), "learners")

__all__ = sorted(_HOME)

if TYPE_CHECKING:  # what editors and type checkers see
    from trajclust_jax.clustering import CAAE, DEC, BehaviourSet, EmpoEM, PGKmeans, Sorl, SummaryKmeans, VAEKmeans
    from trajclust_jax.data import DataError, Dataset, Trajectories, from_episodes, load, make, validate
    from trajclust_jax.evaluation import act
    from trajclust_jax.learners import (
        AWAC,
        BC,
        BCQ,
        C4,
        CQL,
        DR3,
        EMPO,
        IQL,
        PLAS,
        SQIL,
        TD3BC,
        BRACv,
        Clustered,
        LayerNorm,
        LBRACv,
        Offline,
    )
    from trajclust_jax.metrics import scores
    from trajclust_jax.training import Fit, fit


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
