"""What commands leave in folders, read back in Python."""

import json
import os
from pathlib import Path
from typing import Any

from trajclust_experiments.catalogue import CATALOGUE
from trajclust_jax.checkpoint import CheckpointError, load_tree
from trajclust_jax.data import DataError
from trajclust_jax.learners import Learner, Scaling, TrainedPolicy


def load_policy(folder: str | os.PathLike) -> tuple[Learner, TrainedPolicy]:
    """The learner and the policies, of all seeds (and clusters), that `trajclust train` left in a folder.

    `evaluation.act(learner, policy, observations)` acts with them.

    Raises:
        DataError: for a folder without them.
    """
    try:
        summary = json.loads((Path(folder) / "summary.json").read_text())
        settings = {name: _tuples(value) for name, value in summary["settings"]["learner"].items()}
        learner = CATALOGUE[summary["learner"]].algorithm(**settings)
        stored = load_tree(Path(folder) / "policy")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, CheckpointError) as error:
        raise DataError(f"{folder}: no result of trajclust train there ({error})") from None
    return learner, TrainedPolicy(stored["actor"], Scaling(**stored["scaling"]))


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
