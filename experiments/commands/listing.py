"""`trajclust list`: everything that has a name, and what each is."""

import dataclasses
import difflib
import inspect
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from trajclust_experiments.catalogue import CATALOGUE, LearnerEntry, MethodEntry, PlugInEntry, class_defaults, entries
from trajclust_experiments.commands.printing import folded, pairs, print_json, print_rows
from trajclust_experiments.tables import about, get_table, table_names
from trajclust_experiments.usage import UsageError
from trajclust_jax.data import REGISTRY
from trajclust_jax.documented import settings_of
from trajclust_jax.lazy import class_name, lazy
from trajclust_jax.records import plain

envs = lazy("trajclust_envs")
learners = lazy("trajclust_jax.learners")

_FEW = 16  # numbers of a parameter that are shown; floor plans have more
# What a section's names are for; of the catalogue their kind.
_USES = {
    "tables": "trajclust run TABLE",
    "datasets": "in place of FILE: takeball:size=500,seed=1",
    "environments": "trajclust train DATA --environment ID",
    "methods": "trajclust cluster FILE --method METHOD",
    "learners": "trajclust train DATA --learner LEARNER",
    "plug-ins": "trajclust train DATA --plugin PLUGIN",
    "relabellers": "trajclust relabel DATA --method RELABELLER",
}
_KINDS = {"methods": "clusterer", "learners": "learner", "plug-ins": "plug-in", "relabellers": "relabeller"}


def show(name: str | None, json: bool) -> None:
    """Prints all names; with one of them what it is; with a section or the beginning of names those, a line each.

    Raises:
        UsageError: for a name that nothing has, with those that are near it.
    """
    found = None if name is None else _explained(name)
    if found is not None:
        print_json(found) if json else _print_explained(found)
    elif name is not None:
        for section, named in (listed := _named(name)).items():
            if not json:
                print(f"{section}:  {_USES[section]}")
                print_rows(named)
        print_json(listed) if json else None
    elif json:
        print_json({section: {each: _summary(section, each) for each in _names(section)} for section in _USES})
    else:
        for section, use in _USES.items():
            if section != "environments":  # datasets stand beside theirs
                print(f"{section}:  {use}")
                print_rows({label: " ".join(names) for label, names in _grouped(section).items()})
        print(
            folded(
                "`trajclust list methods` has a line for each; `trajclust list iql` explains one, with its settings."
            )
        )


def _names(section: str) -> tuple[str, ...]:
    """All of a section, in order."""
    if section == "tables":
        return table_names()
    if section == "datasets":
        return tuple(REGISTRY)
    if section == "environments":
        return tuple(dict.fromkeys(entry.environment for entry in REGISTRY.values()))
    return tuple(entries(_KINDS[section]))


def _summary(section: str, name: str) -> str:
    """A name's line."""
    if section == "tables":
        return get_table(name).summary
    if section == "datasets":
        return REGISTRY[name].summary
    if section == "environments":
        datasets = [dataset for dataset, entry in REGISTRY.items() if entry.environment == name]
        return f"of {', '.join(datasets)}"
    return CATALOGUE[name].summary


def _grouped(section: str) -> dict[str, list[str]]:
    """A section's names by what they have in common: a paper, an environment, an algorithm."""
    grouped: dict[str, list[str]] = {}
    for name in _names(section):
        short = name
        if section == "tables":
            paper, slash, short = name.rpartition("/")
            label = paper + slash
        else:
            label = REGISTRY[name].environment if section == "datasets" else _class_name(CATALOGUE[name])
        grouped.setdefault(label, []).append(short)
    return grouped


def _named(name: str) -> dict[str, dict[str, str]]:
    """The names of a section, or those that begin with `name`, with a line each.

    Raises:
        UsageError: where there are none.
    """
    if name in _USES:
        return {name: {each: _summary(name, each) for each in _names(name)}}
    begun = {section: [each for each in _names(section) if each.startswith(name)] for section in _USES}
    if name and any(begun.values()):
        return {section: {each: _summary(section, each) for each in found} for section, found in begun.items() if found}
    known = {each.lower(): each for each in (*_USES, *itertools.chain(*map(_names, _USES)), *CATALOGUE)}
    near = [each for each in known.values() if each.endswith(f"/{name}")]  # a table without its paper
    near = near or [known[each] for each in difflib.get_close_matches(name.lower(), known, 4, 0.5)]
    told = f"did you mean {' or '.join(near)}?" if near else "`trajclust list` shows all names"
    raise UsageError(f"nothing is named {name!r}: {told}")


