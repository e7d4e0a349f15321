"""What the settings of an algorithm must be."""

from collections.abc import Iterable
from typing import Any


def check_at_least(method: Any, least: int, *names: str) -> None:
    """Raises ValueError if one of these fields is below `least`."""
    for name in names:
        if getattr(method, name) < least:
            raise ValueError(f"{name} is {getattr(method, name)}: it must be at least {least}")


def check_one_of(what: str, value: str, choices: Iterable[str]) -> None:
    """Raises ValueError if `value` is not among the choices."""
    if value not in choices:
        raise ValueError(f"unknown {what} {value!r}: choose one of {', '.join(choices)}")
