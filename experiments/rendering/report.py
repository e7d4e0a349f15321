"""One page with every table that has records."""

import dataclasses
import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trajclust_experiments import catalogue
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.methods import ORACLE
from trajclust_experiments.rendering.markdown import machines, markdown_table, on_gpu, write_text
from trajclust_experiments.rendering.page import FULL_COLOUR, page, slug
from trajclust_experiments.rendering.stored import cell_key, num_seeds, readable, stored_cells, table_records
from trajclust_experiments.rendering.tables import write_table
from trajclust_experiments.tables import Table, get_table, table_names
from trajclust_jax.data import REGISTRY
from trajclust_jax.lazy import lazy
from trajclust_jax.records import RecordError, Results, plain

pd = lazy("pandas")


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
    """Every table and preset that has records, into `out`: report.html, report.md, scores.csv and the tables' folders.

    report.html is report.md with its pictures in it: one file, to open or to send. For `skip` see `readable`. Returns
    what was written.

    Raises:
        RecordError: where no record can be shown.
    """
    records = readable(results, skip)
    if not records:
        raise RecordError(f"{results.cells}: none of the records there can be shown")
    planned = sections(records)
    filled = [section for section in planned if section.shown]
    written, titles, parts = [], [], []
    for section in filled:
        folder = out / section.table.name.replace("/", "-") / section.preset
        text, files = write_table(section.table, section.shown, folder)
        heading, _, body = text.partition("\n")
        titles.append(f"{heading.lstrip('# ')}, preset {section.preset}")
        body = re.sub(r"^(?=#)", "#", body, flags=re.MULTILINE)
        pictures = "".join(_picture(file, out, titles[-1]) for file in files[1:])
        parts.append(f"## {titles[-1]}\n{body}{pictures}")
        files = [str(file) for file in files]
        written.append({"table": section.table.name, "preset": section.preset, "files": files})
    top = [_introduction(records), _overview(filled, titles), _not_run(planned)]
    markdown = "\n".join([*top, *parts, _record_list(records, filled)])
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.md", markdown)
    write_text(out / "report.html", page(markdown, out))
    scores_frame(records).to_csv(out / "scores.csv", index=False)
    return written


def _picture(file: Path, out: Path, title: str) -> str:
    """A figure with what it shows, from its file's name, as caption."""
    caption = _plain_text(" ".join(map(catalogue.title, file.stem.split("-"))))
    link = quote(os.path.relpath(file, out))
    return f'\n![Figure: {caption}, of {title}]({link} "{caption}")\n'


