"""The command line, run in this process: what it writes, and one clear line for whatever is wrong."""

import dataclasses
import io
import json
import os
import re
import shutil
import time

import h5py
import jax
import matplotlib
import numpy as np
import pandas as pd
import pytest
from html_reader import read_sound
from rich.console import Console
from wandb_reader import read_runs

from trajclust_experiments import cli
from trajclust_experiments.catalogue import CATALOGUE
from trajclust_experiments.cells.methods import MethodCell
from trajclust_experiments.commands.cluster import cluster_dataset
from trajclust_experiments.commands.clusters import _write_csv
from trajclust_experiments.commands.expected import Schedule
from trajclust_experiments.commands.printing import fitting
from trajclust_experiments.costs import Cost, Costs
from trajclust_experiments.progress import Progress
from trajclust_jax import __version__ as trajclust_version
from trajclust_jax.checkpoint import load_tree
from trajclust_jax.clustering.support import UNTOLD, Support
from trajclust_jax.data import REGISTRY, Dataset, build_dataset, load_npz, make, returns, save_npz
from trajclust_jax.records import Lease
from trajclust_jax.training import Event


def arrays_in(path):
    """Of an .npz, which is closed again."""
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(autouse=True)
def comparison(monkeypatch, request):
    """What held-out actions say, without looking at them (half a minute a clustering) but in tests marked for it."""
    said = Support(1.0, 0.1, 1.0, 0.1, agreement=1.0)
    if "real_comparison" not in request.fixturenames:
        monkeypatch.setattr("trajclust_jax.clustering.support.support", lambda *_, **__: said)
    return said


@pytest.fixture
def real_comparison():
    """Asked for by tests that look at held-out actions."""


@pytest.fixture
def discrete_npz(tmp_path):
    """An npz as a user makes one: dense observations, discrete actions, lengths and nothing else."""
    rng = np.random.default_rng(0)
    n, t = 40, 8
    labels = rng.integers(0, 2, n)
    cells = rng.integers(0, 3, (n, t))
    actions = np.where(cells == 2, labels[:, None], cells)
    path = tmp_path / "mine.npz"
    np.savez(path, observations=np.eye(3, dtype=np.float32)[cells], actions=actions, lengths=np.full(n, t))
    return path, labels


@pytest.mark.parametrize("command", [(), ("run",), ("cluster",), ("data",), ("data", "make"), ("report",), ("list",)])
def test_help_teaches(trajclust, command):
    code, out, _ = trajclust(*command, "--help")
    assert code == 0
    assert "trajclust" in out
    assert command in ((), ("data",)) or "Example" in out


def test_list_is_short_and_holds_every_name(trajclust, monkeypatch):
    code, out, _ = trajclust("list", "--json")
    assert code == 0
    listed = json.loads(out)
    assert {"pgkmeans/table1", "pgkmeans/table3", "pgkmeans/figure4"} <= set(listed["tables"])
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = trajclust("list")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) < 80
    assert max(map(len, lines)) <= 80
    shown = set(out.split())
    for section, named in listed.items():
        assert {name.rpartition("/")[2] for name in named} <= shown, section
        assert all(named.values()), "a line for each"


def test_list_explains_one_name(trajclust):
    def explained(name):
        code, out, err = trajclust("list", name, "--json")
        assert code == 0, err
        return json.loads(out)

    iql = explained("iql")
    assert iql["settings"]["temperature"] == {"value": 3.0, "what": "beta, an inverse temperature."}
    assert (iql["settings"]["orthogonal"]["value"], iql["settings"]["orthogonal"]["usual"]) == (True, False)
    assert "Kostrikov" in iql["about"]
    assert iql["file"].endswith("trajclust_jax/learners/iql.py")
    assert explained("pg_kmeans_gru")["use"].endswith("--method pg_kmeans --policy gru")
    assert explained("dr3")["settings"]["feature_weight"]["value"] == 0.001
    assert "Hu, Wang and Du" in explained("pgkmeans/table1")["paper"]
    assert explained("takeball")["policies"] == 4
    assert explained("Gates-v0")["settings"]["max_steps_in_episode"]["value"] == 80
    assert set(explained("hopper-")["datasets"]) == {name for name in REGISTRY if name.startswith("hopper-")}
    for name in (*CATALOGUE, "hopper-medium", "Hopper-v4", "c4/table1"):
        code, out, err = trajclust("list", name)
        assert code == 0, err
        assert out.startswith(f"{name} (")
    code, out, err = trajclust("list", "takebal_l")
    assert_one_line(code, out, err)
    assert "did you mean takeball" in err
    assert "did you mean pgkmeans/choosing-k?" in trajclust("list", "choosing-k")[2]


def test_version(trajclust):
    assert trajclust("--version")[:2] == (0, f"trajclust {trajclust_version}\n")


