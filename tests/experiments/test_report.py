"""The report: every stored table, what is missing, and where the numbers come from, from records alone."""

import dataclasses
import functools
import json
import math

import pandas as pd
import pytest
from html_reader import read_sound

from trajclust_experiments import cli
from trajclust_experiments.cells.cell import load
from trajclust_experiments.cells.methods import ORACLE
from trajclust_experiments.papers import pgkmeans
from trajclust_experiments.rendering import report
from trajclust_experiments.rendering.figures import captioned, new_figure
from trajclust_experiments.rendering.glossary import glossary
from trajclust_experiments.rendering.markdown import markdown_table
from trajclust_experiments.rendering.stored import committed, readable, table_records
from trajclust_experiments.tables import Preset, Standing, Table, get_table
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
    figures = {"all <of> them-pg_kmeans_mlp": figure, "told": captioned(new_figure(1.0, 1.0), "A <line> & a dot.")}
    return text + "\n\n## More\n\nnotes\n", figures


def standings(records):
    mean = {record["cell"]["method"]: record["scores"]["nmi"] for record in records}
    task = records[0]["cell"]["dataset"]
    found = [Standing(task, f"<{name}>", mean[name][0], 0.375, 0.5) for name in METHODS if name in mean]
    return [*found, Standing("odd", "other", None, None, float("nan")), Standing("odd", "o", math.nan, None, math.nan)]


