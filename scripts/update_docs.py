"""Writes every generated block of README.md and docs/, and experiments/records' index and tables, from stored records.

python scripts/update_docs.py            rewrite them
python scripts/update_docs.py --check    fail if they are not what the records say

A block stands between `<!-- KIND NAME PRESET -->` and `<!-- end -->`; the markers alone say which page holds what:

    table TABLE PRESET     a table without its title
    digest TABLE PRESET    a table's methods of `DIGEST`: ours, the paper's and the oracle's NMI, a line a task
    experts mujoco         the MuJoCo policies that come with the package
    benchmark FILE         a record of scripts/benchmark.py
    scale FILE             a record of scripts/measure_scale.py
    compiled FILE          a record of scripts/compile_for_devices.py
"""

import csv
import dataclasses
import io
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from trajclust_envs.mujoco import TASKS, shipped_tasks
from trajclust_experiments.papers import pgkmeans
from trajclust_experiments.rendering.columns import dataset_title
from trajclust_experiments.rendering.markdown import device_name, markdown_table, provenance, spread, write_text
from trajclust_experiments.rendering.report import sections
from trajclust_experiments.rendering.stored import answered, committed, grouped, oracle_nmi, table_records
from trajclust_experiments.rendering.tables import rendered, write_rendered
from trajclust_experiments.tables import get_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
KINDS = "table|digest|benchmark|experts|scale|compiled"
BLOCK = re.compile(rf"(<!-- ({KINDS}) (\S+) ?(\S*) -->\n)(.*?)(<!-- end -->)", re.S)
DIGEST = {"PG-Kmeans": ("pg_kmeans_planner", "pg_kmeans_mlp"), "CAAE": ("caae",)}  # of each the first that has scores


@dataclasses.dataclass(frozen=True)
class Update:
    """Writes the blocks of README.md and docs/, and the index and the tables of experiments/records, from its cells."""

    check: bool = False
    """Change nothing; exit with 1 if a page or the index is out of date."""


def pages() -> list[Path]:
    """The files that may have blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def shown_tables(records: Sequence[dict[str, Any]]) -> "dict[tuple[str, str], tuple[str, dict[str, Figure]]]":
    """By name and preset the tables that pages show: Markdown and figures."""
    blocks = [block for page in pages() for block in BLOCK.findall(page.read_text(encoding="utf-8"))]
    places = sorted((name, preset) for _, kind, name, preset, *_ in blocks if kind == "table")
    return {
        (name, preset): rendered(get_table(name), table_records(get_table(name), preset, records))
        for name, preset in places
    }


def generated(records: Sequence[dict[str, Any]], tables: Mapping[tuple[str, str], tuple[str, Any]]) -> dict[Path, str]:
    """The text that every page, and the index of the records, should have; `tables` are the `shown_tables`."""

    def block(match: re.Match) -> str:
        begin, kind, name, preset, _, end = match.groups()
        made = untitled(tables[name, preset][0]) if kind == "table" else body(kind, name, preset, records)
        return f"{begin}{made}{end}"

    texts = {page: BLOCK.sub(block, page.read_text(encoding="utf-8")) for page in pages()}
    return texts | {committed().folder / "index.csv": index(records)}


def body(kind: str, name: str, preset: str, records: Sequence[dict[str, Any]]) -> str:
    """What stands in a block that is no table."""
    if kind == "digest":
        return digest(table_records(get_table(name), preset, records))
    if kind == "experts":
        return experts()
    write = {"benchmark": benchmark, "scale": scale, "compiled": compiled}[kind]
    return write(json.loads((committed().folder / name).read_text()))


def untitled(text: str) -> str:
    """A table's Markdown without its title, as a page shows it."""
    return text.split("\n", 2)[2]