def _introduction(records: Sequence[dict[str, Any]]) -> str:
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
        "# Trajclust report",
        "",
        "Which policy made which trajectory? Every table and figure of the papers that stored records fill, ours",
        "beside the published numbers, made from the records alone. A column `difference` is ours minus the paper's:",
        f"on the page blue above the paper's number and orange below, deepest where {FULL_COLOUR} or more apart.",
        "",
        f"- {_counted(len(records), 'record')}, made {made}; {seconds / 60:.0f} minutes of computing in all.",
        f"- Devices: {_plain_text('; '.join(counted))}.",
        "- Versions: " + ", ".join(f"{name} {' and '.join(sorted(each))}" for name, each in versions.items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def _overview(filled: Sequence[Section], titles: Sequence[str]) -> str:
    """One row a table and preset: how much of it there is, and what it cost."""
    header = ["table", "preset", "cells", "shows", "trajectories a policy", "seeds", "device", "compile, s", "run, s"]
    rows = []
    for section, title in zip(filled, titles, strict=True):
        done, preset = section.done, section.table.presets[section.preset]
        _, compiling, running = map(sum, zip(*map(_seconds, done), strict=True))
        rows.append(
            [
                f"[{_plain_text(section.table.name)}](#{slug(title)})",
                _plain_text(section.preset),
                f"{len(done)} of {len(section.cells)}",
                _plain_text(section.table.summary),
                f"{preset.size:,}",
                ", ".join(map(str, sorted({num_seeds(record) for record in done}))),
                _plain_text("; ".join(sorted(set(map(_device, done))))),
                f"{compiling:,.0f}",
                f"{running:,.0f}",
            ]
        )
    return "## What was run\n\n" + (markdown_table(header, rows) if rows else "No table has a record.") + "\n"


def _not_run(planned: Sequence[Section]) -> str:
    """What is missing, and what has no answer. The smoke preset is for tests: it counts only where it was begun."""
    groups = (_missing, _with_fewer_seeds, _left_out, _refused, _not_on_a_gpu)
    lines = [f"- {line}" for group in groups for line in group(planned)]
    return "## What was not run\n\n" + ("\n".join(lines) or "Nothing is missing.") + "\n"


def _missing(planned: Sequence[Section]) -> Iterator[str]:
    for section in planned:
        absent = [cell for cell, record in section.cells.items() if record is None]
        if not section.done and section.preset != "smoke":
            yield f"{_plain_text(section.name)}: none of {len(absent)} cells is run."
        elif absent and section.done:
            cells = _listed((cell.dataset, cell.method, _special(cell, section)) for cell in absent)
            yield f"{_plain_text(section.name)}: {len(absent)} of {len(section.cells)} cells are not run. {cells}"


def _with_fewer_seeds(planned: Sequence[Section]) -> Iterator[str]:
    for section in planned:
        seeds = section.table.presets[section.preset].seeds
        short = [cell for cell, record in section.cells.items() if record and num_seeds(record) < seeds]
        if short:
            cells = _listed((cell.dataset, cell.method, _special(cell, section)) for cell in short)
            yield f"{_plain_text(section.name)}, with fewer seeds than the preset's {seeds}: {cells}"


def _left_out(planned: Sequence[Section]) -> Iterator[str]:
    """Datasets and methods of a table that it never puts together."""
    for table in {section.table.name: section.table for section in planned if section.done}.values():
        pairs = {(cell.dataset, cell.method) for section in planned if section.table is table for cell in section.cells}
        absent = [pair for pair in itertools.product(table.datasets, table.methods) if pair not in pairs]
        if absent:
            yield f"{_plain_text(table.name)} leaves out at any preset: {_listed((*pair, '') for pair in absent)}"


def _refused(planned: Sequence[Section]) -> Iterator[str]:
    """What a method cannot cluster, with its reason."""
    reasons: dict[str, dict[tuple[str, str, str], None]] = defaultdict(dict)
    for record in (record for section in planned for record in section.done if "not_applicable" in record):
        reasons[record["not_applicable"]][record["cell"]["dataset"], record["cell"]["method"], ""] = None
    for reason, entries in reasons.items():
        yield f"Has no answer ({_plain_text(reason)}): {_listed(entries)}"


def _not_on_a_gpu(planned: Sequence[Section]) -> Iterator[str]:
    filled = [section for section in planned if section.done]
    elsewhere = [section.name for section in filled if not any(map(on_gpu, section.done))]
    if elsewhere or not filled:
        names = _plain_text("; ".join(elsewhere)) if len(elsewhere) < len(filled) else "every table"
        yield f"Not run on a GPU: {names}."


def _special(cell: Cell, section: Section) -> str:
    """The cell's settings that are not its preset's."""
    usual = section.table.presets[section.preset].settings.get(cell.method, {})
    settings = sorted(set(cell.settings) - set(usual.items()))
    return " ".join(f"{name} {value}" for name, value in settings)


def _listed(entries: Iterable[tuple[str, str, str]]) -> str:
    """Dataset, method and what is special, by dataset and method."""
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for dataset, method, special in entries:
        groups[dataset][catalogue.title(method)].append(special or "default")
    parts = []
    for dataset, methods in groups.items():
        names = [name + (f" ({', '.join(each)})" if each != ["default"] else "") for name, each in methods.items()]
        parts.append(f"{dataset}: {'; '.join(names)}.")
    return _plain_text(" ".join(parts))


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
    rows = [list(map(_plain_text, row)) for row in rows]
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


def _plain_text(text: str) -> str:
    """As Markdown that shows just this text, whatever a name holds."""
    return re.sub(r"([\\`*<>\[\]|&\"])", r"\\\1", text)


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
