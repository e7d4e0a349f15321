"""The arrows of the design: who may import whom, and what no file may do."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from trajclust_jax.data import bandit_dataset, save_npz

ROOT = Path(__file__).parents[1]
PACKAGES = ("envs", "trajclust_jax", "experiments", "scripts")

FORBIDDEN = {
    "envs": ("trajclust_jax", "trajclust_experiments"),
    "trajclust_jax": ("trajclust_experiments",),
    "trajclust_jax/data": ("trajclust_jax.clustering", "trajclust_jax.learners", "trajclust_jax.training"),
    "trajclust_jax/networks": (
        "trajclust_envs",
        "trajclust_jax.clustering",
        "trajclust_jax.learners",
        "trajclust_jax.training",
    ),
    "trajclust_jax/metrics": ("trajclust_jax.clustering", "trajclust_jax.learners", "trajclust_jax.training"),
    "trajclust_jax/clustering": ("trajclust_jax.learners", "trajclust_jax.relabelling"),
    "trajclust_jax/relabelling": ("trajclust_jax.clustering", "trajclust_jax.learners"),
    "trajclust_jax/learners": ("trajclust_jax.relabelling",),
    "trajclust_jax/clustering/policies": (
        "trajclust_jax.clustering.clusterer",
        "trajclust_jax.clustering.mixture",
        "trajclust_jax.clustering.representation",
        "trajclust_jax.training",
    ),
    "experiments/cells": (
        "trajclust_experiments.commands",
        "trajclust_experiments.papers",
        "trajclust_experiments.presets",
        "trajclust_experiments.rendering",
        "trajclust_experiments.tables",
    ),
    "experiments/launchers": ("trajclust_experiments.commands", "trajclust_experiments.papers"),
    "experiments/rendering": ("trajclust_experiments.commands", "trajclust_experiments.papers"),
    "experiments/papers": ("trajclust_experiments.cli", "trajclust_experiments.commands"),
    "experiments/commands": ("trajclust_experiments.cli", "trajclust_experiments.papers"),
}
ROOMS = ("cells", "commands", "launchers", "papers", "records", "rendering")


def _files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _imports(path: Path) -> set[str]:
    return {name for node in ast.walk(ast.parse(path.read_text())) for name in _imported(node)}


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "lazy":
        return {node.args[0].value}
    if isinstance(node, ast.ImportFrom):
        return {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return set()


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_data_flows_one_way(folder):
    files = _files(folder)
    assert files, folder
    for path in files:
        for name in _imports(path):
            assert not name.startswith(FORBIDDEN[folder]), f"{path} imports {name}"


def test_rooms_of_experiments():
    """Every folder is known here; no paper imports another; the command line parses, and imports no work."""
    folders = {path.name for path in (ROOT / "experiments").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ROOMS)
    papers = [path for path in (ROOT / "experiments/papers").iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert len(papers) > 2
    for paper in papers:
        others = tuple(f"trajclust_experiments.papers.{other.name}" for other in papers if other != paper)
        for path in _files(f"experiments/papers/{paper.name}"):
            assert not any(name.startswith(others) for name in _imports(path)), path
    heavy = {"jax", "numpy", "matplotlib", "pandas"}
    tree = ast.parse((ROOT / "experiments/cli.py").read_text())
    at_start = {name for node in tree.body for name in _imported(node)}
    assert not {name.split(".")[0] for name in at_start} & heavy


@pytest.mark.parametrize("folder", PACKAGES)
def test_nothing_is_imported_by_a_name_that_users_have(folder):
    for path in _files(folder):
        assert not {name.split(".")[0] for name in _imports(path)} & {"envs", "experiments", "scripts", "tests"}, path


def test_every_package_is_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    installed = {name: name for name in settings["packages"]}
    for package, folder in settings["package-dir"].items():
        installed = {name: re.sub(f"^{package}(?=$|\\.)", folder, of) for name, of in installed.items()}
    found = {str(path.parent.relative_to(ROOT)).replace("/", ".") for name in PACKAGES[:3] for path in _files(name)}
    assert set(installed.values()) == found


def test_clustering_never_sees_labels():
    for path in _files("trajclust_jax/clustering"):
        if path.name in ("oracle.py", "cloning.py"):  # ceilings use the truth, by their purpose
            continue
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        attributes = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not {"labels", "Dataset", "true_log_likelihoods"} & (names | attributes), path


def test_relabelling_never_sees_labels():
    """But where a dataset is written, which keeps its labels."""
    for path in _files("trajclust_jax/relabelling"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name != "relabelled_dataset":
                attributes = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
                assert not {"labels", "true_log_likelihoods"} & attributes, f"{path}: {node.name}"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_nothing_under_way_or_large_is_tracked():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        assert not name.endswith((".lease", ".lock")), name
        assert "work" not in Path(name).parts, name  # a results folder's checkpoints
        assert not (ROOT / name).exists() or (ROOT / name).stat().st_size < 2**20, name


@pytest.mark.parametrize("package", PACKAGES)
def test_no_pickle_float64_or_callbacks_in_jax_code(package):
    for path in _files(package):
        text = path.read_text().replace('"jax_enable_x64": False,', "")  # where another value is refused
        for word in (
            "allow_pickle=True",
            "import pickle",
            "jax_enable_x64",
            "enable_x64(",
            "io_callback",
            "pure_callback",
            "PRNGKey(",
        ):
            assert word not in text, f"{path}: {word}"


HEAVY = ("distrax", "gymnasium", "gymnax", "matplotlib", "minari", "orbax", "pandas", "scipy", "seaborn", "wandb")


@pytest.mark.parametrize("arguments", [["list"], ["data", "info"]])
def test_what_a_command_does_without_is_not_imported(arguments, tmp_path):
    """Each of these takes longer to import than the command does to run."""
    heavy = HEAVY
    if arguments == ["list"]:  # which names algorithms
        heavy += ("chex", "optax", "trajclust_jax.clustering", "trajclust_jax.learners")
    if arguments[-1] == "info":
        bandit = bandit_dataset(2)
        save_npz(bandit, tmp_path / "bandit.npz")
        arguments = [*arguments, "bandit.npz"]
    code = (
        "import sys\nfrom trajclust_experiments import cli\n"
        f"try:\n    cli.main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print(sorted(set({heavy!r}) & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert shown.stdout.splitlines()[-1] == "[]"
