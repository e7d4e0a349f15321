"""The report: pages with every table that has records."""

import dataclasses
import itertools
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trajclust_experiments import catalogue
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.methods import ORACLE
from trajclust_experiments.rendering.columns import dataset_title
from trajclust_experiments.rendering.figures import caption_of
from trajclust_experiments.rendering.glossary import glossary
from trajclust_experiments.rendering.markdown import (
    machines,
    markdown_table,
    on_gpu,
    plain_text,
    table_of,
    write_text,
)
from trajclust_experiments.rendering.page import FULL_COLOUR, page, slug
from trajclust_experiments.rendering.stored import cell_key, num_seeds, readable, stored_cells, table_records
from trajclust_experiments.rendering.tables import rendered, with_nan, write_rendered
from trajclust_experiments.tables import Standing, Table, get_table, paper_title, table_names
from trajclust_jax.data import REGISTRY
from trajclust_jax.lazy import lazy
from trajclust_jax.records import RecordError, Results, plain

pd = lazy("pandas")

INDEX, RECORDS = "report.html", "records.html"  # the pages beside those of papers
TEXT, SCORES = "report.md", "scores.csv"
TITLE = "Trajclust report"
NOT_RUN, MORE = "What was not run", "More figures"  # sections that are folded
FIGURES = 4  # of a table, that are not folded


@dataclasses.dataclass(frozen=True)
class Section:
    """A table at a preset, and the stored records of its cells."""

    table: Table
    preset: str
    cells: dict[Cell, dict[str, Any] | None]  # those that train
    shown: list[dict[str, Any]]  # the records that the table shows, the oracle's among them

    @property
    def name(self) -> str:
        return f"{self.table.name}, {self.preset}"

    @property
    def done(self) -> list[dict[str, Any]]:
        return [record for record in self.cells.values() if record is not None]


@dataclasses.dataclass(frozen=True)
class Chapter:
    """A section as it stands in the report."""

    section: Section
    title: str
    page: str  # the file that it is in
    text: str


def sections(records: Sequence[dict[str, Any]]) -> list[Section]:
    """Every table at every preset, with and without records."""
    found = []
    for table in map(get_table, table_names()):
        for preset in table.presets:
            cells = stored_cells(table, preset, records)
            trained = {cell: record for cell, record in cells.items() if cell.method != ORACLE}
            found.append(Section(table, preset, trained, table_records(table, preset, records)))
    return found


def write_report(results: Results, out: Path, skip: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """Every table and preset that has records, into `out`: pages, report.md, scores.csv and the tables' folders.

    report.html has the summary, the glossary and what was run; a page a paper its tables and figures; records.html all
    records. Each is one file with its pictures in it; they link to each other. report.md holds the same in one file.
    For `skip` see `readable`. Returns what was written.

    Raises:
        RecordError: where no record can be shown.
    """
    records = readable(results, skip)
    if not records:
        raise RecordError(f"{results.cells}: none of the records there can be shown")
    planned = sections(records)
    done: Counter[str] = Counter()
    for section in planned:
        done[_paper(section.table)] += len(section.done)
    planned.sort(key=lambda section: -done[_paper(section.table)])  # the papers that most is known of come first
    written, chapters, headers = [], [], set()
    for section in planned:
        if not section.shown:
            continue
        folder = out / section.table.name.replace("/", "-") / section.preset
        text, figures = rendered(section.table, section.shown)
        files = write_rendered(text, figures, folder, sharp=True)
        heading, _, body = text.partition("\n")
        title = f"{heading.lstrip('# ')}, preset {section.preset}"
        body = re.sub(r"^(?=#)", "#", body, flags=re.MULTILINE)
        pictures = _pictures(files[1:], list(map(caption_of, figures.values())), out, title)
        chapters.append(Chapter(section, title, _page_of(section.table), f"## {title}\n{body}{pictures}"))
        headers.update(table_of(text)[0])
        written.append({"table": section.table.name, "preset": section.preset, "files": list(map(str, files))})
    _write_pages(records, planned, chapters, headers, out)
    scores_frame(records).to_csv(out / SCORES, index=False)
    return written


def _write_pages(
    records: Sequence[dict[str, Any]],
    planned: Sequence[Section],
    chapters: Sequence[Chapter],
    headers: Collection[str],
    out: Path,
) -> None:
    """The Markdown file, and the pages: the same text, but for where the overview's links lead."""
    every, missing = _record_list(records, [chapter.section for chapter in chapters]), _not_run(planned)

    def top(link: Callable[[Chapter], str]) -> list[str]:
        parts = [_introduction(), _summary(chapters, link), glossary(records, headers)]
        return [*filter(None, parts), _overview(records, chapters, link)]

    anchor = lambda chapter: f"#{slug(chapter.title)}"
    in_file = [*top(anchor), *(chapter.text for chapter in chapters), every, missing]
    in_index = [*top(lambda chapter: quote(chapter.page) + anchor(chapter)), missing]
    names, texts = {INDEX: "Report"}, {INDEX: in_index}
    for chapter in chapters:
        paper = _paper(chapter.section.table)
        names[chapter.page] = paper_title(paper)
        texts.setdefault(chapter.page, [f"# {plain_text(names[chapter.page])}\n"]).append(chapter.text)
    names[RECORDS], texts[RECORDS] = "All records", ["# All records\n", every]
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / TEXT, "\n".join(in_file))
    pages = [(name, quote(file)) for file, name in names.items()]
    for file, parts in texts.items():
        write_text(out / file, page("\n".join(parts), out, folded=(NOT_RUN, MORE), pages=pages, here=quote(file)))


