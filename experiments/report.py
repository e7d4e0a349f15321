"""Tables and figures from records alone."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.methods import ORACLE
from experiments.runner import Cell, build_method
from experiments.tables import Table, get_table, table_names
from trajclust_jax.data import REGISTRY
from trajclust_jax.records import Results, plain


def table_records(table: Table, preset: str, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stored records that are a table's cells at a preset; of several seed sets the largest, ties to the newest id.

    Empty unless something was trained: the oracle alone makes no table.
    """
    chosen = []
    for cell in table.cells(table.presets[preset], table.datasets, table.methods, (0,)):
        wanted = _hyperparameters(cell)
        found = [record for record in records if _is_cell(record["cell"], cell, wanted)]
        if found:
            chosen.append(max(found, key=lambda record: (len(record["cell"].get("seeds", ())), record["id"])))
    trained = {record["cell"]["dataset"] for record in chosen if record["cell"]["method"] != ORACLE}
    return [record for record in chosen if record["cell"]["dataset"] in trained]


def _hyperparameters(cell: Cell) -> dict[str, Any] | None:
    if cell.method == ORACLE:
        return None
    return plain(dataclasses.asdict(build_method(cell, REGISTRY[cell.dataset].num_policies)))


def _is_cell(stored: dict[str, Any], cell: Cell, hyperparameters: dict[str, Any] | None) -> bool:
    same = all(stored[name] == getattr(cell, name) for name in ("dataset", "size", "data_seed", "method"))
    return same and stored.get("hyperparameters") == hyperparameters


def write_table(table: Table, records: Sequence[dict[str, Any]], folder: Path) -> tuple[str, list[Path]]:
    """Renders a table into `folder`: table.md and its figures. Returns the Markdown and the files."""
    text, figures = table.render(records)
    folder.mkdir(parents=True, exist_ok=True)
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
    ran = {(entry["table"], entry["preset"]) for entry in written}
    missing = [
        f"- {name}, preset {preset}"
        for name in table_names()
        for preset in get_table(name).presets
        if (name, preset) not in ran and preset != "smoke"
    ]
    if missing:
        parts.append("\n## Not run\n\n" + "\n".join(missing) + "\n")
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.md", "".join(parts))
    scores_frame(records).to_csv(out / "scores.csv", index=False)
    return written


def scores_frame(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row a record and seed: the raw scores."""
    rows = []
    for record in records:
        cell = record["cell"]
        base = {key: cell[key] for key in ("dataset", "size", "method")} | {"preset": record["preset"]}
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