def test_a_wide_table_is_told_in_parts_that_fit():
    header = ["task", "method", "NMI", "paper", "difference between them"]
    rows = [["Diagonal", "PG-Kmeans", "0.925 ± 0.000", "0.92 ± 0.00", "+0.005"]]
    assert fitting(header, rows, 100) == [(header, rows)]
    parts = fitting(header, rows, 50)
    assert [part[0][:2] for part in parts] == [header[:2]] * len(parts), "each part says what its rows are"
    assert [title for part in parts for title in part[0][2:]] == header[2:]
    assert [cell for part in parts for cell in part[1][0][2:]] == rows[0][2:]


def test_a_schedule_learns_how_fast_the_machine_is():
    now, told = [0.0], []
    cells = [MethodCell("diagonal", size, "sorl", (0,)) for size in (1, 2, 3, 4)]
    times = dict(zip(cells, (100.0, 100.0, None, 100.0), strict=True))
    expected = {cell: Costs(time and Cost(time, time, time), None) for cell, time in times.items()}
    schedule = Schedule(expected, told.append, lambda: now[0])
    schedule.begins(cells[0])
    now[0] += 300
    schedule.begins(cells[1])
    schedule.begins(dataclasses.replace(cells[0], size=9))
    schedule.begins(cells[2])
    assert told[0].startswith("cell 1 of 4: diagonal sorl; about 1.7 min; all in about 5.0 min, at ")
    assert told[0].endswith(", but for 1 not known")
    assert told[1].startswith("cell 2 of 4: diagonal sorl; about 3.3 min; all in about 6.")
    assert told[2] == "diagonal sorl: another cell needs it"
    assert told[3] == "cell 3 of 4: diagonal sorl; no record tells how long it will take"


def test_data_make_info_convert(trajclust, tmp_path):
    code, out, _ = trajclust("data", "make", "takeball", "--size", 5, "--seed", 3, "--out", "t.npz", "--json")
    assert code == 0
    made = json.loads(out)
    assert made["trajectories"] == 20
    assert made["policies"] == [5, 5, 5, 5]
    assert load_npz(tmp_path / "t.npz").provenance.fingerprint == make("takeball", 5, 3).provenance.fingerprint
    code, out, _ = trajclust("data", "convert", "t.npz", "grid/takeball-v0", "--root", tmp_path / "minari", "--json")
    assert code == 0, out
    place = json.loads(out)["place"]
    for _ in range(2):  # a file of the same dataset is written anew
        code, out, _ = trajclust("data", "convert", place, "back.npz", "--json")
        assert code == 0
        assert json.loads(out)["fingerprint"] == made["fingerprint"]
    code, out, _ = trajclust("data", "info", "back.npz")
    assert code == 0
    lines = {line[:14].strip(): line[16:] for line in out.splitlines()}
    assert lines["actions"] == "5 discrete"
    assert lines["labels"] == "given by the dataset: ball 1 5, ball 2 5, ball 3 5, ball 4 5"
    totals = returns(make("takeball", 5, 3).trajectories)
    assert lines["returns"] == f"{totals.min():.6g} to {totals.max():.6g}, mean {totals.mean():.6g}"


@pytest.mark.parametrize("policy", ["mlp", "tabular"])
def test_cluster_a_users_npz(trajclust, discrete_npz, tmp_path, policy):
    path, labels = discrete_npz
    arguments = ("cluster", path, "--k", 2, "--policy", policy, "--restarts", 3, "--out", "runs/mine", "--json")
    code, out, err = trajclust(*arguments)
    assert code == 0, err
    summary = json.loads(out)
    folder = tmp_path / "runs" / "mine"
    names = {"assignments.csv", "clusters.csv", "posterior.npz", "model", "summary.json", "overview.png"}
    names |= {"embedding.png"}  # it is nowhere in a plane or on a grid
    assert {file.name for file in folder.iterdir()} == names
    frame = pd.read_csv(folder / "assignments.csv")
    assert len(frame) == 40
    clusters = pd.read_csv(folder / "clusters.csv").set_index("cluster")
    grouped = frame.groupby("cluster")
    np.testing.assert_allclose(clusters["mean_return"], grouped["return"].mean())
    np.testing.assert_allclose(clusters["mean_length"], grouped["length"].mean())
    np.testing.assert_allclose(clusters["share"], clusters["size"] / 40)
    assert frame["cluster"][clusters["example"]].tolist() == clusters.index.tolist()
    agreement = (frame["cluster"].to_numpy() == labels).mean()
    assert agreement in (0, 1), "two policies that disagree are told apart"
    posterior = arrays_in(folder / "posterior.npz")
    np.testing.assert_array_equal(posterior["posterior"].argmax(1), frame["cluster"])
    assert [c["trajectories"] for c in summary["clusters"]] == np.bincount(frame["cluster"], minlength=2).tolist()
    assert json.loads((folder / "summary.json").read_text())["objective"] == summary["objective"]
    assert summary["assignments"] == frame["cluster"].tolist()
    np.testing.assert_allclose(summary["posterior"], posterior["posterior"])
    model = load_tree(folder / "model")
    fitted, params = model["preprocessing"], np.asarray(jax.tree.leaves(model["model"])[0])
    assert fitted["inputs"]["columns"].shape == (3,)
    if policy == "tabular":  # the stored model explains the stored likelihoods
        given = arrays_in(path)
        rows = (given["observations"][..., None, :] == fitted["observations"]).all(-1).argmax(-1)
        log_pi = params[:, rows, given["actions"]]  # [K, N, T]
        np.testing.assert_allclose(log_pi.sum(-1).T, posterior["log_likelihoods"], rtol=1e-4)
    assert summary["scores"] is None
    assert {file.name for file in (tmp_path / "runs").iterdir()} == {"mine"}, "nothing else is left"
    code, out, _ = trajclust(*arguments)
    assert json.loads(out)["restart_objectives"] == summary["restart_objectives"]


