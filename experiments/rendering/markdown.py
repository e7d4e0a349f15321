"""Markdown of tables: cells, provenance, files written whole."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trajclust_experiments.cells.joining import parts
from trajclust_jax.data import REGISTRY
from trajclust_jax.metrics import mean_std


def document(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """A table's Markdown: its title, itself, and what a reader must know, a line each."""
    return f"# {title}\n\n{markdown_table(header, rows)}\n\n" + "".join(f"- {note}\n" for note in notes)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def table_of(text: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the first table in a Markdown text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return (cells[0], cells[2:]) if cells else ([], [])


def spread(values: Sequence[float], digits: int = 3) -> str:
    """`mean ± std` over seeds; the mean alone for one seed."""
    mean, std = mean_std(values)
    return f"{mean:.{digits}f} ± {std:.{digits}f}" if len(values) > 1 else f"{mean:.{digits}f}"


def provenance(records: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader must know of the numbers: preset, data, seeds, device, versions."""
    trained = [record for record in records if record["cell"].get("seeds")]
    presets = sorted({record["preset"] for record in records})
    sizes = sorted({(record["cell"]["size"], _unit(record)) for record in records})
    seeds = sorted({len(record["cell"]["seeds"]) for record in trained})
    devices = sorted({name for record in trained for name in machines(record)})
    versions = sorted({part["environment"]["versions"]["jax"] for record in trained for part in parts(record)})
    notes = [
        f"Preset {', '.join(presets)}: {_sizes(sizes)} a policy, {', '.join(map(str, seeds)) or 'no'} seeds.",
        f"Device: {', '.join(devices) or 'none'}; jax {', '.join(versions) or '-'}.",
    ]
    notes += _sources(records)
    notes += _differing(records)
    return notes if any(map(on_gpu, trained)) else [*notes, "Not run on a GPU."]


def _unit(record: dict[str, Any]) -> str:
    """What a record's size counts."""
    name = record["cell"]["dataset"]
    return REGISTRY[name].unit if name in REGISTRY else "trajectories"


def _sizes(sizes: Sequence[tuple[int, str]]) -> str:
    units = {unit: [f"{size:,}" for size, other in sizes if other == unit] for _, unit in sizes}
    return ", ".join(f"{', '.join(counts)} {unit}" for unit, counts in units.items())


def _differing(records: Sequence[dict[str, Any]]) -> list[str]:
    """Which datasets are not the same one in all records."""
    found = defaultdict(set)
    for record in records:
        cell = record["cell"]
        found[cell["dataset"], cell["size"], cell.get("data_seed")].add(cell.get("fingerprint"))
    names = sorted({dataset for (dataset, *_), fingerprints in found.items() if len(fingerprints - {None}) > 1})
    return [f"Made anew on each machine, where simulators round differently: {', '.join(names)}."] if names else []


def _sources(records: Sequence[dict[str, Any]]) -> list[str]:
    """Which MuJoCo data is D4RL's, and which was made by the package's policies."""
    made, files = set(), set()
    for record in records:
        source, parameters = record.get("data", {}).get("source", ""), record.get("data", {}).get("parameters", {})
        if source.endswith(".hdf5") and "labels" in parameters:
            files.add(f"{record['cell']['dataset']} is D4RL's {source}, labels by {parameters['labels']}.")
        elif "task" in parameters:
            made.add(record["cell"]["dataset"])
    return sorted(files) + ([f"Made by the package's own policies: {', '.join(sorted(made))}."] if made else [])


def device_name(environment: dict[str, Any]) -> str:
    """The machine of a record or a benchmark, in words."""
    device = environment["device"]
    return f"{device['count']} x {device['kind']} ({environment['cpu_count']} cores)"


def machines(record: dict[str, Any]) -> list[str]:
    """The machines of a record, in words: more than one where seeds were added on another."""
    return sorted({device_name(part["environment"]) for part in parts(record)})


def on_gpu(record: dict[str, Any]) -> bool:
    """Whether seeds of a record were run on a GPU."""
    return any(part["environment"]["device"]["platform"] in ("gpu", "cuda", "rocm") for part in parts(record))


def plain_text(text: str) -> str:
    """As Markdown that shows just this text, whatever a name holds."""
    return re.sub(r"([\\`*<>\[\]|&\"])", r"\\\1", text)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
