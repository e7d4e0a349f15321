"""What commands print: text for people, JSON for programs."""

import json
import sys
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


def pairs(settings: dict[str, Any]) -> str:
    """As `--set` takes them."""
    return " ".join(f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in settings.items())


def number(value: float | None, digits: int) -> str:
    """JSON's null is what was not finite."""
    return "not finite" if value is None else f"{value:.{digits}f}"
