"""What a dataset file says about its arrays: spec and provenance, as JSON values."""

import dataclasses
import json
from typing import Any

from trajclust_jax.data.types import DataError, Dataset, Provenance, Spec, fingerprint
from trajclust_jax.data.validation import validate, validate_labels

FORMAT = "trajclust-1"


def describe(dataset: Dataset) -> dict[str, Any]:
    """JSON values that `restore` turns back into spec and provenance.

    Raises:
        DataError: on anything `check` rejects, and for parameters that are not JSON values.
    """
    check(dataset)
    described = {
        "format": FORMAT,
        "spec": dataclasses.asdict(dataset.spec),
        "provenance": dataclasses.asdict(dataset.provenance),
    }
    try:
        return json.loads(json.dumps(described))
    except (TypeError, ValueError) as error:
        raise DataError(f"provenance.parameters is not JSON: {error}") from None


def restore(described: Any) -> tuple[Spec, Provenance]:
    """The inverse of `describe`.

    Raises:
        DataError: if this is not what `describe` made.
    """
    try:
        spec, provenance = described["spec"], described["provenance"]
        return Spec(spec["name"], tuple(spec["policy_names"])), Provenance(**provenance)
    except (TypeError, KeyError) as error:
        raise DataError(f"metadata is damaged ({error!r}): write the dataset again") from None


def check(dataset: Dataset) -> None:
    """Checks a dataset that was not made by `build_dataset`: read from a file, or about to be written to one.

    Raises:
        DataError: for invalid arrays, or where the provenance's fingerprint, if it has one, is not the content's.
    """
    validate(dataset.trajectories)
    n = dataset.trajectories.num_trajectories
    labels, likelihoods, stated = dataset.labels, dataset.true_log_likelihoods, dataset.provenance.fingerprint
    if labels is not None:
        validate_labels(labels, n)
    if likelihoods is not None and (likelihoods.ndim != 2 or len(likelihoods) != n):
        raise DataError(f"true_log_likelihoods has shape {likelihoods.shape}: give [N, k*] with N = {n}")
    if stated and stated != fingerprint(dataset.trajectories, labels):
        raise DataError(
            f"fingerprint {stated[:12]}... is not that of the content, which was changed: "
            "make the dataset again with build_dataset"
        )
