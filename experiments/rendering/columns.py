"""Columns that tables share. A column is its header and what stands below it for an entry.

An entry has a `record`, which is None where a paper's number stands alone.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from trajclust_experiments import catalogue
from trajclust_experiments.rendering.markdown import document, spread
from trajclust_jax.data import REGISTRY
from trajclust_jax.metrics import mean_std


class Entry(NamedTuple):
    """A line of a table."""

    record: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table."""

    header: str
    cell: Callable[[Any], str]  # of an entry
    refused: str | Callable[[Any], str] = ""  # what stands there where the method has no answer on the data

    def text(self, entry: Any) -> str:
        """What stands there for an entry."""
        if "not_applicable" not in (entry.record or ()):
            return self.cell(entry)
        return self.refused if isinstance(self.refused, str) else self.refused(entry)


def table(title: str, columns: Sequence[Column], entries: Iterable[Any], notes: Sequence[str]) -> str:
    """A table's Markdown: its title, a row an entry, and what a reader must know."""
    rows = [[column.text(entry) for column in columns] for entry in entries]
    return document(title, [column.header for column in columns], rows, notes)


def dataset_title(name: str) -> str:
    """A registered dataset's title; other names as they are."""
    return REGISTRY[name].title if name in REGISTRY else name


def task() -> Column:
    """The dataset's title."""
    title = lambda entry: dataset_title(entry.record["cell"]["dataset"])
    return Column("task", title, title)


def method(header: str = "method", title: Callable[[Any], str] | None = None) -> Column:
    """The method's title in the catalogue, or another one."""
    title = title or (lambda entry: catalogue.title(entry.record["cell"]["method"]))
    return Column(header, title, title)


def score(name: str, header: str, digits: int = 3, refused: str = "") -> Column:
    """Mean and std over seeds of a score; nothing where the record has none."""
    values = lambda entry: entry.record["scores"].get(name)
    return Column(header, lambda entry: spread(values(entry), digits) if values(entry) else "", refused)


def published(
    paper: Callable[[Any], tuple[float, float] | float | None],
    ours: Callable[[Any], float] | None = None,
    digits: int = 2,
    header: str = "paper",
    refused: str | Callable[[Any], str] = "",
) -> tuple[Column, Column]:
    """The paper's number (or mean and std) of an entry, and by how much ours is above it.

    `ours` is the mean NMI over seeds by default.
    """
    ours = ours or (lambda entry: mean_std(entry.record["scores"]["nmi"])[0])

    def number(entry: Any) -> str:
        found = paper(entry)
        if found is None:
            return "-"
        return " ± ".join(f"{value:.{digits}f}" for value in (found if isinstance(found, tuple) else (found,)))

    def difference(entry: Any) -> str:
        found = paper(entry)
        if found is None:
            return ""
        return f"{ours(entry) - (found[0] if isinstance(found, tuple) else found):+.3f}"

    return Column(header, number, refused), Column("difference", difference)


def seeds() -> Column:
    """How many, and for how many of them the run itself warns."""

    def cell(entry: Any) -> str:
        warned = sum(map(bool, entry.record.get("warnings", [])))
        return f"{len(entry.record['cell']['seeds'])}" + (f" ({warned} warned)" if warned else "")

    return Column("seeds", cell)


def num_seeds(header: str = "seeds") -> Column:
    """How many."""
    return Column(header, lambda entry: str(len(entry.record["cell"]["seeds"])))


def seconds(header: str, *parts: str) -> Column:
    """Seconds of `parts` of the work (data, compile, run), with a + between them."""
    return Column(
        header, lambda entry: " + ".join(f"{entry.record['timing'][f'{part}_seconds']:.0f}" for part in parts)
    )