TABLE = Table(
    "odd/<i>&x", 'what | "this" <shows>', ("diagonal", "takeball"), METHODS, PRESETS, cells, render, standings
)
OTHER = dataclasses.replace(
    TABLE, name="report/other", render=lambda records: ("# Other\n\ntext\n", {}), standings=None
)


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A results folder, and two tables to fill from it: `add(dataset, method)` stores a record."""
    tables = {table.name: table for table in (TABLE, OTHER)}
    monkeypatch.setattr(report, "table_names", lambda: tuple(tables))
    monkeypatch.setattr(report, "get_table", tables.get)
    folder = Results(tmp_path / "results")

    def add(dataset, method, *, preset="cpu", settings=(), seeds=2, time=None, flags="", **device):
        cell = next(
            cell
            for cell in cells(PRESETS[preset], (dataset,), (method,), range(seeds))
            if cell.method == method and set(settings) == set(cell.settings) - {("iterations", 2)}
        )
        described = cell.identity(load(cell.dataset, cell.size, cell.data_seed)[0])
        oracle = method == ORACLE
        place = {"device": {"kind": "cpu", "platform": "cpu", "count": 1, **device}, "cpu_count": 2, "python": "3.12.1"}
        place |= {"xla_flags": flags} if flags else {}  # of records of before there is none
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
    """The first page; all of them are sound, and their links to each other lead somewhere."""
    report.write_report(results, tmp_path / "out")
    pages = {path.name: read_sound(path.read_text("utf-8")) for path in (tmp_path / "out").glob("*.html")}
    for found in pages.values():
        for attributes, _ in found.all("a"):
            page, _, place = attributes["href"].partition("#")
            ids = {attributes.get("id") for _, attributes, _ in (pages[page] if page else found).elements}
            assert not place or place in ids
    return pages["report.html"], pages


def test_what_is_no_report_is_in_the_way(tmp_path):
    """A report that was ended on the way is none of it: report.md comes first."""
    assert report.in_the_way(tmp_path) is None
    (tmp_path / "clue.html").write_text("mine")
    assert report.in_the_way(tmp_path) == "clue.html"
    (tmp_path / "report.md").write_text("what I reported on trajclust")
    assert report.in_the_way(tmp_path) == "report.md"
    (tmp_path / "report.md").write_text(report._introduction())
    assert report.in_the_way(tmp_path) is None


def section(text: str, title: str) -> str:
    """A section of report.md, without its heading."""
    return text.partition(f"## {title}\n\n")[2].partition("\n## ")[0]


def test_the_pages_show_every_stored_table(results, tmp_path):
    results.add("diagonal", ORACLE)
    results.add("diagonal", METHODS[0], time="2026-11-20T10:00:00+00:00", kind="<GPU> & co")
    results.add("diagonal", METHODS[1], flags=" --xla_<a>")
    results.add("diagonal", METHODS[0], preset="smoke", time="2026-11-18T10:00:00+00:00")
    found, pages = written(results, tmp_path)
    titles = lambda page: [text for _, text in page.all("h2")]
    odd = "Odd <b> & table, preset"
    assert set(pages) == {"report.html", "odd.html", "report-tables.html", "records.html"}
    assert titles(found) == ["Summary", "Glossary", "What was run", "What was not run"]
    assert titles(pages["odd.html"]) == [f"{odd} smoke", f"{odd} cpu"]
    assert titles(pages["report-tables.html"]) == ["Other, preset smoke", "Other, preset cpu"]
    assert [text for _, text in pages["odd.html"].all("h3")] == ["More", "More"]
    assert len(pages["odd.html"].all("img")) == 4
    captions = {text for _, text in pages["odd.html"].all("figcaption")}
    assert captions == {"All <of> them PG-Kmeans, MLP.", "A <line> & a dot."}
    assert "4 records, made 2026-11-18 to 2026-11-20 (2 of them do not say when); 21 minutes" in found.shown
    assert "Devices: 1 x <GPU> & co (2 cores): 1 record; 1 x cpu (2 cores): 3 records." in found.shown
    assert "python 3.12.1, jax 0.11.2" in found.shown
    assert "XLA_FLAGS of 1 record: --xla_<a>." in found.shown
    assert {"1 of 8", "2 of 8"} <= {text for _, text in found.all("td")}
    links = [attributes["href"] for attributes, text in found.all("a") if text in (TABLE.name, OTHER.name)]
    assert len(set(links)) == 4, "each row of the overview leads to its table"
    for record in results.all():
        assert record["id"] in pages["records.html"].shown
    whole = (tmp_path / "out" / "report.md").read_text("utf-8")
    tables = ["Odd <b> & *table*, preset smoke", "Odd <b> & *table*, preset cpu", *titles(pages["report-tables.html"])]
    assert [line[3:] for line in whole.splitlines() if line.startswith("## ")] == [
        *titles(found)[:-1],
        *tables,
        "All records",
        "What was not run",
    ]


def test_the_summary_has_every_method_beside_the_paper_and_the_oracle(results, tmp_path):
    results.add("diagonal", METHODS[0])
    results.add("diagonal", METHODS[1])
    results.add("diagonal", METHODS[0], preset="smoke")
    found, _ = written(results, tmp_path)
    cells = [(text, attributes.get("style")) for attributes, text in found.all("td")][:12]
    assert [text for text, _ in cells] == [
        *("Diagonal", "0.500", "0.250 (0.38)", "0.250 (0.38)", "-", "-"),
        *("odd", "-", "-", "-", "n/a", "nan"),
    ]
    assert [style for _, style in cells[:5]] == [None, None, "--depth: 0.50", "--depth: 0.50", None]
    assert "From odd/<i>&x, preset cpu." in found.shown, "not from the preset that is for tests"


def test_what_was_not_run_is_a_count_a_table_and_folded(results, tmp_path):
    results.add("diagonal", METHODS[0])
    results.add("diagonal", METHODS[0], settings=[("extra_clusters", 5)], seeds=1)
    results.add("diagonal", METHODS[1], kind="H200", platform="gpu")
    found, _ = written(results, tmp_path)
    missing = section((tmp_path / "out" / "report.md").read_text("utf-8"), "What was not run")
    assert missing.splitlines()[2:4] == [
        r"| odd/\<i\>\&x | cpu | 8 | 5 | 1 | 0 | 1 |",
        "| report/other | cpu | 8 | 5 | 1 | 0 | 1 |",
    ]
    assert [text.strip() for _, text in found.all("summary")] == ["What was not run"]


def test_a_preset_never_begun_is_counted_but_for_that_of_tests(results, tmp_path):
    results.add("diagonal", METHODS[0], time="2026-11-18T10:00:00+00:00", preset="smoke")
    found, _ = written(results, tmp_path)
    rows = found.all("details")[0][1].split("\n")
    counts = {tuple(rows[i : i + 4]) for i, text in enumerate(rows) if text == "report/other"}
    assert counts == {("report/other", "smoke", "8", "7"), ("report/other", "cpu", "8", "8")}
    assert "1 record, made 2026-11-18;" in found.shown


def test_of_many_figures_the_later_are_folded(tmp_path):
    files = [tmp_path / f"{index}.png" for index in range(report.FIGURES + 2)]
    folded = report._pictures(files, [""] * len(files), tmp_path, "T")
    shown, _, more = folded.partition("### More figures, 2 of T")
    assert [shown.count(".png"), more.count(".png")] == [report.FIGURES, 2]
    assert "###" not in report._pictures(files[2:], [""] * len(files[2:]), tmp_path, "T")


def test_the_glossary_explains_what_is_there_and_no_more(results):
    results.add("diagonal", METHODS[0])
    text = glossary(results.all(), ["task", "NMI", "95% interval"])
    assert "| Diagonal | diagonal | 5 ways to walk" in text
    assert "| PG-Kmeans, tabular | pg_kmeans_tabular | clusterer |" in text
    assert "| NMI | Normalised" in text
    assert "takeball" not in text
    assert "calibration error" not in text


def test_what_has_no_answer(results, tmp_path, monkeypatch):
    """A pair that the table never runs, a method that refuses the data, and a ceiling."""
    names = (METHODS[0], "cloning_mlp", "return_kmeans")
    run = lambda preset, datasets, methods, seeds: pgkmeans.cells(preset, datasets, methods[:2], seeds)
    tables = {"odd/third": dataclasses.replace(TABLE, name="odd/third", methods=names, cells=run, standings=None)}
    monkeypatch.setattr(report, "table_names", lambda: tuple(tables))
    monkeypatch.setattr(report, "get_table", tables.get)
    results.add("diagonal", METHODS[0])
    refused = results.read(results.add("diagonal", "cloning_mlp"))
    results.write(refused["id"], {**refused, "not_applicable": "no <labels>", "scores": {}, "warnings": [["odd"], []]})
    _, pages = written(results, tmp_path)
    missing = section((tmp_path / "out" / "report.md").read_text("utf-8"), "What was not run").splitlines()
    assert missing[2] == "| odd/third | cpu | 4 | 2 | 0 | 1 | 0 |"
    assert missing[-2:] == [
        "- odd/third leaves out at any preset: diagonal: Return + k-means. takeball: Return + k-means.",
        r"- Has no answer (no \<labels\>): diagonal: Cloning from true labels, MLP.",
    ]
    row = [text for _, text in pages["records.html"].all("tr") if "Cloning" in text][-1].split("\n")
    assert row[6:8] == ["2", "1"], "of two seeds one is warned of"
    assert pd.read_csv(tmp_path / "out" / "scores.csv")["method"].unique() == [METHODS[0]]


def test_records_of_no_table_are_counted_and_named(results, tmp_path):
    """The oracle alone makes no table, and a record of an unknown method is nobody's."""
    results.add("diagonal", ORACLE)
    id = results.add("diagonal", METHODS[0])
    record = results.read(id)
    record["cell"] |= {"method": "gone", "dataset": "a|b"}
    results.write(id, record)
    found, pages = written(results, tmp_path)
    assert "No table has a record." in found.shown
    assert "2 records, made on days that the records do not say" in found.shown
    rows = [text for _, text in pages["records.html"].all("td")]
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
    read = lambda: {path.name: path.read_bytes() for path in (tmp_path / "a & b").glob("*.html")}
    first = read()
    code, out, _ = trajclust(*arguments, "--json")
    described = json.loads(out)
    assert described["page"] == str(tmp_path / "a & b" / "report.html")
    assert [entry["table"] for entry in described["tables"]] == [TABLE.name, OTHER.name]
    assert len(first) == 4
    assert read() == first, "the same records give the same pages"


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
    assert len(_committed()) == len(committed().ids()) > 0


