"""The report: every stored table, what is missing, and where the numbers come from, from records alone."""

import dataclasses
import json

import pandas as pd
import pytest
from html_reader import read_sound

from trajclust_experiments import cli
from trajclust_experiments.cells.cell import load
from trajclust_experiments.cells.methods import ORACLE
from trajclust_experiments.papers import pgkmeans
from trajclust_experiments.rendering import report
from trajclust_experiments.rendering.figures import new_figure
from trajclust_experiments.rendering.markdown import markdown_table
from trajclust_experiments.rendering.stored import committed, readable
from trajclust_experiments.tables import Preset, Table
from trajclust_jax.records import Results

METHODS = ("pg_kmeans_tabular", "pg_kmeans_mlp")
PRESETS = {
    "smoke": Preset("seconds", size=3, seeds=2, settings={METHODS[0]: {"iterations": 2}}),
    "cpu": Preset("minutes", size=2, seeds=2),
}


def cells(preset, datasets, methods, seeds):
    """Two initial numbers of clusters for every method."""
    return [
        *pgkmeans.cells(preset, datasets, methods, seeds),
        *pgkmeans.cells(preset, datasets, methods, seeds, extra_clusters=5),
    ]


def render(records):
    rows = [[r["cell"]["dataset"], r["cell"]["method"], "+0.010"] for r in records if r["cell"]["method"] != ORACLE]
    text = "# Odd <b> & *table*\n\n" + markdown_table(["task", "<method>", "difference"], rows)
    figure = new_figure(1.0, 1.0)
    figure.subplots().plot([0, 1])
    return text + "\n\n## More\n\nnotes\n", {"all <of> them-pg_kmeans_mlp": figure}


