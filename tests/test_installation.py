"""What is installed works wherever it is called from: beside a user's own packages, and outside the clone."""

import importlib.metadata
import os
import pydoc
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

import trajclust_jax
from trajclust_experiments.catalogue import entries
from trajclust_jax.documented import settings_of

ROOT = Path(__file__).parents[1]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "trajclust_jax", "envs", "experiments")


def _run(*command, cwd, **environment):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_users_own_packages_are_not_in_the_way(tmp_path):
    """Research code has folders of the same names, and PYTHONPATH=. set."""
    for name in ("envs", "experiments", "scripts", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the user\\'s own')")
    arrays = {"observations": np.zeros((4, 3, 2), np.float32), "actions": np.zeros((4, 3), np.int64)}
    np.savez(tmp_path / "mine.npz", **arrays, lengths=np.full(4, 3))
    code = "from trajclust_experiments.cli import main; main(['data', 'info', 'mine.npz'])"
    out = _run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=".")
    assert "trajectories  4, of 12 steps" in out


def test_the_top_package_has_what_programs_need(tmp_path):
    """And costs nothing until it is asked, in an archive as in a folder."""
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for name in ("__init__.py", "__init__.pyi"):
            archive.write(ROOT / "trajclust_jax" / name, f"trajclust_jax/{name}")
    code = "import sys, trajclust_jax as t; print(t.__file__, 'jax' in sys.modules, 'PGKmeans' in dir(t))"
    shown = _run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH="packed.zip").split()
    assert shown == [str(tmp_path / "packed.zip/trajclust_jax/__init__.py"), "False", "True"]
    for name in trajclust_jax.__all__:
        assert getattr(trajclust_jax, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'KMeans'"):
        _ = trajclust_jax.KMeans


ALGORITHMS = entries("clusterer", "ceiling", "learner", "relabeller")


@pytest.mark.parametrize("algorithm", sorted({entry.algorithm for entry in ALGORITHMS.values()}, key=str))
def test_help_says_what_each_setting_does(algorithm):
    shown = re.sub(r"^ \|", "", pydoc.plain(pydoc.render_doc(algorithm)), flags=re.M)
    for name, does in settings_of(algorithm).items():
        assert does, f"{name} has no docstring"
        assert f"    {name}" in shown
        assert " ".join(does.split()[:4]) in " ".join(shown.split())


def test_the_package_says_whose_it_is():
    described = importlib.metadata.metadata("trajclust-jax")
    assert described["Author"] == "the Trajclust developers"
    assert described["License-Expression"] == "Apache-2.0"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == trajclust_jax.__version__ == described["Version"]
    readme = (ROOT / "README.md").read_text()
    cited = readme[readme.index("## Citation") :].replace("\n", " ")
    titles = [reference["title"] for reference in citation["references"]]
    assert len(titles) == 5
    for title in titles:
        assert title in " ".join(cited.split())


@pytest.mark.slow
def test_the_wheel_runs_the_main_job_outside_the_clone(tmp_path):
    """In a fresh environment that has the installed dependencies, and nothing of the clone."""
    source, place = tmp_path / "source", tmp_path / "elsewhere"
    source.mkdir()
    place.mkdir()
    for part in filter(Path.exists, (ROOT / name for name in PARTS)):
        if part.is_dir():
            shutil.copytree(part, source / part.name, ignore=shutil.ignore_patterns("__pycache__", "records"))
        else:
            shutil.copy(part, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    _run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path / "wheels", source, cwd=tmp_path)
    _run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh", cwd=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    installed = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "fresh")}))
    # Folders that a .pth names are searched, but their own .pth files, such as an editable install's, are not read.
    present = [path for path in sys.path if path.endswith("site-packages")]
    (installed / "present.pth").write_text("\n".join(present) + "\n")
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    _run(*pip, "--python", python, "install", "--no-deps", "--force-reinstall", wheel, cwd=tmp_path)
    code = (
        "import trajclust_envs, trajclust_experiments, trajclust_jax as t; print(t.__file__, trajclust_envs.__file__)"
    )
    files = _run(python, "-c", code, cwd=place).split()
    assert all(Path(file).is_relative_to(tmp_path / "fresh") for file in files), files
    job = ("run", "pgkmeans/table1", "--preset", "smoke", "--datasets", "diagonal", "--methods", "pg_kmeans_mlp")
    out = _run(tmp_path / "fresh" / "bin" / "trajclust", *job, cwd=place)
    assert "| Diagonal | PG-Kmeans, MLP |" in out
    assert list((place / "results" / "cells").glob("*.json"))
    assert (installed / "trajclust_jax" / "py.typed").exists()