def in_the_way(out: Path) -> str | None:
    """A file in `out` that a report would replace and that is no report's; None without one."""
    if any(TITLE in (out / name).read_text("utf-8", "replace") for name in (INDEX, TEXT) if (out / name).is_file()):
        return None
    names = (INDEX, RECORDS, TEXT, SCORES, *(_page_of(get_table(name)) for name in table_names()))
    return next((name for name in names if (out / name).exists()), None)


def _paper(table: Table) -> str:
    return table.name.partition("/")[0]


def _page_of(table: Table) -> str:
    """The name of a paper's page; no other file of the report has it."""
    name = slug(_paper(table)) or "tables"
    return f"{name}-tables.html" if f"{name}.html" in (INDEX, RECORDS) else f"{name}.html"


def _pictures(files: Sequence[Path], captions: Sequence[str], out: Path, title: str) -> str:
    """Figures with what they show as captions, or else their files' names; `FIGURES`, and the others folded."""
    parts = []
    for file, caption in zip(files, captions, strict=True):
        words = " ".join(map(catalogue.title, file.stem.split("-")))
        caption = plain_text(caption or f"{words[:1].upper()}{words[1:]}.")
        link = quote(os.path.relpath(file, out))
        parts.append(f'\n![Figure: {caption.rstrip(".")}, of {title}]({link} "{caption}")\n')
    if len(parts) > FIGURES:
        parts.insert(FIGURES, f"\n### {MORE}, {len(parts) - FIGURES} of {title}\n")
    return "".join(parts)


def _summary(chapters: Sequence[Chapter], link: Callable[[Chapter], str]) -> str:
    """Task by method: ours, the paper's, and the oracle's, of the tables that know what is hard to beat."""
    parts = []
    tables = {chapter.section.table.name: chapter.section.table for chapter in chapters}
    for table in (table for table in tables.values() if table.standings):
        of_table = [chapter for chapter in chapters if chapter.section.table is table]
        chosen = max(of_table, key=lambda each: (each.section.preset != "smoke", len(each.section.done)))
        found = table.standings([with_nan(record) for record in chosen.section.shown])
        if found:
            heading = plain_text(table.summary[0].upper() + table.summary[1:])
            place = f"[{plain_text(table.name)}]({link(chosen)}), preset {plain_text(chosen.section.preset)}"
            parts.append(f"### {heading}\n\n{_standings(table, found)}\n\nFrom {place}.\n")
    if not parts:
        return ""
    explained = (
        "Means over seeds, in brackets what the paper says. On the page orange is below the oracle (of returns: below "
        "the best that the data hold), the deeper the further; the deepest is as far below as the oracle is from zero. "
        "n/a: the method has no answer there; nan: a seed diverged; -: not run."
    )
    return "\n".join([f"## Summary\n\n{explained}\n", *parts])


def _standings(table: Table, found: Sequence[Standing]) -> str:
    """A Markdown table, tasks in the table's order, methods in that of `found`."""
    methods = list(dict.fromkeys(standing.method for standing in found))
    places = {(standing.dataset, standing.method): standing for standing in found}
    largest = max((abs(standing.oracle) for standing in found if math.isfinite(standing.oracle)), default=1.0)
    digits = 3 if largest <= 1 else 1 if largest < 200 else 0
    number = lambda value, digits: f"{value:.{digits}f}"

    def cell(standing: Standing | None) -> str:
        if standing is None:
            return "-"
        ours = "n/a" if standing.ours is None else number(standing.ours, digits)
        return ours + ("" if standing.paper is None else f" ({number(standing.paper, min(digits, 2))})")

    rows = []
    oracles = {standing.dataset: standing.oracle for standing in found}
    for dataset in (name for name in dict.fromkeys((*table.datasets, *oracles)) if name in oracles):
        oracle = oracles[dataset]
        cells = [cell(places.get((dataset, method))) for method in methods]
        rows.append([dataset_title(dataset), number(oracle, digits) if math.isfinite(oracle) else "-", *cells])
    return markdown_table(["task", "oracle", *map(plain_text, methods)], [list(map(plain_text, row)) for row in rows])