TABLE = Table("odd/<i>&x", 'what | "this" <shows>', ("diagonal", "takeball"), METHODS, PRESETS, cells, render)
OTHER = dataclasses.replace(TABLE, name="odd/other", render=lambda records: ("# Other\n\ntext\n", {}))


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A results folder, and two tables to fill from it: `add(dataset, method)` stores a record."""
    tables = {table.name: table for table in (TABLE, OTHER)}
    monkeypatch.setattr(report, "table_names", lambda: tuple(tables))
    monkeypatch.setattr(report, "get_table", tables.get)
    folder = Results(tmp_path / "results")

    def add(dataset, method, *, preset="cpu", settings=(), seeds=2, time=None, **device):
        cell = next(
            cell
            for cell in cells(PRESETS[preset], (dataset,), (method,), range(seeds))
            if cell.method == method and set(settings) == set(cell.settings) - {("iterations", 2)}
        )
        described = cell.identity(load(cell.dataset, cell.size, cell.data_seed)[0])
        oracle = method == ORACLE
        place = {"device": {"kind": "cpu", "platform": "cpu", "count": 1, **device}, "cpu_count": 2, "python": "3.12.1"}
        folder.write(
            id := f"{len(folder.ids()):016x}",
            {
                "id": id,
                "preset": preset,
                "cell": described,
                "scores": {"nmi": 0.5 if oracle else [0.25] * seeds},
                "timing": {"data_seconds": 1.0, "compile_seconds": 20.0, "run_seconds": 300.0},
                "environment": {**place, "versions": {"jax": "0.11.2"}, **({"time": time} if time else {})},
            },
        )
        return id

    folder.add = add
    return folder


@pytest.fixture
def trajclust(capsys, monkeypatch):
    monkeypatch.delenv("TRAJCLUST_DEBUG", raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as exit:
            cli.main([str(a) for a in arguments])
        return exit.value.code or 0, *capsys.readouterr()

    return run


def written(results, tmp_path):
    report.write_report(results, tmp_path / "out")
    return read_sound((tmp_path / "out" / "report.html").read_text("utf-8"))


def section(text: str, title: str) -> str:
    """A section of report.md, without its heading."""
    return text.partition(f"## {title}\n\n")[2].partition("\n## ")[0]


def test_the_page_shows_every_stored_table(results, tmp_path):
    results.add("diagonal", ORACLE)
    results.add("diagonal", METHODS[0], time="2026-11-20T10:00:00+00:00", kind="<GPU> & co")
    results.add("diagonal", METHODS[1])
    results.add("diagonal", METHODS[0], preset="smoke", time="2026-11-18T10:00:00+00:00")
    found = written(results, tmp_path)
    titles = [text for _, text in found.all("h2")]
    odd = "Odd <b> & table, preset"
    tables = [f"{odd} smoke", f"{odd} cpu", "Other, preset smoke", "Other, preset cpu"]
    assert titles == ["What was run", "What was not run", *tables, "All records"]
    assert [text for _, text in found.all("h3")] == ["More", "More"]
    assert len(found.all("img")) == 2
    assert {text for _, text in found.all("figcaption")} == {"all <of> them PG-Kmeans, MLP"}
    assert "4 records, made 2026-11-18 to 2026-11-20 (2 of them do not say when); 21 minutes" in found.shown
    assert "Devices: 1 x <GPU> & co (2 cores): 1 record; 1 x cpu (2 cores): 3 records." in found.shown
    assert "python 3.12.1, jax 0.11.2" in found.shown
    assert {"1 of 8", "2 of 8"} <= {text for _, text in found.all("td")}
    links = [attributes["href"] for attributes, text in found.all("a") if text in (TABLE.name, OTHER.name)]
    assert len(set(links)) == 4, "each row of the overview leads to its table"
    for record in results.all():
        assert record["id"] in found.shown


def test_what_was_not_run(results, tmp_path):
    results.add("diagonal", METHODS[0])
    results.add("diagonal", METHODS[0], settings=[("extra_clusters", 5)], seeds=1)
    results.add("diagonal", METHODS[1], kind="H200", platform="gpu")
    written(results, tmp_path)
    missing = section((tmp_path / "out" / "report.md").read_text("utf-8"), "What was not run")
    absent = (
        "5 of 8 cells are not run. takeball: PG-Kmeans, tabular (default, extra_clusters 5); PG-Kmeans, MLP (default, "
        "extra_clusters 5). diagonal: PG-Kmeans, MLP (extra_clusters 5)."
    )
    fewer = "with fewer seeds than the preset's 2: diagonal: PG-Kmeans, tabular (extra_clusters 5)."
    odd = r"odd/\<i\>\&x, cpu"
    assert missing.splitlines() == [
        f"- {odd}: {absent}",
        f"- odd/other, cpu: {absent}",
        f"- {odd}, {fewer}",
        f"- odd/other, cpu, {fewer}",
    ]


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_gpus_are_missed(results, tmp_path, platform):
    results.add("diagonal", METHODS[0], platform="cpu")
    results.add("diagonal", METHODS[0], preset="smoke", platform=platform)
    written(results, tmp_path)
    missing = section((tmp_path / "out" / "report.md").read_text("utf-8"), "What was not run")
    expected = {"cpu": "every table", "gpu": r"odd/\<i\>\&x, cpu; odd/other, cpu"}[platform]
    assert missing.splitlines()[-1] == f"- Not run on a GPU: {expected}."


def test_a_preset_never_begun_is_one_line(results, tmp_path):
    results.add("diagonal", METHODS[0], preset="smoke", time="2026-11-18T10:00:00+00:00")
    found = written(results, tmp_path)
    assert "odd/other, cpu: none of 8 cells is run." in found.shown
    assert "1 record, made 2026-11-18;" in found.shown


def test_what_has_no_answer(results, tmp_path, monkeypatch):
    """A pair that the table never runs, a method that refuses the data, and a ceiling."""
    names = (METHODS[0], "cloning_mlp", "return_kmeans")
    run = lambda preset, datasets, methods, seeds: pgkmeans.cells(preset, datasets, methods[:2], seeds)
    tables = {"odd/third": dataclasses.replace(TABLE, name="odd/third", methods=names, cells=run)}
    monkeypatch.setattr(report, "table_names", lambda: tuple(tables))
    monkeypatch.setattr(report, "get_table", tables.get)
    results.add("diagonal", METHODS[0])
    refused = results.read(results.add("diagonal", "cloning_mlp"))
    results.write(refused["id"], {**refused, "not_applicable": "no <labels>", "scores": {}, "warnings": [["odd"], []]})
    found = written(results, tmp_path)
    missing = section((tmp_path / "out" / "report.md").read_text("utf-8"), "What was not run")
    assert missing.splitlines() == [
        "- odd/third, cpu: 2 of 4 cells are not run. takeball: PG-Kmeans, tabular; Cloning from true labels, MLP.",
        "- odd/third leaves out at any preset: diagonal: Return + k-means. takeball: Return + k-means.",
        r"- Has no answer (no \<labels\>): diagonal: Cloning from true labels, MLP.",
        "- Not run on a GPU: every table.",
    ]
    row = [text for _, text in found.all("tr") if "Cloning" in text][-1].split("\n")
    assert row[6:8] == ["2", "1"], "of two seeds one is warned of"
    assert pd.read_csv(tmp_path / "out" / "scores.csv")["method"].unique() == [METHODS[0]]


def test_records_of_no_table_are_counted_and_named(results, tmp_path):
    """The oracle alone makes no table, and a record of an unknown method is nobody's."""
    results.add("diagonal", ORACLE)
    id = results.add("diagonal", METHODS[0])
    record = results.read(id)
    record["cell"] |= {"method": "gone", "dataset": "a|b"}
    results.write(id, record)
    found = written(results, tmp_path)
    assert "No table has a record." in found.shown
    assert "2 records, made on days that the records do not say" in found.shown
    rows = [text for _, text in found.all("td")]
    assert {"gone", "a|b"} <= set(rows)
    assert sum(text.startswith("nothing:") for text in rows) == 2
    frame = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert frame["nmi"].tolist() == [0.5, 0.25, 0.25]


