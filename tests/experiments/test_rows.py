"""Files that people open, sort and save: aligned by trajectory, or refused in one line."""

import numpy as np
import pandas as pd
import pytest

from trajclust_experiments.commands.rows import label_source, read_assignments, with_labels
from trajclust_jax.data import DataError, load_npz, make, save_npz

CLUSTERS = [1, 0, 2, 1]
TABLE = "trajectory,cluster,return\n0,1,5.5\n1,0,2\n2,2,\n3,1,7\n"


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        "trajectory,cluster\n3,1\n0,1\n2,2\n1,0\n",  # sorted
        "cluster;trajectory;return\n1;0;5,5\n0;1;2\n2;2;\n1;3;7\n",  # a spreadsheet's
        "\ufefftrajectory\tcluster\r\n0\t1.0\r\n1\t0.0\r\n2\t2.0\r\n3.0\t1.0\r\n\r\n",
        " trajectory , cluster\n 0, 1\n1 ,0\n2,2\n3,1\n,\n",
    ],
)
def test_assignments_are_found_by_their_trajectory(tmp_path, text):
    path = tmp_path / "assignments.csv"
    path.write_bytes(text.encode())
    assert read_assignments(path, 4, 3).tolist() == CLUSTERS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TABLE.replace("3,1,7\n", ""), "1 of 4 trajectories are missing (3)"),
        (TABLE.replace("3,1", "2,1"), "trajectory 2 stands there twice"),
        (TABLE.replace("3,1", "4,1"), "trajectory '4' is no whole number from 0 to 3"),
        (TABLE.replace("3,1", "-1,1"), "trajectory '-1' is no whole number"),
        (TABLE.replace("3,1", "x,1"), "trajectory 'x' is no whole number"),
        (TABLE.replace("3,1", "3,3"), "cluster of trajectory 3 is '3': give whole numbers from 0 to 2"),
        (TABLE.replace("3,1", "3,-1"), "cluster of trajectory 3 is '-1'"),
        (TABLE.replace("3,1", "3,0.5"), "cluster of trajectory 3 is '0.5'"),
        (TABLE.replace("3,1", "3,"), "cluster of trajectory 3 is ''"),
        (TABLE.replace("3,1", "3,nan"), "cluster of trajectory 3 is 'nan'"),
        (TABLE.replace("3,1", "3,1e999"), "cluster of trajectory 3 is '1e999'"),
        (TABLE.replace("3,1,7", "3"), "cluster of trajectory 3 is ''"),
        (TABLE.replace("trajectory", "row"), "has no column 'trajectory', but row, cluster, return"),
        (TABLE.replace("return", "cluster"), "has several columns 'cluster'"),
        ("", "has no column 'cluster', but nothing"),
        ("trajectory,cluster\n", "4 of 4 trajectories are missing (0, 1, 2, ...)"),
        (b"\xff\xfe\x00", "cannot be read (UnicodeDecodeError"),
        (None, "cannot be read: No such file"),
    ],
)
def test_assignments_that_are_not_whole_are_refused(tmp_path, content, message):
    path = tmp_path / "assignments.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_assignments(path, 4, 3)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


@pytest.fixture(scope="module")
def dataset():
    return make("diagonal", 1, 0)  # 5 trajectories, labels and likelihoods


def _write(path, labels):
    rows = pd.DataFrame({"trajectory": range(len(labels)), "label": labels})
    match path.name:
        case "sorted.csv":
            rows.sort_values("label", ascending=False).to_csv(path, index=False)
        case "Title.csv":
            rows.rename(columns={"trajectory": " Trajectory", "label": "LABEL"}).iloc[::-1].to_csv(path, index=False)
        case "index.csv":
            rows[["label"]].to_csv(path)
        case "rows.csv":
            rows[["label"]].to_csv(path, index=False)
        case "lines.txt":
            path.write_text("\n".join(map(str, labels)) + "\n\n")
        case "array.npy":
            np.save(path, labels)
        case "bytes.npz":
            np.savez(path, labels=np.array(labels).astype("S"), other=np.zeros(3))
    return path


