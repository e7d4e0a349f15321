"""`trajclust assign`: new trajectories by the model of an earlier clustering."""

from pathlib import Path
from typing import Any

from trajclust_experiments.commands.clusters import (
    OUTPUTS,
    Split,
    describe_clusters,
    listed,
    print_clusters,
    print_end,
    write_clusters,
)
from trajclust_experiments.commands.data import labelled
from trajclust_experiments.commands.output import check_out, check_unread, resolve_out, staged
from trajclust_experiments.commands.printing import print_json
from trajclust_experiments.models import load_clustering
from trajclust_experiments.progress import Progress
from trajclust_jax.data import Dataset, rebased, suspicious
from trajclust_jax.records import environment

WRITTEN = OUTPUTS - {"model", "choice-of-k.png"}  # a folder that holds more is a clustering's, and stays


def assign(dataset: str, model: Path, labels: Path | None, split: Split | None, out: Path, json: bool) -> None:
    """Assigns a dataset and prints what was found; arguments as the command has them."""
    check_unread(out, f"--out {out}", model, dataset, labels)
    check_out(out, WRITTEN)
    summary = assign_dataset(labelled(dataset, labels), model, out, Progress(), split)
    if json:
        return print_json(summary)
    print_clusters(summary)
    print_end(summary)
    return None


def assign_dataset(
    dataset: Dataset, folder: Path, out: Path, progress: Progress, split: Split | None = None
) -> dict[str, Any]:
    """Assigns trajectories to the clusters of the model in `folder` and writes `out`; returns its summary.

    `out` receives what `cluster_dataset` writes, but for the model.

    Raises:
        DataError: no model there, data that it does not take, an `out` that holds other files.
    """
    model = load_clustering(folder)
    trajectories = rebased(dataset, model.offsets)
    out = resolve_out(out)
    with staged(out, WRITTEN) as work:
        with progress.waiting(f"{dataset.spec.name}: assigning"):
            clustering = model.assign(trajectories)
        summary = {
            "model": str(folder.resolve()),
            "model_id": model.id,
            "method": model.name,
            "dataset": dataset.spec.name,
            "fingerprint": dataset.provenance.fingerprint,
            **describe_clusters(dataset, clustering),
            "warnings": [*suspicious(trajectories), *model.doubts(trajectories, clustering)],
            "environment": environment(),
        }
        (work / "new").mkdir()
        write_clusters(work / "new", dataset, clustering, [], split, summary)
    return listed(summary, clustering, out)
