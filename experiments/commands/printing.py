"""What commands print: text for people, JSON for programs."""

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

from trajclust_jax.records import plain


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

    Console().print(Markdown(text))


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