@pytest.mark.parametrize(
    "name", ["sorted.csv", "Title.csv", "index.csv", "rows.csv", "lines.txt", "array.npy", "bytes.npz"]
)
@pytest.mark.parametrize("labels", [["b", "a", "c", "a", "b"], [10, 2, 30, 2, 10]])
def test_labels_of_every_kind_of_file(dataset, tmp_path, name, labels):
    if name == "bytes.npz" and labels[0] == 10:
        pytest.skip("text only")
    labelled = with_labels(dataset, _write(tmp_path / name, labels))
    assert labelled.labels.tolist() == [1, 0, 2, 0, 1]
    assert labelled.spec.policy_names == (("a", "b", "c") if labels[0] == "b" else ())
    assert labelled.true_log_likelihoods is None
    assert label_source(labelled) == f"given by {name} (exact)"
    save_npz(labelled, tmp_path / "saved.npz")  # the fingerprint is that of the new content
    assert load_npz(tmp_path / "saved.npz").labels.tolist() == [1, 0, 2, 0, 1]


def test_names_that_look_like_numbers(dataset, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("label\n01\n1\n1.0\n02\n01\n")
    labelled = with_labels(dataset, path)
    assert labelled.labels.tolist() == [0, 2, 2, 1, 0]
    assert labelled.spec.policy_names == ("01", "02", "1")
    path.write_text("label\n02\n1.0\n1\n02\n1.\n")  # numbers, of one spelling each
    labelled = with_labels(dataset, path)
    assert labelled.labels.tolist() == [1, 0, 0, 1, 0]
    assert labelled.spec.policy_names == ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x\ny\n", "has 2 labels, but there are 5 trajectories"),
        ("a.txt", "x\n\nz\nx\ny\n", "label of trajectory 1 is empty"),
        ("a.csv", "label\n0\n1\nNaN\n1\n0\n", "label of trajectory 2 is NaN"),
        ("a.csv", "label\n0\n1\n-1\n1\n0\n", "labels at trajectory 2 is -1"),
        ("a.csv", "trajectory,label\n0,a\n1,a\n2,a\n3,a\n3,a\n", "trajectory 3 stands there twice"),
        (
            "a.csv",
            "Trajectory,trajectory,label\n0,0,a\n",
            "has several columns 'trajectory', but Trajectory, trajectory,",
        ),
        ("a.csv", ",label\n4,a\n2,a\n0,a\n3,b\n1,b\n", "a column without a name numbers the rows, but not in order"),
        ("a.csv", "label,Episode\na,2\na,1\na,3\nb,5\nb,4\n", "column 'episode' numbers the rows, but not in order"),
        ("a.csv", "policy\na\n", "has no column 'label', but policy"),
        ("a.npy", "no array", "cannot be read (ValueError"),
        ("a.npy", np.zeros((5, 1), int), "labels has shape (5, 1): give [5]"),
        ("a.npy", np.full(5, 0.5), "labels at trajectory 0 is 0.5"),
        ("a.npz", {"label": np.zeros(5)}, "has no array labels, but label"),
        ("a.npz", {"labels": np.array([object()] * 5)}, "cannot be read (ValueError"),
        pytest.param("a.npz", b"PK\x03\x04", "cannot be read (BadZipFile", id="cut"),
        ("a.json", "[]", "is no .csv, .txt, .npy or .npz file"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(dataset, tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, dict):
        np.savez(path, **content, allow_pickle=True)
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        with_labels(dataset, path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_where_labels_are_from(dataset):
    class Guessing:
        labels, label_guess = dataset.labels, "by returns"

    assert label_source(dataset) == "given by the dataset"
    assert label_source(Guessing()) == "guessed: by returns"
