"""Files with a value a trajectory, which people open, sort, filter and save: assignments.csv and files of labels.

What belongs to which trajectory is said by the column `trajectory`, never by the order of the rows.
"""

import contextlib
import csv
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trajclust_jax.data import DataError, Dataset, fingerprint, validate_labels

GUESSED = "guessed: "  # begins what `label_source` says of labels that may be wrong
_NAMED = 3  # trajectories that a message names


def read_assignments(path: Path, num_trajectories: int, num_clusters: int) -> np.ndarray:
    """`[N]` int64 in 0..K-1: the column `cluster` of an assignments.csv, in the order of its column `trajectory`.

    Raises:
        DataError: for a file that cannot be read, that has not every trajectory once, or other clusters than 0..K-1.
    """
    with _located(path):
        rows = _read_csv(path, "cluster", "trajectory")
        texts = [rows["cluster"][row] for row in _order(rows["trajectory"], num_trajectories)]
        clusters = [_whole(text) for text in texts]
        for trajectory, (cluster, text) in enumerate(zip(clusters, texts, strict=True)):
            if cluster is None or not 0 <= cluster < num_clusters:
                raise DataError(
                    f"cluster of trajectory {trajectory} is {text!r}: give whole numbers from 0 to {num_clusters - 1}"
                )
        return np.array(clusters, np.int64)


def with_labels(dataset: Dataset, path: Path) -> Dataset:
    """The dataset with the true policies that a file names, in place of the labels that it may have.

    The file is a .csv with a column `label` (and a column `trajectory`, where the rows are in another order), a .txt
    with one label a line, a .npy `[N]`, or a .npz with an array `labels [N]`. Labels are strings or integers. The true
    policies' likelihoods go: they are of the policies that the dataset had.

    Raises:
        DataError: for a file that is none of these, has not one label a trajectory, or rows whose order is in doubt.
    """
    with _located(path):
        found = _read_labels(path, dataset.trajectories.num_trajectories)
        labels = validate_labels(found, len(found))
    names = tuple(np.unique(found).tolist()) if found.dtype.kind == "U" else ()
    provenance = dataclasses.replace(
        dataset.provenance,
        parameters={**dataset.provenance.parameters, "labels": f"given by {path.name} (exact)"},
        fingerprint=fingerprint(dataset.trajectories, labels),
    )
    spec = dataclasses.replace(dataset.spec, policy_names=names)
    return dataclasses.replace(dataset, labels=labels, spec=spec, provenance=provenance, true_log_likelihoods=None)


def label_source(dataset: Dataset) -> str | None:
    """Where a dataset's labels are from, in words; None without labels. Guesses are called so."""
    if dataset.labels is None:
        return None
    if dataset.label_guess is not None:
        return GUESSED + dataset.label_guess
    return str(dataset.provenance.parameters.get("labels", "given by the dataset"))


def _read_labels(path: Path, count: int) -> np.ndarray:
    """`[N]` of whole numbers or strings, in the order of the trajectories."""
    kind = path.suffix.lower()
    if kind in (".npy", ".npz"):
        with open(path, "rb") as file:  # which NumPy leaves open where it is damaged
            labels = np.load(file, allow_pickle=False)
            if kind == ".npz":
                if "labels" not in labels:
                    raise DataError(f"has no array labels, but {', '.join(labels) or 'nothing'}: name it so")
                labels = labels["labels"]
        if labels.dtype.kind == "S":
            labels = np.char.decode(labels, "utf-8")
        if labels.shape != (count,):
            raise DataError(f"labels has shape {labels.shape}: give [{count}], one for each trajectory")
        return labels
    if kind == ".csv":
        rows = _read_csv(path, "label", optional="trajectory")
        texts = rows["label"]
        if "trajectory" in rows:
            texts = [texts[row] for row in _order(rows["trajectory"], count)]
        else:
            _check_order({name: column for name, column in rows.items() if name != "label"})
    elif kind == ".txt":
        texts = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    else:
        raise DataError("is no .csv, .txt, .npy or .npz file: give one of these")
    if len(texts) != count:
        raise DataError(f"has {len(texts)} labels, but there are {count} trajectories: give one for each")
    texts = [text.strip() for text in texts]
    missing = next((n for n, text in enumerate(texts) if text.lower() in ("", "nan")), None)
    if missing is not None:
        raise DataError(f"label of trajectory {missing} is {texts[missing] or 'empty'}: give one for each")
    numbers = [_whole(text) for text in texts]
    if None in numbers:
        return np.array(texts)
    spelt = [re.sub(r"(?<=\d)\.0*$", "", text) for text in texts]  # spreadsheets write 2 as 2.0
    return np.array(spelt if len(set(spelt)) > len(set(numbers)) else numbers)  # 01 and 1 are two names


def _read_csv(path: Path, *columns: str, optional: str | None = None) -> dict[str, list[str]]:
    """All columns as text, by their names in lower case. Spreadsheets may have written `;` or tabs between them.

    Raises:
        DataError: where not each of `columns` is there once, or `optional` more often.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter=max(",;\t", key=header.count), restval="")
        names = reader.fieldnames or ()
        rows = [row for row in reader if any(row.values())]
    found = [name.strip().lower() for name in names]
    for name in (*columns, optional):
        if found.count(name) > 1 or (name in columns and name not in found):
            many = "no column" if name not in found else "several columns"
            raise DataError(f"has {many} {name!r}, but {', '.join(map(str.strip, names)) or 'nothing'}: give one")
    return {lower: [row[name] for row in rows] for lower, name in zip(found, names, strict=True)}


def _check_order(columns: dict[str, list[str]]) -> None:
    """Raises DataError where a column, such as a sorted table's index, numbers the rows in another order than theirs.

    It may be called anything, or nothing: its numbers tell, from 0 or 1.
    """
    for name, texts in columns.items():
        numbers = [_whole(text) for text in texts]
        inorder = [[*range(first, first + len(numbers))] for first in (0, 1)]
        if numbers not in inorder and None not in numbers and sorted(numbers) in inorder:
            column = f"column {name!r}" if name else "a column without a name"
            raise DataError(
                f"{column} numbers the rows, but not in order: name it 'trajectory' if it numbers the trajectories, "
                "from 0, or remove it"
            )


def _order(texts: list[str], count: int) -> list[int]:
    """The row of each trajectory. Raises DataError unless every one of 0..count-1 is there once."""
    rows: dict[int, int] = {}
    for row, text in enumerate(texts):
        trajectory = _whole(text)
        if trajectory is None or not 0 <= trajectory < count:
            raise DataError(f"trajectory {text!r} is no whole number from 0 to {count - 1}: restore the column")
        if trajectory in rows:
            raise DataError(f"trajectory {trajectory} stands there twice: leave one row for each")
        rows[trajectory] = row
    missing = [trajectory for trajectory in range(count) if trajectory not in rows]
    if missing:
        named = ", ".join(map(str, missing[:_NAMED])) + (", ..." if len(missing) > _NAMED else "")
        raise DataError(f"{len(missing)} of {count} trajectories are missing ({named}): restore their rows")
    return [rows[trajectory] for trajectory in range(count)]


def _whole(text: str) -> int | None:
    """The whole number that a cell holds (spreadsheets write 2 as 2.0), or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else None


@contextlib.contextmanager
def _located(path: Path) -> Iterator[None]:
    """Puts the file before a message, and makes a DataError of all that reading may raise."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damaged files fail in as many ways as there are libraries that read them
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}): save it again") from None
