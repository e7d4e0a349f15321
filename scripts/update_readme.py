"""Writes the README's result blocks and experiments/records' tables from stored records: nothing is typed by hand.

python scripts/update_readme.py            rewrite them
python scripts/update_readme.py --check    fail if they are not what the records say
"""

import dataclasses
import json
import re
import sys
from pathlib import Path

import tyro

from trajclust_envs.mujoco import TASKS, shipped_tasks
from trajclust_experiments.papers.pgkmeans.common import stored_records
from trajclust_experiments.rendering import device_name, write_text
from trajclust_experiments.report import table_records, write_table
from trajclust_experiments.tables import get_table

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- (table|benchmark|experts) (\S+) ?(\S*) -->\n).*?(<!-- end -->)", re.S)


@dataclasses.dataclass(frozen=True)
class Update:
    """Writes the README's result blocks and the tables of experiments/records from its cells."""

    check: bool = False
    """Change nothing; exit with 1 if a block of the README is out of date."""


def rendered(text: str) -> str:
    """The README's text with every block made anew."""
    records = stored_records().all()

    def block(match: re.Match) -> str:
        begin, kind, name, preset, end = match.groups()
        if kind == "table":
            table = get_table(name)
            body = table.render(table_records(table, preset, records))[0].split("\n", 2)[2]  # without its title
        elif kind == "experts":
            body = experts()
        else:
            body = benchmark(json.loads((stored_records().folder / name).read_text()))
        return f"{begin}{body}{end}"

    return BLOCK.sub(block, text)


def experts() -> str:
    """A Markdown table of the MuJoCo policies that come with the package."""
    lines = ["| task | policy | seed | environment steps | return | D4RL-normalised |", "|---|---|---|---|---|---|"]
    for task in shipped_tasks():
        record = json.loads((ROOT / "envs" / "weights" / f"{task}.json").read_text())
        for name in ("medium", "late", "expert"):
            policy = record["policies"][name]
            cells = [TASKS[task].env_id, name, record["seed"], f"{policy['step']:,}"]
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
        f"- E-step by counts against the dense path: largest difference {facts['e_step_largest_difference']:.1e} nats; "
        f"M-step: {facts['m_step_largest_difference']:.1e} in the parameters.",
        f"- Peak memory of the whole benchmark: {facts['peak_memory_bytes'] / 2**30:.1f} GiB.",
        f"- Device: {device_name(machine)}, jax {machine['versions']['jax']}."
        + (" Not run on a GPU." if machine["device"]["platform"] == "cpu" else ""),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Entry point."""
    config = tyro.cli(Update, description=__doc__)
    readme = ROOT / "README.md"
    old = readme.read_text()
    new = rendered(old)
    if config.check and new != old:
        sys.exit("README.md: result blocks are out of date: run python scripts/update_readme.py")
    if not config.check:
        write_text(readme, new)
        stored = stored_records()
        records = stored.all()
        for file in sorted(stored.folder.glob("*/*/*/table.md")):
            paper, name, preset = file.parent.relative_to(stored.folder).parts
            table = get_table(f"{paper}/{name}")
            write_table(table, table_records(table, preset, records), file.parent)


if __name__ == "__main__":
    main()
