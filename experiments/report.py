"""Tables and figures from records alone."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.methods import ORACLE
from experiments.runner import ORACLE_VERSION, Cell, build_method
from experiments.tables import Table, get_table, table_names
from trajclust_jax.data import REGISTRY
from trajclust_jax.records import Results, canonical, plain


def table_records(table: Table, preset: str, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stored records that are a table's cells at a preset; of several seed sets the largest.

    Records of an older version of an algorithm do not count. Empty unless something was trained: the oracle alone
    makes no table.
    """
    chosen = []
    for cell in table.cells(table.presets[preset], table.datasets, table.methods, (0,)):
        wanted = _stored_form(cell)
        found = [record for record in records if wanted.items() <= record["cell"].items()]
        if found:
            chosen.append(max(found, key=lambda record: (len(record["cell"].get("seeds", ())), record["id"])))
    trained = {record["cell"]["dataset"] for record in chosen if record["cell"]["method"] != ORACLE}
    return [record for record in chosen if record["cell"]["dataset"] in trained]


def with_stored(
    table: Table, preset: str, records: Sequence[dict[str, Any]], stored: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A run's records and those that earlier runs left of the same table and preset, in the table's order."""
    mine = {_place(record): record for record in records}
    shown = {_place(record): mine.pop(_place(record), record) for record in table_records(table, preset, stored)}
    return [*shown.values(), *mine.values()]


def _place(record: dict[str, Any]) -> str:
    """A record's cell, its seeds apart."""
    return canonical({name: value for name, value in record["cell"].items() if name != "seeds"})


def _stored_form(cell: Cell) -> dict[str, Any]:
    """What the `cell` entry of a record of this cell must hold."""
    base = {name: getattr(cell, name) for name in ("dataset", "size", "data_seed", "method")}
    if cell.method == ORACLE:
        return {**base, "version": ORACLE_VERSION}
    method = build_method(cell, REGISTRY[cell.dataset].num_policies)
    return {**base, "version": method.VERSION, "hyperparameters": plain(dataclasses.asdict(method))}


def write_table(table: Table, records: Sequence[dict[str, Any]], folder: Path) -> tuple[str, list[Path]]:
    """Renders a table into `folder`: table.md and its figures. Returns the Markdown and the files."""
    text, figures = table.render(records)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {path.stem for path in folder.glob("*.png")} - set(figures):
        (folder / f"{stale}.png").unlink()
    files = []
    for stem, figure in figures.items():
        files.append(folder / f"{stem}.png")
        save_figure(figure, files[-1])
    pictures = "".join(f"\n![{file.stem}]({file.name})\n" for file in files)
    files.insert(0, folder / "table.md")
    write_text(files[0], text + pictures)
    return text, files


def write_report(results: Results, out: Path) -> list[dict[str, Any]]:
    """Every table and preset that has records, into `out`, with an index in report.md. Returns what was written."""
    records, written = results.all(), []
    for name in table_names():
        table = get_table(name)
        for preset in table.presets:
            chosen = table_records(table, preset, records)
            if chosen:
                folder = out / name.replace("/", "-") / preset
                text, files = write_table(table, chosen, folder)
                written.append({"table": name, "preset": preset, "files": [str(file) for file in files], "text": text})
    parts = ["# Trajclust report\n"]
    for entry in written:
        link = os.path.relpath(entry["files"][0], out)
        parts.append(f"\n{entry.pop('text')}\nFigures: [{entry['table']}, preset {entry['preset']}]({link})\n")
    missing = [line for name in table_names() for line in _not_run(get_table(name), records)]
    if missing:
        parts.append("\n## Not run\n\n" + "\n".join(missing) + "\n")
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.md", "".join(parts))
    scores_frame(records).to_csv(out / "scores.csv", index=False)
    return written


def _not_run(table: Table, records: Sequence[dict[str, Any]]) -> list[str]:
    """One line a preset whose cells are not all there; the smoke preset is for tests."""
    lines = []
    for preset in table.presets:
        if preset == "smoke":
            continue
        cells = table.cells(table.presets[preset], table.datasets, table.methods, (0,))
        done = {(r["cell"]["dataset"], r["cell"]["method"]) for r in table_records(table, preset, records)}
        absent = {cell.method for cell in cells if cell.method != ORACLE and (cell.dataset, cell.method) not in done}
        if absent:
            lines.append(f"- {table.name}, preset {preset}: {', '.join(sorted(absent))}")
    return lines


def scores_frame(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row a record and seed: the raw scores."""
    rows = []
    for record in records:
        cell = record["cell"]
        base = {key: cell[key] for key in ("dataset", "size", "method")}
        base |= {"preset": record["preset"], "id": record["id"]}
        if "hyperparameters" in cell:
            settings = cell["hyperparameters"]
            base["initial_clusters"] = settings["num_clusters"] + settings.get("extra_clusters", 0)
        if cell["method"] == ORACLE:
            rows.append(base | record["scores"])
            continue
        for index, seed in enumerate(cell["seeds"]):
            rows.append(base | {"seed": seed} | {name: values[index] for name, values in record["scores"].items()})
    return pd.DataFrame(rows)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    figure.savefig(temporary, format="png")
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)
