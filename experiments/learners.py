"""The offline learners that tables and `trajclust train` know by name."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from trajclust_jax.learners import AWAC, BC, CQL, IQL, TD3BC, BRACv, Learner, Offline

BLOCK = 1_000  # gradient steps between two looks at a training
_OFFLINE = {field.name for field in dataclasses.fields(Offline)} - {"learner"}
SCALED = ("HalfCheetah-v4", "Hopper-v4", "Walker2d-v4")  # IQL's authors scale the rewards of these alone


@dataclasses.dataclass(frozen=True)
class LearnerEntry:
    """A named learner, with what differs from its algorithm's defaults and how its data is prepared."""

    title: str
    summary: str
    algorithm: type[Learner]
    settings: Mapping[str, Any]

    def names(self) -> set[str]:
        """The settings that `build` takes."""
        return ({field.name for field in dataclasses.fields(self.algorithm)} | _OFFLINE) - {"action_size"}

    def defaults(self) -> dict[str, Any]:
        """The settings that a command may give, with this learner's values."""
        offline = self.build(1)
        values = {**dataclasses.asdict(offline.learner), **dataclasses.asdict(offline)}
        return {name: value for name, value in values.items() if name not in ("action_size", "learner", "sweep")}

    def build(self, action_size: int, **settings: Any) -> Offline:
        """The learner's training; `settings` of the algorithm or of `Offline` override those of the entry.

        Raises:
            ValueError: for a setting that neither has, or a value they refuse.
        """
        settings = {**self.settings, **settings}
        unknown = sorted(set(settings) - self.names())
        if unknown:
            raise ValueError(f"no setting {unknown[0]!r}: choose from {', '.join(sorted(self.names()))}")
        fields = {field.name: field for field in (*dataclasses.fields(Offline), *dataclasses.fields(self.algorithm))}
        settings = {name: _typed(fields[name], value) for name, value in settings.items()}
        offline = {name: settings.pop(name) for name in list(settings) if name in _OFFLINE}
        learner = self.algorithm(action_size, **settings)
        if "block" not in offline:
            updates = [stage.updates for stage in learner.stages()]
            offline["block"] = math.gcd(*updates) if max(updates) <= BLOCK else math.gcd(BLOCK, *updates)
            if offline["block"] < min(100, *updates):  # each block comes back to the host
                odd = next((each for each in updates if each % 100), updates[0])
                raise ValueError(f"{odd} updates: give a multiple of 100, or a block that divides all updates")
        return Offline(learner, **offline)


def _typed(field: dataclasses.Field, value: Any) -> Any:
    """A setting's value in its field's type: 1e5 is a whole number, too.

    Raises:
        ValueError: for a value of another type.
    """
    default, wanted = field.default, None
    if isinstance(default, bool):
        wanted = "true or false" if not isinstance(value, bool) else None
    elif isinstance(default, int):
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        wanted = "a whole number" if isinstance(value, bool) or not isinstance(value, int) else None
    elif value is None and default is None:
        pass
    elif isinstance(default, float) or field.type == float | None:
        wanted = "a number" if isinstance(value, bool) or not isinstance(value, (int, float)) else None
        value = float(value) if wanted is None else value
    elif isinstance(default, tuple) and field.name != "sweep":
        sizes = isinstance(value, (tuple, list)) and all(isinstance(size, int) and size > 0 for size in value)
        wanted = None if sizes else "a list of sizes [256,256]"
    if wanted is not None:
        raise ValueError(f"{field.name} is {value!r}: give {wanted}")
    return value


LEARNERS: dict[str, LearnerEntry] = {
    "bc": LearnerEntry("BC", "behaviour cloning by least squares", BC, {}),
    "bc_gaussian": LearnerEntry("BC, Gaussian", "behaviour cloning by maximum likelihood", BC, {"stochastic": True}),
    "bc_10": LearnerEntry("10% BC", "behaviour cloning of the tenth with the highest returns", BC, {"best": 0.1}),
    "td3_bc": LearnerEntry("TD3+BC", "a deterministic actor by Q, held near the data", TD3BC, {}),
    "iql": LearnerEntry(
        "IQL",
        "expectiles of Q, then advantage-weighted cloning (the authors' settings)",
        IQL,
        {"normalise": False, "orthogonal": True},
    ),
    "iql_corl": LearnerEntry(
        "IQL, CORL", "as iql, observations normalised, rewards as they are: CORL's settings but on Hopper", IQL, {}
    ),
    "awac": LearnerEntry("AWAC", "advantage-weighted cloning with a critic of the policy", AWAC, {}),
    "cql": LearnerEntry(
        "CQL", "SAC with Q pushed down off the data (young-geng's settings)", CQL, {"normalise": False}
    ),
    "cql_corl": LearnerEntry(
        "CQL, CORL",
        "as cql, with CORL's settings for locomotion",
        CQL,
        {"conservatism": 10.0, "actor_rate": 3e-5, "features": (256, 256, 256), "actor_features": (256, 256, 256)},
    ),
    "brac_v": LearnerEntry("BRAC-v", "values with a KL penalty to a cloned behaviour", BRACv, {"normalise": False}),
}


def suited_learner(name: str, environment: str | None) -> dict[str, Any]:
    """Settings of a learner that differ in an environment (a Gymnasium id)."""
    return {"reward_range": 1000.0} if name == "iql" and environment in SCALED else {}