def test_the_command(results, tmp_path, trajclust):
    results.add("diagonal", METHODS[0])
    arguments = ("report", "--results", results.folder, "--out", tmp_path / "a & b")
    code, out, err = trajclust(*arguments)
    assert code == 0, err
    assert out.splitlines()[-1] == f"Report: {tmp_path / 'a & b' / 'report.html'}"
    first = (tmp_path / "a & b" / "report.html").read_bytes()
    code, out, _ = trajclust(*arguments, "--json")
    described = json.loads(out)
    assert described["page"] == str(tmp_path / "a & b" / "report.html")
    assert [entry["table"] for entry in described["tables"]] == [TABLE.name, OTHER.name]
    assert (tmp_path / "a & b" / "report.html").read_bytes() == first, "the same records give the same page"


def test_the_commands_exit_codes(results, tmp_path, trajclust):
    assert trajclust("report", "--results", tmp_path / "nowhere", "--out", tmp_path / "out")[0] == 2
    id = results.add("diagonal", METHODS[0])
    file = results.cells / f"{id}.json"
    code, _, err = trajclust("report", "--results", results.folder, "--out", file)
    assert code == 2
    assert "is a file: give a folder" in err
    file.write_text(file.read_text().replace("0.25", "0.99"))
    code, out, err = trajclust("report", "--results", results.folder, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "damaged record" in err
    assert "none of the records there can be shown" in err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_shown_is_named_and_left_out(results, tmp_path, trajclust):
    good = results.add("diagonal", METHODS[0])
    record = results.read(good)
    for id, change in {
        "damaged": None,
        "newer": {"schema": 2},
        "foreign": {"environment": {}},
        "short": {"scores": {"nmi": []}},
    }.items():
        path = results.write(id, {**record, "id": id, **(change or {})})
        if change is None:
            path.write_text(path.read_text().replace("0.25", "0.99"))
    code, _, err = trajclust("report", "--results", results.folder, "--out", tmp_path / "out")
    assert code == 0
    lines = err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("warning: ") for line in lines)
    for what in ("damaged record", "schema 2", "record foreign has no sound environment.device", "scores.nmi"):
        assert what in err
    assert set(pd.read_csv(tmp_path / "out" / "scores.csv", dtype={"id": str})["id"]) == {good}


def test_the_committed_records_can_all_be_shown():
    stored = committed()
    assert len(readable(stored)) == len(stored.ids()) > 0
