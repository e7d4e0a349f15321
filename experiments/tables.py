"""What a table of a paper is, and the registry of those that exist."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from trajclust_experiments import papers
from trajclust_experiments.usage import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trajclust_experiments.cells.cell import Cell

Records = Sequence[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Preset:
    """A scale to run a table at."""

    summary: str
    size: int  # trajectories a policy
    seeds: int
    settings: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)  # by method name
    long_size: int = 50  # trajectories a policy, where they are long

    def seeded(self, seeds: int | None) -> tuple[Self, tuple[int, ...]]:
        """The scale where so many seeds are asked for (None: its own number), and those. UsageError for none."""
        if seeds is not None and seeds < 1:
            raise UsageError(f"--seeds is {seeds}: at least 1 is needed")
        return self, tuple(range(self.seeds if seeds is None else seeds))


class Standing(NamedTuple):
    """How a method stands on a task, for the report's summary: a mean over seeds beside the best that can be had."""

    dataset: str
    method: str  # its title
    ours: float | None  # None: the method has no answer
    paper: float | None
    oracle: float  # or another value that is hard to beat, such as the best policy's of the data; NaN: not known


@dataclasses.dataclass(frozen=True)
class Table:
    """A table or figure of a paper: which cells it needs, and how their records become text and figures."""

    name: str
    summary: str
    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    presets: Mapping[str, Preset]
    cells: "Callable[[Preset, tuple[str, ...], tuple[str, ...], tuple[int, ...]], list[Cell]]"
    render: "Callable[[Records], tuple[str, dict[str, Figure]]]"  # records -> Markdown, figures by file stem
    standings: Callable[[Records], list[Standing]] | None = None  # by method: a table that the report's summary has
    holds: tuple[str, ...] = ()  # other tables and figures of the paper that it has, too


_REGISTERED: dict[str, Table] = {}


def register(table: Table) -> None:
    """Adds a table from outside; those of `papers/` are found by themselves.

    Raises:
        ValueError: for a name that another table has.
    """
    if table.name in table_names() and _REGISTERED.get(table.name) != table:
        raise ValueError(f"{table.name} is the name of another table: give a new one")
    _REGISTERED[table.name] = table


def table_names() -> tuple[str, ...]:
    """All tables: every module of a paper's folder is one, unless its name begins with `_`; and those registered.

    Papers by name; of each its tables, its figures and what else there is.
    """
    found = [f"{paper}/{module.name.replace('_', '-')}" for paper in _papers() for module in _modules(paper)]
    return (*sorted(found, key=_order), *_REGISTERED)


def get_table(name: str) -> Table:
    """A table by name.

    Raises:
        ValueError: for an unknown name.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in table_names():
        own = [each for each in table_names() if each.partition("/")[0] == name.partition("/")[0]]
        for other in own:
            if name in get_table(other).holds:
                raise ValueError(f"{name} is part of {other}: give that")
        raise ValueError(f"unknown table {name!r}: choose one of {', '.join(own or table_names())}")
    return importlib.import_module(_module_of(name)).TABLE


def _module_of(name: str) -> str:
    return f"{papers.__name__}.{name.replace('/', '.').replace('-', '_')}"


def about(name: str) -> tuple[str, str, Path | None]:
    """What a table's module says of it, its paper (empty: it is of none), and the file; a registered one has its own.

    Raises:
        ValueError: for an unknown name.
    """
    table = get_table(name)
    module = inspect.getmodule(table.render) if name in _REGISTERED else importlib.import_module(_module_of(name))
    if module is None:
        return "", "", None
    package = "" if name in _REGISTERED else inspect.getdoc(importlib.import_module(module.__package__)) or ""
    file = inspect.getsourcefile(module)
    return inspect.getdoc(module) or "", package.partition("\n\n")[2], None if file is None else Path(file)


def paper_title(paper: str) -> str:
    """The `TITLE` of a paper's folder; its name where it has none, or has but registered tables."""
    module = importlib.import_module(f"{papers.__name__}.{paper}") if paper in _papers() else None
    return getattr(module, "TITLE", paper)


def select(names: tuple[str, ...], available: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The available ones of `names`; a name that none equals takes all that begin with it; no names: all of them.

    `hopper` is every task of Hopper's, `caae` that method alone, `caae_` its variants.

    Raises:
        ValueError: for a name that selects nothing.
    """
    chosen = set()
    for name in names:
        found = {name} if name in available else {each for each in available if name and each.startswith(name)}
        if not found:
            raise ValueError(f"unknown {what} {name!r}: choose from {', '.join(available)}")
        chosen |= found
    return tuple(each for each in available if not names or each in chosen)


def _papers() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(papers.__path__) if module.ispkg]


def _modules(paper: str) -> Iterator[pkgutil.ModuleInfo]:
    folders = [str(Path(path) / paper) for path in papers.__path__]
    return (module for module in pkgutil.iter_modules(folders) if not module.name.startswith("_"))


def _order(name: str) -> tuple[str, int, int, str]:
    paper, _, table = name.partition("/")
    kind = next((place for place, kind in enumerate(("table", "figure")) if table.startswith(kind)), 2)
    return paper, kind, int(re.sub(r"\D", "", table) or 0), table