def _explained(name: str) -> dict[str, Any] | None:
    """What a name is, as JSON values; None for one that nothing has."""
    if name in CATALOGUE:
        return _of_catalogue(name)
    if name in REGISTRY:
        return _of_dataset(name)
    if name in table_names():
        return _of_table(name)
    if name in _names("environments"):
        return _of_environment(name)
    return None


def _of_catalogue(name: str) -> dict[str, Any]:
    entry = CATALOGUE[name]
    algorithm = _algorithm(entry)
    classes, more = [algorithm], {}
    if isinstance(entry, PlugInEntry):
        values, usual = entry.own(), entry.own()
        use = f"trajclust train DATA --learner td3_bc --plugin {name} --set NAME=VALUE"
    elif isinstance(entry, LearnerEntry):
        classes = [learners.Offline, algorithm]
        values, usual = entry.defaults(), {**class_defaults(learners.Offline), **class_defaults(algorithm)}
        use = f"trajclust train DATA --learner {name} --set NAME=VALUE"
        more = {"in_environments": {each: dict(settings) for each, settings in entry.in_environments.items()}}
    elif isinstance(entry, MethodEntry):
        values, usual = dataclasses.asdict(entry.build(2)), class_defaults(algorithm)
        values.pop("num_clusters", None)  # every command asks for it
        use = f"trajclust cluster FILE --k K --method {entry.family if _is_of_family(name, entry) else name}"
        use += f" --policy {entry.policy}" if _is_of_family(name, entry) else ""
        use = use if entry.kind == "clusterer" else "tables alone use it"
        more = {"change": f"trajclust sweep TABLE --methods {name} --set NAME=VALUE"}
        more |= {"on_long_continuous_data": dict(entry.long_settings())}
    else:
        values, usual = dataclasses.asdict(entry.build()), class_defaults(algorithm)
        use = f"trajclust relabel DATA --expert FILE --method {name} --set NAME=VALUE"
    said = {field: text for each in classes for field, text in settings_of(each).items() if text}
    settings = {
        field: {"value": value, **({"usual": usual[field]} if usual.get(field, value) != value else {})}
        | ({"what": said[field]} if field in said else {})
        for field, value in plain(values).items()
    }
    return {
        "name": name,
        "kind": "method" if isinstance(entry, MethodEntry) else entry.kind,
        "title": entry.title,
        "summary": entry.summary,
        "use": use,
        "algorithm": f"{algorithm.__module__}.{algorithm.__qualname__}",
        "file": _file(algorithm),
        "about": _about(algorithm),
        **{key: value for key, value in more.items() if value},
        "settings": settings,
    }


def _of_dataset(name: str) -> dict[str, Any]:
    entry = REGISTRY[name]
    options = {"size": entry.default_size, "seed": 0, **dict.fromkeys(entry.options)}
    said = {
        "size": f"{entry.unit} of each policy",
        "seed": "of the episodes",
        "noise": "act by the policies' modes with normal noise of this standard deviation, instead of sampling",
    }
    return {
        "name": name,
        "kind": "dataset",
        "title": entry.title,
        "summary": entry.summary,
        "use": f"trajclust data make {name} --size {entry.default_size} --out FILE.npz",
        "environment": entry.environment,
        "policies": entry.num_policies,
        "actions": "continuous" if entry.continuous else "discrete",
        "episodes": "long: about a thousand steps" if entry.long else "short: dozens of steps",
        "settings": {each: {"value": value, "what": said.get(each, "")} for each, value in options.items()},
    }


def _of_table(name: str) -> dict[str, Any]:
    table, (said, paper, file) = get_table(name), about(name)
    sizes = {preset: len(_cells(table, scale)) for preset, scale in table.presets.items()}
    return {
        "name": name,
        "kind": "table",
        "summary": table.summary,
        "use": f"trajclust run {name} --preset smoke --dry-run",
        "paper": " ".join(paper.split()),
        "file": None if file is None else _place(file),
        "about": said,
        "datasets": list(table.datasets),
        "methods": list(table.methods),
        "presets": {preset: f"{sizes[preset]} cells; {scale.summary}" for preset, scale in table.presets.items()},
    }