def digest(records: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of a few methods' NMI on the paper's tasks, from the records of its Table 1."""
    found, rows, shown = grouped(records), [], []
    for dataset in (name for name in pgkmeans.PAPER_DATASETS if name in found):
        methods, row = found[dataset], [dataset_title(dataset)]
        for names in DIGEST.values():
            record = next((each for name in names for each in answered(methods.get(name, []))), None)
            paper = pgkmeans.published(dataset, names[0])
            row += ["-" if record is None else spread(record["scores"]["nmi"])]
            row += ["-" if paper is None else "{:.2f} ± {:.2f}".format(*paper)]
            shown += [] if record is None else [record]
        ceiling = oracle_nmi(methods)
        rows.append([*row, f"{ceiling:.3f}" if math.isfinite(ceiling) else "-"])
    header = ["task", *(title for name in DIGEST for title in (name, f"{name}, paper")), "oracle"]
    notes = [
        *provenance(shown),
        "PG-Kmeans: best of 5 restarts by J, MLP policies, on fresh maps planners; mean ± std over seeds.",
    ]
    return "\n".join([markdown_table(header, rows), "", *(f"- {note}" for note in notes)]) + "\n"


def index(records: Sequence[dict[str, Any]]) -> str:
    """The records as CSV, a line for each table that shows one: scores are means over seeds, `scores` is JSON."""
    places: dict[str, list[tuple[str, str]]] = {record["id"]: [] for record in records}
    for section in sections(records):
        for record in section.shown:
            place = tuple(section.table.name.split("/"))
            if place not in places[record["id"]]:
                places[record["id"]].append(place)
    rows = []
    for record in records:
        cell = record["cell"]
        scores = {name: _mean(values) for name, values in record["scores"].items()}
        told = [cell["dataset"], cell["method"], record["preset"], len(cell.get("seeds", ())), json.dumps(scores)]
        rows += [[record["id"], *place, *told] for place in places[record["id"]] or [("", "")]]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "paper", "table", "dataset", "method", "preset", "seeds", "scores"])
    writer.writerows(sorted(rows, key=lambda row: (row[1:7], row[0])))
    return text.getvalue()


def _mean(values: Any) -> float | None:
    """To 4 digits; None where a value is missing, as of a training that diverged."""
    mean = float(np.mean(np.array(values, float)))
    return float(f"{mean:.4g}") if math.isfinite(mean) else None


def experts() -> str:
    """A Markdown table of the MuJoCo policies that come with the package."""
    lines = ["| task | policy | seed | environment steps | return | D4RL-normalised |", "|---|---|---|---|---|---|"]
    weights = ROOT / "envs" / "weights"
    for task in shipped_tasks():
        chosen = json.loads((weights / f"{task}.json").read_text())
        shown = [(name, chosen["seed"], chosen["policies"][name]) for name in ("medium", "late", "expert")]
        if (agents := weights / f"{task}-heterogeneous.json").exists():
            found = json.loads(agents.read_text())
            seeds = range(found["seed"], found["seed"] + found["agents"])
            shown += [(name, seed, each) for seed, (name, each) in zip(seeds, found["policies"].items(), strict=True)]
        for name, seed, policy in shown:
            cells = [TASKS[task].env_id, name, seed, f"{policy['step']:,}"]
            cells += [f"{policy['return']:,.0f} ± {policy['std']:,.0f}", f"{policy['score']:.1f}"]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def benchmark(record: dict) -> str:
    """A Markdown table of a benchmark's record."""
    from benchmark import readable

    lines = [
        "| hot path | ours | reference | | times better | compile, s | memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        ours, reference = readable(row["ours"], row["unit"]), readable(row["reference"], row["unit"])
        cells = [
            row["name"],
            ours,
            row["reference_name"],
            reference,
            f"{row['ratio']:.2f}",
            f"{row['compile_seconds']:.1f}",
            f"{row['memory_bytes'] / 1e6:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    facts, machine = record["facts"], record["environment"]
    lines += [
        "",
        f"- {facts['trajectories']:,} trajectories, {facts['transitions']:,} transitions, "
        f"{facts['distinct_observations']} distinct observations, {facts['members']} members.",
        *(
            f"- {step} by counts against the dense path: largest difference {facts[name]:.1e} {unit}."
            for step, name, unit in (
                ("E-step", "e_step_largest_difference", "nats"),
                ("M-step", "m_step_largest_difference", "in the parameters"),
            )
            if name in facts  # not where the benchmark left it out, or was stopped before it
        ),
        f"- Peak memory of the whole benchmark: {facts['peak_memory_bytes'] / 2**30:.1f} GiB.",
        f"- Device: {device_name(machine)}, jax {machine['versions']['jax']}."
        + (" Not run on a GPU." if machine["device"]["platform"] == "cpu" else ""),
    ]
    return "\n".join(lines) + "\n"


def scale(record: dict) -> str:
    """A Markdown table of time and memory against the sizes."""
    header = ["data", "N", "K", "S x R", "where", "an EM iteration, s", "of one core, s", "us a step and network"]
    header += ["compile, s", "data, MB", "process at most, MB", "device at most, MB", "machine"]
    rows = []
    for case in record["cases"]:
        found, runs = case["found"], case["seeds"] * case["restarts"]
        each = found["cpu_seconds"] / (case["n"] * 100 * case["k"] * runs)
        where = "device" if case["device_gb"] is None else f"host, beyond {case['device_gb']:g} GB"
        row = [case["kind"], f"{case['n']:,}", f"{case['k']:,}", f"{case['seeds']} x {case['restarts']}", where]
        row += [f"{found[name]:.3g}" for name in ("seconds", "cpu_seconds")]
        row += [f"{each * 1e6:.3g}", f"{found['compile_seconds']:.0f}"]
        row += [f"{found[name] / 1e6:,.0f}" for name in ("data_bytes", "peak_bytes")]
        device = found.get("device_peak_bytes", 0)  # a CPU does not say
        machine = case["environment"]
        row += [f"{device / 1e6:,.0f}" if device else "-", f"{device_name(machine)}, jax {machine['versions']['jax']}"]
        rows.append(row)
    return markdown_table(header, rows) + "\n"


def compiled(record: dict) -> str:
    """A Markdown table of every method's step at the papers' scale: its work, and what compilers made of it."""
    header = ["method, data", "phase", "TFLOP", "GB moved", "least: H100", "H200", "v5e", "lowers", "H100 compiles"]
    header += ["v5e compiles", "ran on"]
    rows = []
    for title, row in record.items():
        if "refused" in row:
            continue
        work, least = row["work"], row["least_seconds"]
        cells = [title, row["step"], f"{(work['multiplied'] + work['elementwise']) / 1e12:.3g}"]
        cells += [f"{work['bytes'] / 1e9:.3g}"]
        cells += ["-" if "chips" in title else f"{1e3 * least[name]:.3g} ms" for name in ("h100", "h200", "v5e")]
        cells += [", ".join(row["lowered"]), *(_compiled_for(row, kind) for kind in ("h100", "v5e"))]
        rows.append([*cells, "; ".join(_ran(name, found) for name, found in row.get("ran", {}).items()) or "-"])
    return markdown_table(header, rows) + "\n"


def _ran(name: str, found: dict) -> str:
    return f"{name}: {1e3 * found['seconds']:.3g} ms (jax {found['jax']})"


def _compiled_for(row: dict, kind: str) -> str:
    found = row.get("compiled", {}).get(kind)
    if found is None:
        return "-"
    if "refused" in found:
        return f"no: {found['refused']}"
    return f"{found['bytes'] / 1e9:.2g} GB, {found['compile_seconds']:.0f} s"


def main() -> None:
    """Entry point."""
    config = tyro.cli(Update, description=__doc__)
    stored = committed()
    records = stored.all()
    tables = shown_tables(records)
    texts = generated(records, tables)
    stale = {path: text for path, text in texts.items() if not path.exists() or path.read_text() != text}
    if config.check and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"out of date: {names}: run python scripts/update_docs.py")
    if not config.check:
        for path, text in stale.items():
            write_text(path, text)
        for (name, preset), (text, figures) in tables.items():
            write_rendered(text, figures, stored.folder / name / preset)


if __name__ == "__main__":
    main()
