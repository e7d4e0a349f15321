"""What a dataset file states about its arrays: spec and provenance, as JSON values."""

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from trajclust_jax.data.dataset import fingerprint
from trajclust_jax.data.types import DataError, Dataset, Provenance, Spec
from trajclust_jax.data.validation import validate, validate_labels, validate_likelihoods

FORMAT = "trajclust-1"
_CHECKSUM = "true_log_likelihoods"  # the fingerprint covers everything else


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
    if dataset.true_log_likelihoods is not None:
        described[_CHECKSUM] = _checksum(dataset.true_log_likelihoods)
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
        spec, provenance = described["spec"], Provenance(**described["provenance"])
        spec = Spec(spec["name"], tuple(spec["policy_names"]))
        texts = (spec.name, *spec.policy_names, provenance.source, provenance.fingerprint)
        if not all(isinstance(text, str) for text in texts) or not isinstance(provenance.parameters, dict):
            raise TypeError("a text or an object is of another kind")
        return spec, provenance
    except (TypeError, KeyError) as error:
        raise DataError(f"metadata is damaged ({error!r}): write the dataset again") from None


def check(dataset: Dataset, described: Any = None) -> None:
    """Checks a dataset that was not made by `build_dataset`: read from a file, or about to be written to one.

    Args:
        dataset: what to check.
        described: what the file says of it, as `describe` made it.

    Raises:
        DataError: for invalid arrays, or where the provenance's fingerprint or `described`'s checksum, if there is one,
            is not the content's.
    """
    validate(dataset.trajectories)
    n = dataset.trajectories.num_trajectories
    labels, likelihoods, stated = dataset.labels, dataset.true_log_likelihoods, dataset.provenance.fingerprint
    if labels is not None and (labels.dtype != np.int32 or not np.array_equal(validate_labels(labels, n), labels)):
        raise DataError("labels are not int32 0..k*-1 that all occur: make the dataset again with build_dataset")
    if likelihoods is not None:
        validate_likelihoods(likelihoods, n, dataset.num_policies)
    if stated and stated != fingerprint(dataset.trajectories, labels):
        raise DataError(
            f"fingerprint {stated[:12]}... is not that of the content, which was changed: "
            "make the dataset again with build_dataset"
        )
    stated = (described or {}).get(_CHECKSUM)
    if stated and (likelihoods is None or stated != _checksum(likelihoods)):
        raise DataError(f"{_CHECKSUM} is not what was written, it was changed: write the dataset again")


def _checksum(array: np.ndarray) -> str:
    """sha256 (hex) of an array's dtype, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape};".encode())
    digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