def test_cluster_by_returns(trajclust, tmp_path):
    """A method without policies: what it cannot know is absent, not invented."""
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 2
    rewards = np.zeros((20, 3), np.float32)
    rewards[:, 1] = labels + rng.uniform(0, 0.1, 20)
    arrays = {"observations": rng.normal(size=(20, 3, 2)), "actions": rng.integers(0, 2, (20, 3))}
    np.savez(tmp_path / "r.npz", **arrays, rewards=rewards, lengths=np.full(20, 3))
    code, out, err = trajclust("cluster", "r.npz", "--method", "return_kmeans", "--k", 2, "--out", "r", "--json")
    assert code == 0, err
    summary = json.loads(out)
    frame = pd.read_csv(tmp_path / "r" / "assignments.csv")
    assert (frame["cluster"].to_numpy() == labels).mean() in (0, 1)
    assert "log_likelihood" not in frame
    assert set(arrays_in(tmp_path / "r" / "posterior.npz")) == {"posterior"}
    assert summary["health"] == {"used_clusters": 2}
    assert summary["warnings"] == []
    given = ("--out", "r", "--track", "offline")
    code, out, _ = trajclust("cluster", "r.npz", "--method", "return_kmeans", "--k", 2, *given)
    assert out.splitlines()[1].split()[:3] == ["0", "10", "50.0%"]
    whole, run = read_runs(tmp_path)
    assert (whole.name, run.name) == ("r-return_kmeans", "r-return_kmeans-seed0")
    assert run.summary["health/used_clusters"] == 2
    assert run.summary["final/objective"] == pytest.approx(summary["objective"])
    assert whole.history[0]["overview/width"] > 100


def test_what_held_out_actions_say_is_printed_and_kept(trajclust, discrete_npz, tmp_path, real_comparison):
    """Right clusters, then ones by luck: a run that is hardly trained."""
    short = ("--k", 2, "--policy", "tabular", "--restarts", 3)
    code, out, err = trajclust("cluster", discrete_npz[0], *short, "--out", "right")
    assert code == 0, err
    kept = json.loads((tmp_path / "right" / "summary.json").read_text())
    assert kept["support"]["supported"]
    assert kept["support"]["agreement"] > 0.9
    assert "supported" not in out
    rng = np.random.default_rng(0)
    arrays = {"observations": rng.normal(size=(40, 8, 3)), "actions": rng.integers(0, 2, (40, 8))}
    few = {"observations": np.eye(2)[np.arange(18).reshape(3, 6) % 2], "actions": [[0] * 6, [1] * 6, [0] * 6]}
    np.savez(tmp_path / "few.npz", **few, lengths=[6] * 3)
    code, out, err = trajclust("cluster", "few.npz", "--k", 2, "--policy", "tabular", "--restarts", 1, "--out", "few")
    assert code == 0, err
    assert UNTOLD in out
    np.savez(tmp_path / "luck.npz", **arrays, lengths=np.full(40, 8))
    code, out, err = trajclust("cluster", "luck.npz", "--method", "mean_kmeans", "--k", 2, "--out", "unasked")
    assert code == 0, err
    assert json.loads((tmp_path / "unasked" / "summary.json").read_text())["support"] is None
    code, out, err = trajclust("cluster", "luck.npz", "--method", "sorl", "--k", 2, "--iterations", 1, "--out", "luck")
    assert code == 0, err
    assert "warning: not supported by the data" in out + err
    assert not json.loads((tmp_path / "luck" / "summary.json").read_text())["support"]["supported"]


