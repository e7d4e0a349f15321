"""README.md and docs/: what they show is so."""

import os
import re
import runpy
import shlex
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
import tyro
import update_docs

from trajclust_experiments.catalogue import entries
from trajclust_experiments.cli import Command
from trajclust_experiments.tables import get_table

ROOT = update_docs.ROOT
PAGES = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in update_docs.pages()}
README = PAGES["README.md"]
NAMES = {
    "trajclust",
    "list",
    "run",
    "cluster",
    "assign",
    "train",
    "relabel",
    "data",
    "make",
    "info",
    "convert",
    "report",
}


def python_blocks(page):
    return re.findall(r"^```python\n(.*?)^```", PAGES[page], re.S | re.M)


def commands():
    """Every command line of `trajclust` in code blocks and in running text; a command's mere name is none."""
    found = []
    for page, text in PAGES.items():
        lines = "\n".join(re.findall(r"^```bash\n(.*?)^```", text, re.S | re.M)).splitlines()
        prose = re.sub(r"```.*?```", "", text, flags=re.S)
        lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
        for line in lines:
            command = re.search(r"(?:^|&& )(trajclust \S.*)", line)
            if command and not set(shlex.split(command.group(1), comments=True)) <= NAMES:
                found.append((page, command.group(1)))
    return found


def test_readme_is_short():
    assert len(README.splitlines()) <= 200


def test_generated_blocks_and_index_are_the_records():
    """The blocks of tables are those that `test_committed_records.test_every_stored_table_renders` compares."""
    records = update_docs.committed().all()
    assert update_docs.index(records) == (update_docs.committed().folder / "index.csv").read_text(encoding="utf-8")
    shown = [block[1:5] for text in PAGES.values() for block in update_docs.BLOCK.findall(text)]
    assert len(shown) == len({block[:3] for block in shown})  # nothing stands twice
    for *block, text in shown:
        if block[0] != "table":
            assert text == update_docs.body(*block, records), f"{block}: run python scripts/update_docs.py"
    tables = {(name, preset) for kind, name, preset, _ in shown if kind == "table"}
    folder = update_docs.committed().folder
    stored = (path.parent.relative_to(folder).parts for path in folder.glob("*/*/*/table.md"))
    assert {(f"{paper}/{name}", preset) for paper, name, preset in stored} == tables


def _anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        target, _, anchor = urllib.parse.unquote(link).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = Path(os.path.normpath(ROOT / Path(page).parent / target)) if target else ROOT / page
        assert path.exists(), f"{page}: {link}"
        assert not anchor or anchor in _anchors(PAGES[str(path.relative_to(ROOT))]), f"{page}: {link}"


@pytest.mark.parametrize(("page", "line"), commands())
def test_command_lines_parse(page, line):
    arguments = shlex.split(line, comments=True)[1:]
    command = tyro.cli(Command, args=arguments, config=(tyro.conf.OmitSubcommandPrefixes,))
    if hasattr(command, "table") and page != "docs/extend.md":  # whose own table test_extensions runs
        table = get_table(command.table)
        assert command.preset in table.presets
        for chosen, available in ((command.datasets, table.datasets), (command.methods, table.methods)):
            assert all(any(name.startswith(each) for name in available) for each in chosen), line


SMALLER = {  # a command's numbers, and what shows that it runs
    r"--preset \S+": "--preset smoke",
    r"--size \d+": "--size 10",
    r"hopper-medium-expert (--noise \S+ )?--out": r"hopper-medium-expert \1--size 4 --out",
    r"updates=\d+": "updates=100",
    r"epochs=\d+": "epochs=2",
    r" --gpus-per-cell \S+ --address auto": "",  # a cluster of its own, without GPUs
    r"--expert FILE": "--expert best:1 --set updates=100",
    r"(train DATA .*)": r"\1 --set updates=100 --set-relabel updates=100",
    "DATA": "hopper.npz",
    r"TABLE\.\.\.": "pgkmeans/table1 --preset smoke --datasets diagonal --methods mean_kmeans",
    "FILE": "takeball.npz",
}


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/data.md", "docs/reproduce.md"])
def test_commands_run(page, tmp_path):
    """Every command of a page in turn, smaller; what a page makes is there for its next commands."""
    for line in dict.fromkeys(line for of, line in commands() if of == page):
        for numbers, smaller in SMALLER.items():
            line = re.sub(numbers, smaller, line)
        arguments = shlex.split(line, comments=True)[1:]
        ran = [sys.executable, "-m", "trajclust_experiments.cli", *arguments]
        done = subprocess.run(ran, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr[-2000:])


def test_every_method_and_learner_is_in_readmes_table():
    rows = [row for row in README.splitlines() if row.startswith("|")]
    named = {name for row in rows for name in re.findall(r"`([a-z0-9_]+)`", row)}
    assert set(entries("clusterer", "learner")) <= named


def test_the_readmes_python_example_runs(capsys):
    (code,) = python_blocks("README.md")
    exec(compile(code.replace("size=200", "size=10"), "README.md", "exec"), {})
    assert capsys.readouterr().out == "(3, 40)\n"


def _run_example(name, tmp_path, monkeypatch):
    """What it leaves behind, each cell run in its order."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    path = ROOT / "docs" / "examples" / f"{name}.py"
    cells = re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.M)[1:]
    assert cells[0].startswith(" [markdown]")
    for cell in cells:
        marked = cell.startswith(" [markdown]")
        assert all(line.startswith("#") for line in cell.splitlines()[1:] if line) == marked, cell
    return runpy.run_path(str(path))


@pytest.mark.slow
def test_the_example_of_clustering_runs(tmp_path, monkeypatch):
    left = _run_example("cluster_own_data", tmp_path, monkeypatch)
    assert left["score"] == left["agreement"] == 1
    assert (tmp_path / "clusters.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_example_of_learning_runs(tmp_path, monkeypatch):
    left = _run_example("learn_from_a_cluster", tmp_path, monkeypatch)
    assert left["from_cluster"] > left["everything"] + 500


def test_set_up_is_two_lines():
    block = re.search(r"## Set up and see it work.*?```bash\n(.*?)```", README, re.S).group(1)
    main_job, tests = block.strip().splitlines()
    assert "trajclust run pgkmeans/table1" in main_job
    assert "pytest" in tests