@pytest.mark.parametrize(
    ("name", "task", "method", "paper", "oracle"),
    [
        ("pgkmeans/table1", "takeball", "PG-Kmeans, MLP", 1.0, 0.995),
        ("offline/returns", "hopper-medium-expert", "BC", 52.3, 94.3),
        ("empo/table1", "navigation", "EMPO, K = 2", None, -299),
        ("empo/table2", "hopper-medium-expert", "IQL", 91.5, 94.3),
    ],
)
def test_tables_of_the_summary(name, task, method, paper, oracle):
    """On the committed records, one number of each."""
    table = get_table(name)
    records = [record for record in _committed() if record["cell"]["dataset"] in (task, "diagonal")]
    found = {(each.dataset, each.method): each for each in table.standings(table_records(table, "cpu", records))}
    standing = found[task, method]
    assert standing.paper == paper
    assert standing.oracle == pytest.approx(oracle, rel=2e-3)
    assert standing.ours == pytest.approx(standing.oracle, rel=0.25)


def test_a_mean_that_is_published_with_its_std_stands_without():
    record = next(record for record in _committed() if record["cell"]["method"] == "lbrac_v")
    record = {**record, "cell": {**record["cell"], "dataset": "hopper-medium-expert"}}
    assert [each.paper for each in get_table("lbrac_v/table1").standings([record])] == [98.08]


@functools.cache
def _committed():
    return readable(committed())