def test_cluster_by_representation_keeps_latents_and_tells_of_a_collapse(discrete_npz, tmp_path):
    settings = {"warmup_iterations": 0, "iterations": 1, "steps": 1, "batch_size": 4}
    dataset = load_npz(discrete_npz[0])
    summary = cluster_dataset(dataset, "caae", 3, 0, tmp_path / "c", "off", Progress(quiet=True), **settings)
    names = {"assignments.csv", "clusters.csv", "posterior.npz", "model", "summary.json", "overview.png", "latents.png"}
    assert {file.name for file in (tmp_path / "c").iterdir()} == names
    assert arrays_in(tmp_path / "c" / "posterior.npz")["latents"].shape == (40, 8)
    assert load_tree(tmp_path / "c" / "model")["model"]["centres"].shape == (3, 8)
    assert set(summary["health"]) == {"used_clusters", "spread", "silhouette"}
    if summary["health"]["used_clusters"] < 3:
        assert any("clusters are used" in warning for warning in summary["warnings"])


def test_labels_in_the_file_change_nothing_but_the_scores(trajclust, tmp_path):
    dataset = make("diagonal", 10, 0)
    shuffled = np.random.default_rng(0).permutation(dataset.labels)
    outputs = {}
    for name, labels in (("true", dataset.labels), ("shuffled", shuffled), ("removed", None)):
        other = build_dataset(dataset.trajectories, labels, name="diagonal", source="test")
        save_npz(other, tmp_path / f"{name}.npz")
        code, out, err = trajclust("cluster", f"{name}.npz", "--k", 5, "--policy", "tabular", "--out", name, "--json")
        assert code == 0, err
        files = [(tmp_path / name / file).read_bytes() for file in ("assignments.csv", "posterior.npz")]
        outputs[name] = files, json.loads(out)["scores"]
    assert outputs["true"][0] == outputs["shuffled"][0] == outputs["removed"][0]
    assert outputs["true"][1]["nmi"] > outputs["shuffled"][1]["nmi"] + 0.3
    assert outputs["removed"][1] is None


def test_a_second_process_is_told_that_the_folder_is_taken(trajclust, discrete_npz, tmp_path):
    (tmp_path / "runs" / ".mine.work").mkdir(parents=True)
    with Lease.acquire(tmp_path / "runs" / ".mine.work" / "lease"):
        code, out, err = trajclust("cluster", discrete_npz[0], "--k", 2, "--out", "runs/mine")
    assert_one_line(code, out, err)
    assert "another process" in err


def test_labels_of_a_file_score_and_guesses_are_called_so(trajclust, tmp_path, monkeypatch):
    dataset = make("diagonal", 4, 0)
    save_npz(dataset, tmp_path / "d.npz")
    names = np.array(list("edcba"))[dataset.labels]
    pd.DataFrame({"label": names, "trajectory": range(20)}).sample(frac=1, random_state=0).to_csv("true.csv")
    code, out, _ = trajclust("data", "info", "d.npz", "--labels", "true.csv", "--json")
    assert code == 0
    described = json.loads(out)
    assert described["labels"] == "given by true.csv (exact)"
    assert described["policy_names"] == list("abcde")
    assert described["policies"] == [4] * 5
    command = ("cluster", "d.npz", "--method", "length_kmeans", "--k", 2)
    summaries = {}
    for name, options in {"own": (), "given": ("--labels", "true.csv")}.items():
        code, out, err = trajclust(*command, *options, "--out", name)
        assert code == 0, err
        assert "against the labels: " in out
        assert ("oracle" in out) == (name == "own"), "the likelihoods are of the policies that the dataset names"
        summaries[name] = json.loads((tmp_path / name / "summary.json").read_text())
    assert summaries["given"]["scores"] == summaries["own"]["scores"]
    assert (summaries["own"]["labels"], summaries["given"]["labels"]) == (
        "given by the dataset",
        "given by true.csv (exact)",
    )
    monkeypatch.setattr(Dataset, "label_guess", "split by returns", raising=False)
    code, out, _ = trajclust(*command, "--out", "guess")
    assert "against labels that are guessed: split by returns (--labels FILE brings true ones): nmi" in out
    assert json.loads((tmp_path / "guess" / "summary.json").read_text())["labels"] == "guessed: split by returns"


def test_tables_have_the_digits_that_tell_numbers_apart(tmp_path):
    """Against pandas: in single precision the shortest digits of single precision, nothing where there is no number."""
    numbers = np.exp(np.random.default_rng(0).normal(0, 12, 200))
    numbers[:6] = np.nan, np.inf, -np.inf, 0, 1, 1e16
    columns = {"double": numbers, "single": numbers.astype(np.float32), "whole": np.arange(200, dtype=np.int32)}
    _write_csv(tmp_path / "ours.csv", list(columns), zip(*columns.values(), strict=True))
    pd.DataFrame(columns).to_csv(tmp_path / "pandas.csv", index=False)
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "pandas.csv").read_bytes()