def _introduction() -> str:
    lines = [
        f"# {TITLE}",
        "",
        "Which policy made which trajectory? Every table and figure of the papers that stored records fill, ours",
        "beside the published numbers, made from the records alone. A column `difference` is ours minus the paper's:",
        f"on the page blue above the paper's number and orange below, deepest where {FULL_COLOUR} or more apart.",
    ]
    return "\n".join(lines) + "\n"


def _made(records: Sequence[dict[str, Any]]) -> str:
    """When, where and with what the records were made."""
    places = [record["environment"] for record in records]
    times = [place["time"] for place in places if "time" in place]
    days = sorted({time[:10] for time in times})
    made = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "on days that the records do not say"
    if 0 < len(times) < len(records):
        made += f" ({len(records) - len(times)} of them do not say when)"
    devices = Counter(map(_device, records))
    versions: dict[str, set[str]] = defaultdict(set)
    for place in places:
        for name, version in {"python": place["python"], **place["versions"]}.items():
            versions[name].add(version)
    seconds = sum(sum(_seconds(record)[1:]) for record in records)  # cells share the data that they count
    counted = [f"{device}: {_counted(number, 'record')}" for device, number in sorted(devices.items())]
    lines = [
        f"- {_counted(len(records), 'record')}, made {made}; {seconds / 60:.0f} minutes of computing in all.",
        f"- Devices: {plain_text('; '.join(counted))}.",
        "- Versions: " + ", ".join(f"{name} {' and '.join(sorted(each))}" for name, each in versions.items()) + ".",
    ]
    flags = Counter(place["xla_flags"] for place in places if place.get("xla_flags"))
    lines += [
        f"- XLA_FLAGS of {_counted(number, 'record')}: {plain_text(each.strip())}." for each, number in flags.items()
    ]
    return "\n".join(lines) + "\n"


def _overview(records: Sequence[dict[str, Any]], chapters: Sequence[Chapter], link: Callable[[Chapter], str]) -> str:
    """One row a table and preset: how much of it there is, and what it cost."""
    header = ["table", "preset", "cells", "shows", "trajectories a policy", "seeds", "device", "compile, s", "run, s"]
    rows = []
    for chapter in chapters:
        section = chapter.section
        done, preset = section.done, section.table.presets[section.preset]
        _, compiling, running = map(sum, zip(*map(_seconds, done), strict=True))
        rows.append(
            [
                f"[{plain_text(section.table.name)}]({link(chapter)})",
                plain_text(section.preset),
                f"{len(done)} of {len(section.cells)}",
                plain_text(section.table.summary),
                f"{preset.size:,}",
                ", ".join(map(str, sorted({num_seeds(record) for record in done}))),
                plain_text("; ".join(sorted(set(map(_device, done))))),
                f"{compiling:,.0f}",
                f"{running:,.0f}",
            ]
        )
    table = markdown_table(header, rows) if rows else "No table has a record."
    return f"## What was run\n\n{_made(records)}\n{table}\n"


def _not_run(planned: Sequence[Section]) -> str:
    """How much is missing, and what has no answer. The smoke preset is for tests: it counts only where it was begun."""
    header = ["table", "preset", "cells", "not run", "with fewer seeds", "without an answer", "on a GPU"]
    rows = []
    for section in planned:
        if section.preset == "smoke" and not section.done:
            continue
        seeds = section.table.presets[section.preset].seeds
        counts = [
            len(section.cells) - len(section.done),
            sum(num_seeds(record) < seeds for record in section.done),
            sum("not_applicable" in record for record in section.done),
            sum(map(on_gpu, section.done)),
        ]
        names = [plain_text(section.table.name), plain_text(section.preset)]
        rows.append([*names, f"{len(section.cells):,}", *(f"{count:,}" for count in counts)])
    lines = [f"- {line}" for group in (_left_out, _refused) for line in group(planned)]
    counted = markdown_table(header, rows) if rows else "Nothing is missing."
    explained = "`trajclust sweep TABLE --preset PRESET --dry-run` names the cells that a table lacks."
    return "\n".join([f"## {NOT_RUN}\n", counted, "", explained, *(["", *lines] if lines else []), ""])