def _cells(table: Any, scale: Any) -> list[Any]:
    return table.cells(scale, table.datasets, table.methods, tuple(range(scale.seeds)))


def _of_environment(name: str) -> dict[str, Any]:
    own = envs.ENVIRONMENTS.get(name)
    described = {"name": name, "kind": "environment", "summary": _summary("environments", name)}
    described |= {"use": f"trajclust train DATA --environment {name}"}
    if own is None:
        return {**described, "about": "Gymnasium's, on MuJoCo: gymnasium.make makes it."}
    env = envs.make(name)
    params = env.default_params
    fields = {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    return {
        **described,
        "file": _file(own),
        "about": _about(own),
        "observations": f"{list(env.observation_space(params).shape)}",
        "actions": _space(env.action_space(params)),
        "policies": list(env.expert_names),
        "settings": {field: {"value": plain(value)} for field, value in fields.items() if np.size(value) <= _FEW},
    }


def _space(space: Any) -> str:
    return f"{space.n} discrete" if hasattr(space, "n") else f"{list(space.shape)}, continuous"


def _algorithm(entry: Any) -> type:
    return entry.plug_in if isinstance(entry, PlugInEntry) else entry.algorithm


def _class_name(entry: Any) -> str:
    """Its algorithm's, which is not imported."""
    return class_name(entry, "plug_in" if isinstance(entry, PlugInEntry) else "algorithm")


def _is_of_family(name: str, entry: MethodEntry) -> bool:
    """Whether commands know it by its family and a policy class."""
    return name == f"{entry.family}_{entry.policy}"


def _about(cls: type) -> str:
    """What the file of a class says, which names its paper, and then the class, without its settings."""
    own = str(vars(cls).get("__doc__") or "")
    return "\n\n".join(text for text in (inspect.getdoc(inspect.getmodule(cls)), inspect.cleandoc(own)) if text)


def _file(cls: type) -> str:
    return _place(Path(inspect.getsourcefile(cls)))


def _place(path: Path) -> str:
    """From here, where it lies below this folder."""
    path = path.resolve()
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _print_explained(found: dict[str, Any]) -> None:
    title = f", {found['title']}" if "title" in found else ""
    print(folded(f"{found['name']} ({found['kind']}{title}): {found['summary']}"))
    skipped = {"name", "kind", "title", "summary", "about", "settings", "presets", "on_long_continuous_data"}
    rows = {key: value for key, value in found.items() if key not in {*skipped, "in_environments"} and value}
    print()
    print_rows(
        {key: " ".join(map(str, value)) if isinstance(value, list) else str(value) for key, value in rows.items()}
    )
    for paragraph in found.get("about", "").split("\n\n"):
        if paragraph.strip():
            print("\n" + (paragraph if _is_laid_out(paragraph.splitlines()) else folded(" ".join(paragraph.split()))))
    if found.get("presets"):
        print("\npresets:")
        print_rows(found["presets"])
    if found.get("settings"):
        print("\nsettings:")
        print_rows({name: _setting(each) for name, each in found["settings"].items()})
    other = {f"in {name}": settings for name, settings in found.get("in_environments", {}).items()}
    if found.get("on_long_continuous_data"):
        other["on long trajectories, continuous actions"] = found["on_long_continuous_data"]
    for where, settings in other.items():
        print(folded(pairs(plain(settings)), f"\n{where}: ", "  "))


def _is_laid_out(lines: Iterable[str]) -> bool:
    """Whether lines stand as they are to be read: pseudo-code, commands."""
    return any(line.startswith(" ") for line in lines)


def _setting(setting: dict[str, Any]) -> str:
    (value,) = (text.partition("=")[2] for text in [pairs({"": setting["value"]})])
    usual = f" (the algorithm's own: {pairs({'': setting['usual']})[1:]})" if "usual" in setting else ""
    return f"{value}{usual}{'  ' + setting['what'] if setting.get('what') else ''}"
