"""What options of several commands mean: settings, and the clusters of an earlier clustering."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from trajclust_experiments.cells.evaluation import best_clusters
from trajclust_experiments.commands.rows import read_assignments
from trajclust_experiments.usage import UsageError
from trajclust_jax.data import DataError, Dataset, returns, steps_fingerprint
from trajclust_jax.records import tuples


def parsed(text: str) -> Any:
    """A JSON value (number, true, null, list), a number as Python has it (1. or .5), or a word.

    Raises:
        ValueError: for others, and in lists for NaN and infinity, which alone are words.
    """
    if re.fullmatch(r"[+-]?(\d+\.|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE):
        return float(text)
    if re.fullmatch(r"[+-]?[A-Za-z_][\w.+-]*", text) and text not in ("true", "false", "null"):
        return text
    return tuples(json.loads(text, parse_constant=_refused))


def _refused(text: str) -> None:
    raise ValueError(f"{text} is no number")


def parsed_settings(pairs: tuple[str, ...], option: str = "--set") -> dict[str, Any]:
    """`name=value` pairs, whose values are `parsed`.

    Raises:
        UsageError: for what is no pair, and for a name that is given twice.
    """
    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if name in settings:
            raise UsageError(f"{option} {name} is given twice: give it once")
        try:
            settings[name] = parsed(text)
        except ValueError:
            equals = ""
        if not equals:
            raise UsageError(
                f"{option} {pair}: give name=value with a number, true, false, null, a list [256,256] or a word"
            )
    return settings


def chosen_clusters(folder: Path, which: str, dataset: Dataset) -> tuple[np.ndarray, list[int]]:
    """Assignments `[N]` to the chosen clusters of an earlier `trajclust cluster`, and their numbers.

    `which` is `all`, `best` (the highest mean return) or a cluster's number. Other trajectories have -1.

    assignments.csv may have been sorted and saved: its column `trajectory` says what is whose.

    Raises:
        DataError: for a folder that is none of a clustering of this data, an assignments.csv that has not every
            trajectory once, a cluster that is not there, or `best` where no returns tell which it is.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        count, of = len(summary["clusters"]), {summary["fingerprint"], summary.get("trajectories_fingerprint")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"--clusters {folder}: no result of trajclust cluster there ({error})") from None
    trajectories = dataset.trajectories
    if not {dataset.provenance.fingerprint, steps_fingerprint(trajectories)} & of:
        raise DataError(f"--clusters {folder}: a clustering of other trajectories than {dataset.spec.name}")
    assignments = read_assignments(folder / "assignments.csv", trajectories.num_trajectories, count)
    episode_returns = returns(trajectories)
    filled = [k for k in range(count) if (assignments == k).any()]
    if which == "all":
        chosen = filled
    elif which == "best":
        chosen = best_clusters(assignments, episode_returns)
        if len(chosen) > 1:
            equal = ", ".join(map(str, chosen))
            raise DataError(f"--cluster best: the mean returns of clusters {equal} are equal; give all or a number")
    elif which.isdecimal() and int(which) in filled:
        chosen = [int(which)]
    else:
        numbers = ", ".join(map(str, filled))
        raise DataError(f"--cluster {which}: give best, all or one of {numbers}")
    renumbered = np.full(len(assignments), -1)
    for place, k in enumerate(chosen):
        renumbered[assignments == k] = place
    return renumbered, chosen