@pytest.mark.parametrize("method", [pytest.param("vae_kmeans", marks=pytest.mark.slow), "pg_kmeans_mlp"])
def test_a_clustering_that_diverges_is_a_result(trajclust, tmp_path, monkeypatch, method):
    """A line, exit code 1, and all files; a warning would be an error here."""
    rng = np.random.default_rng(0)
    arrays = {"observations": rng.normal(size=(8, 4, 3)), "actions": rng.uniform(-1, 1, (8, 4, 1))}
    np.savez(tmp_path / "c.npz", **{name: x.astype(np.float32) for name, x in arrays.items()}, lengths=np.full(8, 4))
    entry = CATALOGUE[method]
    rate = {"policy_settings": (("learning_rate", 1e30),)}
    rate = {"learning_rate": 1e30, "iterations": 1, "steps": 2} if "learning_rate" in entry.settings() else rate
    monkeypatch.setitem(CATALOGUE, method, dataclasses.replace(entry, defaults=rate))
    code, out, err = trajclust("cluster", "c.npz", "--method", method.removesuffix("_mlp"), "--k", 2, "--out", "c")
    assert code == 1, err
    assert "warning: diverged: the objective is not finite" in out
    assert "objective not finite a step; files in " in out
    names = {"assignments.csv", "clusters.csv", "posterior.npz", "model", "summary.json", "overview.png"}
    assert {file.name for file in (tmp_path / "c").iterdir()} == names
    assert json.loads((tmp_path / "c" / "summary.json").read_text())["objective"] is None


def test_names_are_not_markup(tmp_path):
    """`[/x]` would be an error, `[red]` and `:smile:` would vanish."""
    name = "[/x] [red]a :smile: {b}"
    for terminal in (False, True):
        progress = Progress()
        progress.console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
        progress.note(name)
        progress.warn(name)
        with progress.waiting(name):
            time.sleep(0.2)  # a terminal draws a few times a second
        with progress.task(name) as show:
            show(Event(name, 1, 2, 1, {"score": np.zeros(1)}, np.zeros(1, bool)))
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", progress.console.file.getvalue())
        assert shown.count(name) >= 4 + terminal
        assert f"warning: {name}" in shown


@pytest.mark.parametrize("width", [80, 100])
def test_progress_is_not_cut_on_narrow_terminals(width):
    progress, name = Progress(), "halfcheetah-medium-expert pg_kmeans_mlp iterations=6 polish_first_steps=60"
    progress.console = Console(file=io.StringIO(), force_terminal=True, width=width)
    metrics = {"objective": -np.ones((2, 1)), "changed": np.full((2, 1), 1234), "nmi": np.ones((2, 1))}
    with progress.task(name) as show:
        show(Event("polish", 12, 200, 12, metrics, np.zeros(2, bool)))
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", progress.console.file.getvalue())
    assert "…" not in shown
    assert {*name.split()[:-1], "12/200", "2468", "1.000"} <= set(shown.split())


def test_a_dataset_with_a_name_that_looks_like_markup(trajclust, discrete_npz, tmp_path):
    path, _ = discrete_npz
    path.rename(tmp_path / "[red]m:smile:[z].npz")
    code, out, err = trajclust("cluster", "[red]m:smile:[z].npz", "--k", 2, "--method", "length_kmeans")
    assert (code, out) == (2, "")  # every length is equal
    code, out, err = trajclust("cluster", "[red]m:smile:[z].npz", "--k", 2, "--method", "mean_kmeans", "--out", "[b]")
    assert code == 0, err
    assert "[red]m:smile:[z] mean_kmeans: done" in err
    assert str(tmp_path / "[b]") in out


def test_a_device_that_is_not_there_is_one_line(trajclust, monkeypatch):
    def devices():
        raise AssertionError  # one of several things that jax raises

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", devices)
    code, out, err = trajclust("list")
    assert_one_line(code, out, err)
    assert "JAX_PLATFORMS=cuda: jax finds no such device here" in err


@pytest.mark.parametrize(
    "setting", [jax.default_prng_impl("rbg"), jax.threefry_partitionable(False), jax.numpy_dtype_promotion("strict")]
)
def test_jax_with_settings_that_change_results_is_refused(trajclust, discrete_npz, tmp_path, setting):
    with setting:
        code, out, err = trajclust("cluster", discrete_npz[0], "--k", 2, "--method", "mean_kmeans", "--out", "mine")
        assert trajclust("list")[0] == 0  # which computes nothing
    assert_one_line(code, out, err)
    assert re.search("JAX_(DEFAULT_PRNG_IMPL|THREEFRY_PARTITIONABLE|NUMPY_DTYPE_PROMOTION) is .*; unset it", err)
    assert not (tmp_path / "mine").exists()


