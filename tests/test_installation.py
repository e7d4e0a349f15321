"""What is installed works wherever it is called from: beside a user's own packages, and outside the clone."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

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
    assert "trajectories           4" in out


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