def _left_out(planned: Sequence[Section]) -> Iterator[str]:
    """Datasets and methods of a table that it never puts together."""
    for table in {section.table.name: section.table for section in planned if section.done}.values():
        pairs = {(cell.dataset, cell.method) for section in planned if section.table is table for cell in section.cells}
        absent = [pair for pair in itertools.product(table.datasets, table.methods) if pair not in pairs]
        if absent:
            yield f"{plain_text(table.name)} leaves out at any preset: {_listed(absent)}"


def _refused(planned: Sequence[Section]) -> Iterator[str]:
    """What a method cannot cluster, with its reason."""
    reasons: dict[str, dict[tuple[str, str], None]] = defaultdict(dict)
    for record in (record for section in planned for record in section.done if "not_applicable" in record):
        reasons[record["not_applicable"]][record["cell"]["dataset"], record["cell"]["method"]] = None
    for reason, entries in reasons.items():
        yield f"Has no answer ({plain_text(reason)}): {_listed(entries)}"


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    """Methods, by dataset."""
    groups: dict[str, list[str]] = defaultdict(list)
    for dataset, method in pairs:
        groups[dataset].append(catalogue.title(method))
    return plain_text(" ".join(f"{dataset}: {'; '.join(methods)}." for dataset, methods in groups.items()))


def _record_list(records: Sequence[dict[str, Any]], filled: Sequence[Section]) -> str:
    """One row a record: what it is of, what it cost, and where it is shown."""
    header = ["dataset", "method", "settings not by default", "preset", "trajectories a policy", "seeds", "warned"]
    header += ["data, s", "compile, s", "run, s", "device", "jax", "made (UTC)", "shown in", "record"]
    rows = []
    for record in sorted(records, key=lambda record: (record["preset"], cell_key(record))):
        cell, place = record["cell"], record["environment"]
        shown = [section.name for section in filled if record in section.shown]
        rows.append(
            [
                cell["dataset"],
                catalogue.title(cell["method"]),
                _unusual(cell),
                record["preset"],
                f"{cell['size']:,}",
                str(num_seeds(record) or "-"),
                str(sum(map(bool, record["warnings"]))) if "warnings" in record else "-",
                *(f"{seconds:,.1f}" for seconds in _seconds(record)),
                _device(record),
                place["versions"]["jax"],
                place.get("time", "-").removesuffix("+00:00").replace("T", " "),
                "; ".join(shown) or "nothing: of an older version, with fewer seeds, or not a table's",
                record["id"],
            ]
        )
    rows = [list(map(plain_text, row)) for row in rows]
    return "## All records\n\n" + markdown_table(header, rows) + "\n"


def _unusual(cell: dict[str, Any]) -> str:
    """The hyperparameters of a record's cell that are not the method's default."""
    if "settings" in cell:  # a learner's cell: these alone
        settings = cell["settings"] | ({"clusters": cell["clusters"]} if cell["clusters"] else {})
        settings |= {"plugin": cell["plugin"]["name"]} if "plugin" in cell else {}
        settings |= {name: cell[name] for name in ("transitions", "draw") if name in cell}
        return ", ".join(f"{name} {value}" for name, value in settings.items()) or "-"
    known = catalogue.entries("clusterer", "ceiling", "centres")
    if "hyperparameters" not in cell or cell["method"] not in known or cell["dataset"] not in REGISTRY:
        return "-"
    method = known[cell["method"]].build(REGISTRY[cell["dataset"]].num_policies)
    default = plain(dataclasses.asdict(method))
    settings = cell["hyperparameters"].items()
    return ", ".join(f"{name} {value}" for name, value in settings if value != default.get(name)) or "-"


def _seconds(record: dict[str, Any]) -> tuple[float, float, float]:
    """Making the data, compiling, running."""
    timing = record["timing"]
    return timing["data_seconds"], timing["compile_seconds"], timing["run_seconds"]


def _device(record: dict[str, Any]) -> str:
    return ", ".join(machines(record))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def scores_frame(records: Sequence[dict[str, Any]]) -> "pd.DataFrame":
    """One row a record and seed: the raw scores."""
    rows = []
    for record in records:
        cell = record["cell"]
        base = {key: cell[key] for key in ("dataset", "size", "method")}
        base |= {"preset": record["preset"], "id": record["id"]}
        settings = cell.get("hyperparameters", {})
        if "num_clusters" in settings:
            base["initial_clusters"] = settings["num_clusters"] + settings.get("extra_clusters", 0)
        if "not_applicable" in record:
            continue
        if "seeds" not in cell:
            rows.append(base | record["scores"])
            continue
        for index, seed in enumerate(cell["seeds"]):
            rows.append(base | {"seed": seed} | {name: values[index] for name, values in record["scores"].items()})
    return pd.DataFrame(rows)