def test_a_folder_that_was_deleted_is_one_line(trajclust, discrete_npz, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, out, err = trajclust("cluster", discrete_npz[0], "--k", 2, "--method", "mean_kmeans")
    assert_one_line(code, out, err)
    assert "the current folder was deleted" in err


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_results_folder_that_cannot_be_written_is_told_before_the_work(trajclust, tmp_path, command):
    (tmp_path / "file").touch()
    asked = command, "pgkmeans/table1", "--preset", "smoke", "--datasets", "diagonal", "--results"
    assert_one_line(*(got := trajclust(*asked, "file")))
    assert "--results file is a file: give a folder" in got[2]
    assert_one_line(*(got := trajclust(*asked, "file/deeper")))
    assert "cannot be written" in got[2]


def test_a_reader_that_saw_enough_of_the_help_ends_it(trajclust, monkeypatch):
    def unread(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr(cli.tyro, "cli", unread)
    monkeypatch.setattr(cli, "_unheard", lambda: 0)  # which closes this process's own output
    assert trajclust("cluster", "--help") == (0, "", "")


def test_a_users_settings_of_matplotlib_change_no_figure(trajclust, tmp_path, monkeypatch):
    (tmp_path / "theirs").write_text("text.usetex: True")
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "theirs"))
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    assert matplotlib.rc_params_from_file(matplotlib.matplotlib_fname())["text.usetex"]
    assert trajclust("--version")[0] == 0
    assert os.environ["MPLBACKEND"] == "agg"
    found = matplotlib.rc_params_from_file(matplotlib.matplotlib_fname())  # as when it is imported
    assert found["text.usetex"] == matplotlib.rcParamsDefault["text.usetex"]


def test_a_full_disk_is_one_line(trajclust, discrete_npz, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    code, out, err = trajclust("cluster", discrete_npz[0], "--k", 2, "--method", "mean_kmeans")
    assert (code, out) == (1, "")
    (line,) = [line for line in err.splitlines() if "compiling" not in line]
    assert line.startswith("trajclust: no space left on the disk (")
    assert line.endswith("make room and give the same command again to go on")


def test_home_is_found_in_every_path(trajclust, discrete_npz, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trajclust("data", "info", "~/mine.npz")[0] == 0
    assert trajclust("data", "convert", "~/mine.npz", "~/new/copy.npz")[0] == 0
    assert (tmp_path / "new" / "copy.npz").exists()


def test_cluster_with_labels_scores_and_draws_the_grid(trajclust, tmp_path):
    save_npz(make("diagonal", 20, 0), tmp_path / "d.npz")
    code, out, _ = trajclust("cluster", "d.npz", "--k", 5, "--policy", "tabular", "--out", "runs/d")
    assert code == 0
    assert "against the labels" in out
    assert "used_clusters" not in out, "it is no score"
    assert "clusters used: 5 of 5" in out
    assert "oracle, the ceiling" in out
    assert "the answer" in out or "restarts agree" in out or "run more to compare" in out
    summary = json.loads((tmp_path / "runs" / "d" / "summary.json").read_text())
    assert summary["ambiguity"]["restarts"] == 5
    assert (tmp_path / "runs" / "d" / "trajectories.png").stat().st_size > 5000


def test_cluster_draws_the_plane(trajclust, tmp_path):
    arguments = ("pathfollowing:size=8", "--method", "sorl", "--k", 3, "--iterations", 1, "--out", "runs/p")
    code, _, err = trajclust("cluster", *arguments)
    assert code == 0, err
    assert (tmp_path / "runs" / "p" / "trajectories.png").stat().st_size > 5000


def test_policy_reaches_every_method_that_has_one(trajclust, tmp_path):
    save_npz(make("diagonal", 8, 0), tmp_path / "d.npz")
    for method, options in {"sorl": ["--iterations", 1], "pg_kmeans": ["--restarts", 1, "--iterations", 1]}.items():
        arguments = ("--k", 2, "--method", method, "--policy", "tabular", *options, "--out", f"runs/{method}")
        code, _, err = trajclust("cluster", "d.npz", *arguments)
        assert code == 0, err
        summary = json.loads((tmp_path / "runs" / method / "summary.json").read_text())
        assert summary["hyperparameters"]["policy"] == "tabular"


def test_run_and_report(trajclust, tmp_path):
    tasks = ("--datasets", "diagonal", "takeball")
    arguments = ("run", "pgkmeans/table1", "--preset", "smoke", *tasks, "--methods", "pg_kmeans_tabular")
    code, out, err = trajclust(*arguments, "--dry-run")
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()] == ["missing"] * 4
    cells = json.loads(trajclust(*arguments, "--dry-run", "--json")[1])
    assert [cell["key"] for cell in cells] == [line.split("  pgkmeans")[0].split()[-1] for line in out.splitlines()]
    assert not (tmp_path / "results").exists()
    code, out, err = trajclust(*arguments)
    assert code == 0, err
    assert "4 cells, 4 of them missing" in err
    assert "cell 4 of 4: takeball pg_kmeans_tabular" in err
    assert "| Diagonal | PG-Kmeans, tabular |" in out
    assert "0.92 ± 0.00" in out, "the published value stands beside ours"
    files = sorted((tmp_path / "results" / "cells").glob("*.json"))
    assert len(files) == 4, "two datasets, the method and the oracle"
    stamps = [file.stat().st_mtime_ns for file in files]
    code, again, _ = trajclust(*arguments)
    assert again == out
    assert [file.stat().st_mtime_ns for file in files] == stamps, "finished cells are not computed again"
    assert {line.split()[0] for line in trajclust(*arguments, "--dry-run")[1].splitlines()} == {"stored"}
    code, out, err = trajclust("run", "pgkmeans/table3", *arguments[2:], "--json")
    assert code == 0, err
    assert [file.stat().st_mtime_ns for file in files] == stamps, "table 3 stands on table 1's cells"
    no_answer = ("--datasets", "halfcheetah", "--methods", "pg_kmeans_tabular")  # counts are for discrete steps
    code, out, err = trajclust("run", "pgkmeans/table3", "--preset", "smoke", *no_answer)
    assert code == 0, err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "scores.csv").write_text("mine")
    code, _, err = trajclust("report", "--out", "mine")
    assert (code, "has a scores.csv that is no report of trajclust" in err) == (2, True)
    assert (tmp_path / "mine" / "scores.csv").read_text() == "mine"
    for _ in range(2):  # a report is made anew in its place
        code, out, err = trajclust("report", "--out", "report")
        assert code == 0, err
    text = (tmp_path / "report" / "report.md").read_text()
    assert "Table 1" in text
    assert "Table 3" in text
    assert "Not run" in text
    assert len(pd.read_csv(tmp_path / "report" / "scores.csv")) == 2 * 2 + 2 + 1, "of HalfCheetah the oracle only"
    figures = list((tmp_path / "report").rglob("*.png"))
    assert figures
    page = read_sound((tmp_path / "report" / "pgkmeans.html").read_text("utf-8"))
    assert len(page.all("img")) == len(figures)
    coloured = [attributes.get("class", "") in ("number above", "number below") for attributes, _ in page.all("td")]
    assert sum(coloured) == 2 + 2 * 2, "a difference for each dataset in table 1, two in table 3"
    assert all(figure.stat().st_size > 3000 for figure in figures)


