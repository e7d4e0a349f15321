"""More seeds of a finished cell: only the new ones are computed, and the two bodies become one record's.

A seed's random numbers depend on nothing but the seed, so what it gives does not depend on which others it ran beside.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

# What a body may have, to be joined. A body with anything else is computed for all seeds at once, such as that of
# learners on rewards of a relabeller of their own seed: they are trained beside each other, as clusters of the first.
_OF_EACH = ("scores", "health", "warnings", "ambiguity", "diverged", "centre_scores", "centre_returns")
_OF_EACH += ("episode_returns", "routes", "paths")  # entries a seed, in lists or dicts of lists
_OF_THE_FIRST = ("sample", "cluster_returns", "maps")
_OF_NONE = ("policies", "config", "num_steps", "behaviours", "clustering", "map_of", "not_applicable")  # seeds or not
_BODY = {*_OF_EACH, *_OF_THE_FIRST, *_OF_NONE, "history", "timing", "arrays"}
_OF_A_RECORD = {"id", "preset", "cell", "data", "environment", "parts", "schema", "checksum"}


def can_be_joined(body: Mapping[str, Any]) -> bool:
    """Whether the body of a cell, or its record, has nothing but what further seeds can be added to."""
    return set(body) <= _BODY | _OF_A_RECORD


def joined(
    first: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    rest: Mapping[str, Any],
    *,
    seeds: Sequence[int],
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """The body for the seeds of `first`, a record with its `arrays`, and then those of `rest`, a body just computed.

    What only one of them has, such as a score that older records do not know, is left out. Seconds are added up; its
    `parts` keep them apart.

    Args:
        seeds: those of `rest`.
        environment: where `rest` was computed.
    """
    body: dict[str, Any] = {}
    for name in rest:
        if name == "arrays":
            both = arrays.keys() & rest["arrays"].keys()
            body["arrays"] = {key: np.concatenate([arrays[key], rest["arrays"][key]]) for key in sorted(both)}
        elif name not in first:
            continue
        elif name == "history":
            body["history"] = _history(first["history"], rest["history"])
        elif name == "timing":
            body["timing"] = _timing(first["timing"], rest["timing"])
        elif name in _OF_EACH:
            body[name] = _appended(first[name], rest[name])
        else:
            body[name] = first[name]
    body["parts"] = [*parts(first), {"seeds": list(seeds), "environment": environment, "timing": rest["timing"]}]
    return body


def parts(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The runs a record was joined of, each with `seeds`, `environment` and `timing`; of most records the one."""
    one = {"seeds": record["cell"].get("seeds", []), **{name: record[name] for name in ("environment", "timing")}}
    return record.get("parts", [one])


def _appended(first: Any, rest: Any) -> Any:
    if isinstance(first, Mapping):
        return {name: _appended(first[name], rest[name]) for name in first if name in rest}
    return [*first, *rest]


def _history(first: Sequence[dict], rest: Sequence[dict]) -> list[dict[str, Any]]:
    """Iteration by iteration; seeds that had all converged stay as they were, as they do beside seeds that have not."""
    phases = list(dict.fromkeys(entry["phase"] for entry in (*first, *rest)))
    history = []
    for phase in phases:
        both = [[entry for entry in entries if entry["phase"] == phase] for entries in (first, rest)]
        for one, other in zip_longest(*both):
            longer = one or other
            each = _appended(
                *(_metrics(entry or entries[-1]) for entry, entries in zip((one, other), both, strict=True))
            )
            history.append({"phase": phase, "iteration": longer["iteration"], **each})
    return history


def _metrics(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in ("phase", "iteration")}


def _timing(first: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    """Seconds of both; memory of the larger."""
    total = {name: first[name] + rest[name] for name in rest if name.endswith("_seconds") and name in first}
    total |= {name: max(first[name], rest[name]) for name in ("device_bytes",) if name in first and name in rest}
    return {**total, "resumed": first.get("resumed", False) or rest.get("resumed", False)}
