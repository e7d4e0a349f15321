"""`trajclust data`: builds, describes and converts datasets."""

from pathlib import Path

import numpy as np

from trajclust_experiments.commands.output import check_writable
from trajclust_experiments.commands.printing import print_json
from trajclust_experiments.commands.rows import label_source, with_labels
from trajclust_experiments.progress import Progress
from trajclust_experiments.usage import UsageError
from trajclust_jax.data import (
    Codebook,
    Dataset,
    check_minari_target,
    load,
    make,
    save_minari,
    save_npz,
    suspicious,
)


def make_dataset(
    name: str, out: str | None, root: Path | None, size: int | None, seed: int, noise: float | None, json: bool
) -> None:
    """Makes a registered dataset, writes it, and prints its description."""
    out = f"trajclust/{name}-v0" if out is None else out
    check_target(out, root)
    options = {} if noise is None else {"noise": noise}
    with Progress().waiting(f"{name}: collecting episodes"):
        dataset = make(name, size, seed, **options)
    describe(dataset, write(dataset, out, root), json)


def convert(dataset: str, target: str, labels: Path | None, root: Path | None, json: bool) -> None:
    """Writes a dataset in another format, and prints its description."""
    check_target(target, root)
    found = labelled(dataset, labels)
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


def write(dataset: Dataset, target: str, root: Path | None) -> str:
    """Writes an .npz or a Minari dataset, and says where."""
    if target.endswith(".npz"):
        save_npz(dataset, target)
        return target
    return str(save_minari(dataset, target, root))


def describe(dataset: Dataset, place: str, as_json: bool) -> None:
    """Prints shapes, lengths, labels, and where a dataset is from."""
    trajectories = dataset.trajectories
    lengths = np.asarray(trajectories.lengths)
    observations = trajectories.observations
    description = {
        "place": place,
        "name": dataset.spec.name,
        "source": dataset.provenance.source,
        "parameters": dataset.provenance.parameters,
        "seed": dataset.provenance.seed,
        "fingerprint": dataset.provenance.fingerprint,
        "trajectories": trajectories.num_trajectories,
        "steps": int(lengths.sum()),
        "lengths": {"min": int(lengths.min()), "mean": float(lengths.mean()), "max": int(lengths.max())},
        "terminated": int(np.asarray(trajectories.terminated).sum()),
        "observation_shape": list(trajectories.observation_shape),
        "distinct_observations": len(observations.table) if isinstance(observations, Codebook) else None,
        "actions": f"{trajectories.num_actions} discrete" if trajectories.discrete else f"{trajectories.action_size}-d",
        "labels": label_source(dataset),
        "policies": None if dataset.labels is None else np.bincount(dataset.labels).tolist(),
        "policy_names": list(dataset.spec.policy_names),
        "warnings": suspicious(trajectories),
    }
    if as_json:
        return print_json(description)
    for name, value in description.items():
        print(f"{name.replace('_', ' '):<22} {value}")
    return None
