"""What commands print: text for people, JSON for programs."""

import itertools
import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trajclust_jax.records import plain

if TYPE_CHECKING:
    from rich.console import Console

_LABEL = 24  # columns of a label's name before it is wrapped


def print_json(value: Any) -> None:
    """Any record, of arrays too, as JSON."""
    print(json.dumps(plain(value), indent=1))


def print_markdown(text: str) -> None:
    """Rendered on a terminal, as it is elsewhere."""
    if not sys.stdout.isatty():
        print(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    from trajclust_experiments.rendering.markdown import table_of

    console = Console()
    for is_table, lines in itertools.groupby(text.splitlines(), lambda line: line.startswith("|")):
        block = "\n".join(lines)
        if is_table:
            for header, rows in fitting(*table_of(block), console.width):
                _print_table(console, header, rows)
        else:
            console.print(Markdown(block))


def _print_table(console: "Console", header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for title, width in zip(header, _widths(header, rows), strict=True):
        table.add_column(title, width=width)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def fitting(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> list[tuple[list[str], list[list[str]]]]:
    """A table as one or several that are no wider than `width`, as far as one number a line is.

    The columns before the first that has a number, which say what a row is, are in every part.
    """
    widths, labels = _widths(header, rows), _labels(rows)
    room = lambda columns: sum(widths[column] + 3 for column in columns)
    parts: list[list[int]] = [[]]
    for column in range(labels, len(header)):
        if parts[-1] and room([*range(labels), *parts[-1], column]) > width:
            parts.append([])
        parts[-1].append(column)
    chosen = [[*range(labels), *part] for part in parts]
    return [([header[i] for i in part], [[row[i] for i in part] for row in rows]) for part in chosen]


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Of each column: that of its widest cell, which labels and headers, of several words, may be narrower than."""
    words = [max(map(len, " ".join(texts).split()), default=1) for texts in zip(header, *rows, strict=True)]
    cells = [max((len(row[column]) for row in rows), default=1) for column in range(len(header))]
    labels = _labels(rows)
    return [
        max(word, min(cell, _LABEL) if i < labels else cell)
        for i, (word, cell) in enumerate(zip(words, cells, strict=True))
    ]


def _labels(rows: Sequence[Sequence[str]]) -> int:
    """How many columns stand before the first that has a number; at least one."""
    numbers = [i for row in rows for i, cell in enumerate(row) if cell[:1].isdigit()]
    return max(1, min(numbers, default=1))


def print_rows(rows: Mapping[str, str], indent: int = 2) -> None:
    """Names with what is said of each, aligned; what a line of the terminal cannot hold goes on below itself."""
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        start = f"{' ' * indent}{name:<{width}}  "
        print(folded(text, start, " " * len(start)) if text else start.rstrip())


def folded(text: str, start: str = "", then: str = "") -> str:
    """One paragraph in lines as the terminal has room for, at most 100 columns; no word is cut."""
    width = max(min(shutil.get_terminal_size().columns, 100), len(then) + 20)
    options = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(text, width, initial_indent=start, subsequent_indent=then, **options)


def pairs(settings: dict[str, Any]) -> str:
    """As `--set` takes them."""
    return " ".join(f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in settings.items())


def number(value: float | None, digits: int) -> str:
    """JSON's null is what was not finite."""
    return "not finite" if value is None else f"{value:.{digits}f}"
