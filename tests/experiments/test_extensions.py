"""What users add in a module of their own: a clusterer, a learner, a plug-in, an environment, a dataset and a table.

The module is docs/extend.md's examples, joined.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from trajclust_envs import ENVIRONMENTS
from trajclust_experiments import tables
from trajclust_experiments.catalogue import CATALOGUE, MethodEntry, entries, register
from trajclust_jax.clustering import SummaryKmeans
from trajclust_jax.data import REGISTRY, build_dataset, make, save_npz

EXTEND = Path(__file__).parents[2] / "docs" / "extend.md"
REGISTRIES = (CATALOGUE, ENVIRONMENTS, REGISTRY, tables._REGISTERED)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The examples as the module `my_lab`; what it registers is gone afterwards."""
    list(map(tables.get_table, tables.table_names()))  # some have every learner that is there when they are imported
    before = [dict(registry) for registry in REGISTRIES]
    blocks = re.findall(r"```python\n(.*?)```", EXTEND.read_text(encoding="utf-8"), re.S)
    (tmp_path / "my_lab.py").write_text("\n\n".join(blocks))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TRAJCLUST_EXTENSIONS", "my_lab")
    yield
    for registry, as_it_was in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(as_it_was)


def test_commands_know_what_a_module_adds(lab, trajclust, tmp_path):
    code, out, err = trajclust("list", "--json")
    assert code == 0, err
    assert "| Corner | Actions + k-means | " in out, "the module's own last example"
    listed = json.loads(out[out.index('{\n "tables"') :])
    added = {"tables": "own/corners", "datasets": "corner", "methods": "action_kmeans", "learners": "smooth_td3_bc"}
    for section, name in added.items():
        assert name in listed[section]

    code, out, err = trajclust("cluster", "takeball:size=5", "--method", "action_kmeans", "--k", 4, "--json")
    assert code == 0, err
    assert len(json.loads(out)["assignments"]) == 20
    code, _, err = trajclust("assign", "takeball:size=5", "--model", "runs/cluster")
    assert (code, err) == (2, "trajclust: action_kmeans does not assign trajectories that are new\n")

    steering = make("pathfollowing", 4)
    rewards = -np.linalg.norm(steering.trajectories.observations, axis=-1)
    rewarded = steering.trajectories.replace(rewards=rewards)
    save_npz(build_dataset(rewarded, steering.labels, name="steering", source="steering"), tmp_path / "steering.npz")
    small = ("--seeds", 1, "--episodes", 1, "--set", "updates=20", "block=10", "batch_size=16")
    for learner in ("median_bc", "smooth_td3_bc"):
        code, out, err = trajclust("train", "steering.npz", "--learner", learner, "--json", *small)
        assert code == 0, err
        assert json.loads(out)["learner"] == learner
    plugged = ("--learner", "mean_td3_bc", "--plugin", "c4", "--json", *small, "clusters=3", "weight=0.1")
    code, out, err = trajclust("train", "steering.npz", *plugged)
    assert code == 0, err
    assert json.loads(out)["settings"]["learner"]["clusters"] == 3

    code, out, err = trajclust("run", "own/corners", "--preset", "smoke")
    assert code == 0, err
    assert "| Corner | Actions + k-means | " in out
    code, out, err = trajclust("report")
    assert code == 0, err
    assert "Actions + k-means" in (tmp_path / "report" / "report.md").read_text()


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="caae is the name of another clusterer: give a new one"):
        register("caae", MethodEntry("Mine", "", SummaryKmeans))
    with pytest.raises(ValueError, match="is the name of another table"):
        tables.register(tables.get_table("pgkmeans/table1"))


def test_a_module_that_cannot_be_imported_is_one_line(trajclust, monkeypatch):
    monkeypatch.setenv("TRAJCLUST_EXTENSIONS", "no_such_lab")
    code, out, err = trajclust("list")
    assert (code, out) == (2, "")
    assert err.startswith("trajclust: TRAJCLUST_EXTENSIONS: no_such_lab cannot be imported (ModuleNotFoundError")
    assert len(err.splitlines()) == 1


def test_an_algorithm_is_its_file_and_one_entry():
    """Its name stands in the catalogue, and nowhere else in what runs, saves and shows it."""
    folder = Path(tables.__file__).parent
    files = [path for path in folder.rglob("*.py") if "papers" not in path.parts and path.name != "catalogue.py"]
    assert len(files) > 20
    for name in entries("clusterer", "learner"):
        quoted = re.compile(f"[\"']{name}[\"']")
        found = [path.name for path in files if quoted.search(path.read_text())]
        elsewhere = {"cli.py", "presets.py", "scores.py"}  # defaults, scales, what others report
        assert not set(found) - elsewhere, (name, found)
