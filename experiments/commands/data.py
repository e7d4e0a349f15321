"""`trajclust data`: builds, describes and converts datasets."""

from pathlib import Path
from typing import Any

import numpy as np

from trajclust_experiments.commands.output import check_unread, check_writable
from trajclust_experiments.commands.printing import folded, print_json, print_rows
from trajclust_experiments.commands.rows import label_source, with_labels
from trajclust_experiments.progress import Progress
from trajclust_experiments.usage import UsageError
from trajclust_jax.data import (
    Codebook,
    Dataset,
    check_minari_target,
    load,
    make,
    returns,
    save_minari,
    save_npz,
    stated_by,
    suspicious,
)


def make_dataset(
    name: str, out: str | None, root: Path | None, size: int | None, seed: int, noise: float | None, json: bool
) -> None:
    """Makes a registered dataset, writes it, and prints its description."""
    out = f"trajclust/{name}-v0" if out is None else out
    check_target(out, root)
    check_same(out, name)
    options = {} if noise is None else {"noise": noise}
    with Progress().waiting(f"{name}: collecting episodes"):
        dataset = make(name, size, seed, **options)
    describe(dataset, write(dataset, out, root), json)


def convert(dataset: str, target: str, labels: Path | None, root: Path | None, json: bool) -> None:
    """Writes a dataset in another format, and prints its description."""
    check_target(target, root)
    check_unread(target, target, dataset, labels)
    found = labelled(dataset, labels)
    check_same(target, found.spec.name, found.provenance.parameters.get("relabelled"))
    describe(found, write(found, target, root), json)


def info(dataset: str, labels: Path | None, json: bool) -> None:
    """Prints a dataset's description."""
    describe(labelled(dataset, labels), dataset, json)


def labelled(source: str, labels: Path | None) -> Dataset:
    """A dataset, with the labels of a file where one is given."""
    dataset = load(source)
    return dataset if labels is None else with_labels(dataset, labels)


def check_target(target: str, root: Path | None) -> None:
    """Refuses what `write` would, before long work."""
    if target.endswith(".npz"):
        if Path(target).is_dir():
            raise UsageError(f"{target} is a folder: give a file name")
        check_writable(Path(target).parent, str(Path(target).parent))
    else:
        check_minari_target(target, root)


def check_same(target: str, name: str, relabelled: dict[str, Any] | None = None) -> None:
    """Refuses a file that holds another dataset than that of this name, with the rewards of this relabelling."""
    if target.endswith(".npz") and Path(target).exists():
        stated = stated_by(target)
        if stated is None or (stated[0].name, stated[1].parameters.get("relabelled")) != (name, relabelled):
            held = "another file" if stated is None else f"the dataset {stated[0].name}"
            raise UsageError(f"{target} is {held}: remove it, or name another")


def write(dataset: Dataset, target: str, root: Path | None) -> str:
    """Writes an .npz or a Minari dataset, and says where."""
    if target.endswith(".npz"):
        save_npz(dataset, target)
        return target
    return str(save_minari(dataset, target, root))


def describe(dataset: Dataset, place: str, as_json: bool) -> None:
    """Prints how many trajectories, their lengths, returns and spaces, labels, and where a dataset is from."""
    description = _described(dataset, place)
    if as_json:
        return print_json(description)
    print_rows({name: text for name, text in _in_words(description).items() if text})
    for warning in description["warnings"]:
        print(folded(f"warning: {warning}", "", "  "))
    return None


def _described(dataset: Dataset, place: str) -> dict[str, Any]:
    trajectories = dataset.trajectories
    lengths = np.asarray(trajectories.lengths)
    observations, mask = trajectories.observations, np.asarray(trajectories.mask)
    distinct = isinstance(observations, Codebook)
    return {
        "place": place,
        "name": dataset.spec.name,
        "source": dataset.provenance.source,
        "parameters": dataset.provenance.parameters,
        "seed": dataset.provenance.seed,
        "fingerprint": dataset.provenance.fingerprint,
        "trajectories": trajectories.num_trajectories,
        "steps": int(lengths.sum()),
        "lengths": _spread(lengths),
        "returns": _spread(returns(trajectories)),
        "terminated": int(np.asarray(trajectories.terminated).sum()),
        "observation_shape": list(trajectories.observation_shape),
        "observation_range": _range(observations.table if distinct else observations, None if distinct else mask),
        "distinct_observations": len(observations.table) if distinct else None,
        "actions": f"{trajectories.num_actions} discrete" if trajectories.discrete else f"{trajectories.action_size}-d",
        "action_range": None if trajectories.discrete else _range(trajectories.actions, mask),
        "labels": label_source(dataset),
        "policies": None if dataset.labels is None else np.bincount(dataset.labels).tolist(),
        "policy_names": list(dataset.spec.policy_names),
        "warnings": suspicious(trajectories),
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"min": values.min().item(), "mean": float(values.mean()), "max": values.max().item()}


def _range(values: Any, mask: np.ndarray | None) -> list[float]:
    """The smallest and the largest number, of real steps; large data are not copied for it."""
    values = np.asarray(values)
    where = True if mask is None else mask.reshape(*mask.shape, *[1] * (values.ndim - mask.ndim))
    first = values.flat[0]  # real: every trajectory has a step
    return [float(values.min(initial=first, where=where)), float(values.max(initial=first, where=where))]


def _in_words(found: dict[str, Any]) -> dict[str, str]:
    """A description for people; empty where there is nothing to say."""
    spread = lambda values: "{min:,.6g} to {max:,.6g}, mean {mean:,.6g}".format(**values)
    made = {"seed": found["seed"], **found["parameters"]}
    observed = f"{found['observation_shape']}, from {{:.4g}} to {{:.4g}}".format(*found["observation_range"])
    if found["distinct_observations"] is not None:
        observed += f"; {found['distinct_observations']:,} distinct ones"
    acted = found["actions"]
    if found["action_range"] is not None:
        acted += ", from {:.4g} to {:.4g}".format(*found["action_range"])
    cut = found["trajectories"] - found["terminated"]
    labelled = found["labels"] or "none"
    if found["policies"] is not None:
        names = found["policy_names"] or [f"policy {k}" for k in range(len(found["policies"]))]
        labelled += ": " + ", ".join(f"{name} {n:,}" for name, n in zip(names, found["policies"], strict=False))
    return {
        "name": found["name"],
        "place": found["place"],
        "source": found["source"],
        "made with": ", ".join(f"{name} {value}" for name, value in made.items() if value is not None),
        "trajectories": f"{found['trajectories']:,}, of {found['steps']:,} steps",
        "lengths": spread(found["lengths"]),
        "returns": spread(found["returns"]),
        "ends": f"{found['terminated']:,} by the environment, {cut:,} cut by a limit",
        "observations": observed,
        "actions": acted,
        "labels": labelled,
        "fingerprint": found["fingerprint"],
    }