def _bad(n=6, t=4, **changes):
    return {
        "observations": np.zeros((n, t, 2), np.float32),
        "actions": np.zeros((n, t), np.int32),
        "rewards": np.zeros((n, t), np.float32),
        "lengths": np.full(n, t, np.int32),
        "num_actions": 3,
        **changes,
    }


def _at(array, index, value):
    array = array.copy()
    array[index] = value
    return array


BAD = {
    "NaN observation": (_bad(observations=_at(np.zeros((6, 4, 2), np.float32), (3, 1, 0), np.nan)), "observations.*3"),
    "NaN reward": (_bad(rewards=_at(np.zeros((6, 4), np.float32), (2, 1), np.nan)), "rewards.*2"),
    "wrong shape": (_bad(observations=np.zeros(6, np.float32)), "observations"),
    "unequal lengths": (_bad(rewards=np.zeros((5, 4), np.float32)), "rewards"),
    "empty episode": (_bad(lengths=np.array([4, 4, 0, 4, 4, 4], np.int32)), "lengths.*2"),
    "too long": (_bad(lengths=np.array([4, 9, 4, 4, 4, 4], np.int32)), "lengths.*1"),
    "action out of range": (_bad(actions=_at(np.zeros((6, 4), np.int32), (5, 2), 3)), "actions.*5"),
    "labels of another length": (_bad(labels=np.zeros(5, np.int32)), "labels"),
    "no actions": ({"observations": np.zeros((6, 4, 2), np.float32)}, "actions"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_line_and_leaves_nothing(trajclust, tmp_path, case):
    arrays, pattern = BAD[case]
    np.savez(tmp_path / "bad.npz", **arrays)
    code, out, err = trajclust("cluster", "bad.npz", "--k", 2, "--out", "runs/bad")
    assert_one_line(code, out, err)
    assert re.search(pattern, err), err
    assert {file.name for file in tmp_path.iterdir()} == {"bad.npz"}


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("cluster", "missing.npz", "--k", 2), "missing.npz"),
        (("cluster", "cut.npz", "--k", 2), "cut.npz"),
        (("cluster", "good.npz", "--k", 0), "--k is 0"),
        (("cluster", "good.npz", "--k", 99), "--k is 99"),
        (("cluster", "good.npz", "--k", 2, "--method", "dbscan"), "dbscan"),
        (("cluster", "good.npz", "--k", 2, "--method", "pg_kmeans_mlp", "--policy", "gru"), "give --method pg_kmeans"),
        (("cluster", "good.npz", "--k", "auto", "--k-max", 99), "--k-max is 99"),
        (("assign", "good.npz", "--model", "."), "no model of trajclust cluster there"),
        (("cluster", "good.npz", "--k", 2, "--restarts", 0), "restarts"),
        (("cluster", "good.npz", "--k", 2, "--method", "return_kmeans"), "return_kmeans: every return is equal"),
        (("cluster", "good.npz", "--k", 2, "--method", "caae", "--restarts", 3), "--restarts is no setting of caae"),
        (("cluster", "good.npz", "--k", 2, "--method", "dec", "--policy", "mlp"), "--policy is no setting of dec"),
        (("cluster", "continuous.npz", "--k", 2, "--policy", "tabular"), "tabular"),
        (("cluster", "good.npz", "--k", 2, "--out", "good.npz"), "is a file"),
        (("cluster", "good.npz", "--k", 2, "--out", "."), "other files"),
        (("data", "make", "takebal", "--out", "x.npz"), "takebal"),
        (("data", "make", "takeball", "--out", "x.np"), ".npz"),
        (("cluster", "good.npz", "--k", 2, "--iterations", 0), "iterations"),
        (("cluster", "good.npz", "--k", 2, "--out", "good.npz/mine"), "cannot be written"),
        (("data", "make", "takeball", "--size", 0, "--out", "x.npz"), "size"),
        (("data", "info", "takeball:size=x"), "size"),
        (("run", "pgkmeans/table9"), "table9"),
        (("run", "pgkmeans/table1", "--preset", "huge"), "huge"),
        (("run", "pgkmeans/table1", "--methods", "kmeans"), "kmeans"),
        (("run", "pgkmeans/table1", "--datasets", "acrobot"), "acrobot"),
        (("data", "info", "flat.hdf5"), "flat.hdf5: terminals mark no end"),
        (("cluster", "flat.hdf5:medium=3", "--k", 2), "mark no end"),
        (("cluster", "good.hdf5:medium=absent.hdf5", "--k", 2), "medium=absent.hdf5 is neither"),
        (("cluster", "good.hdf5:medium=3", "--k", 2), "no episode ends after 3 steps"),
        (("cluster", "mujoco/hopper/medium-v0 + mujoco/hopper/expert-v0", "--k", 2), "no Minari dataset"),
        (("data", "make", "takeball", "--size", 2, "--noise", 0.1, "--out", "x.npz"), "no option noise"),
        (("run", "pgkmeans/table1", "--seeds", 0), "--seeds"),
        (("report",), "no records"),
        (("data", "make", "takeball", "--out", "good.npz/x.npz"), "good.npz is a file"),
        (
            ("data", "make", "takeball", "--size", 2, "--out", "continuous.npz"),
            "continuous.npz is another file: ",
        ),
        (("data", "make", "diagonal", "--size", 2, "--out", "good.npz"), "good.npz is the dataset takeball: remove it"),
        (("data", "convert", "good.npz", "cut.npz"), "cut.npz is another file: remove it, or name another"),
        (("data", "convert", "continuous.npz", "good.npz"), "good.npz is the dataset takeball: remove it"),
        (("cluster", "good.npz", "--k", 2, "--labels", "absent.csv"), "absent.csv cannot be read"),
    ],
)
def test_bad_usage_gives_one_line_and_leaves_nothing(trajclust, tmp_path, arguments, pattern):
    save_npz(make("takeball", 2, 0), tmp_path / "good.npz")
    data = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    actions = np.random.default_rng(0).normal(size=(3, 2, 2)).astype(np.float32)
    observations = np.zeros((3, 2, 1), np.float32)
    np.savez(tmp_path / "continuous.npz", observations=observations, actions=actions, lengths=np.full(3, 2))
    for name, ends in {"flat": np.zeros(8, bool), "good": np.arange(8) % 4 == 3}.items():
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as file:
            file["observations"], file["actions"] = np.zeros((8, 2), np.float32), np.zeros((8, 1), np.float32)
            file["terminals"] = ends
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    code, out, err = trajclust(*arguments)
    assert_one_line(code, out, err)
    assert re.search(pattern, err), err
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_option_given_twice_is_refused(trajclust):
    code, _, err = trajclust("train", "mine.npz", "--learner", "iql", "--set", "tau=1", "--set=updates=100")
    assert code == 2
    assert "--set is given twice" in err


def test_unknown_options_end_with_2(trajclust):
    code, _, err = trajclust("run", "pgkmeans/table1", "--sedes", 3)
    assert code == 2
    assert "Traceback" not in err


def test_failed_work_ends_with_1(trajclust, discrete_npz, monkeypatch):
    monkeypatch.setattr("trajclust_experiments.commands.cluster.fit", lambda *a, **k: 1 / 0)
    code, out, err = trajclust("cluster", discrete_npz[0], "--k", 2)
    assert code == 1
    assert out == ""
    assert err.strip().splitlines()[-1].startswith("trajclust: ZeroDivisionError")


def assert_one_line(code, out, err):
    assert code == 2, err
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("trajclust: ")
    assert "Traceback" not in err
