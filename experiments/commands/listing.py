"""`trajclust list`: everything that has a name."""

from trajclust_experiments.catalogue import entries
from trajclust_experiments.commands.printing import pairs, print_json
from trajclust_experiments.tables import get_table, table_names
from trajclust_jax.data import REGISTRY


def show(json: bool) -> None:
    """Prints tables, datasets, methods, learners and plug-ins, with one line each."""
    tables = {name: get_table(name) for name in table_names()}
    learners, plug_ins = entries("learner"), entries("plug-in")
    sections = {
        "tables": {name: table.summary for name, table in tables.items()},
        "presets": {name: preset.summary for name, preset in tables["pgkmeans/table1"].presets.items()},
        "datasets": {name: entry.summary for name, entry in REGISTRY.items()},
        "methods": {name: entry.summary for name, entry in entries("clusterer").items()},
        "learners": {name: entry.summary for name, entry in learners.items()},
        "relabellers": {name: entry.summary for name, entry in entries("relabeller").items()},
        "settings of learners": {name: pairs(entry.defaults()) for name, entry in learners.items()},
        "plug-ins of learners": {name: entry.summary for name, entry in plug_ins.items()},
        "settings of plug-ins": {name: pairs(entry.own()) for name, entry in plug_ins.items()},
    }
    if json:
        return print_json(sections)
    for title, named in sections.items():
        print(f"{title}:")
        for name, summary in named.items():
            print(f"  {name:<20} {summary}")
    return None
