"""What the settings of an algorithm must be: each function raises ValueError, naming the setting and its value."""

from collections.abc import Iterable
from typing import Any


def check_at_least(settings: Any, least: float, *names: str) -> None:
    """Raises ValueError if one of these fields is below `least`."""
    _check(settings, names, lambda value: value >= least, f"at least {least}")


def check_above(settings: Any, bound: float, *names: str) -> None:
    """Raises ValueError if one of these fields is not above `bound`."""
    _check(settings, names, lambda value: value > bound, f"above {bound}")


def check_share(settings: Any, *names: str) -> None:
    """Raises ValueError if one of these fields is not from 0 to 1."""
    _check(settings, names, lambda value: 0 <= value <= 1, "between 0 and 1")


def check_inner_share(settings: Any, *names: str) -> None:
    """Raises ValueError if one of these fields is not between 0 and 1, or is one of them."""
    _check(settings, names, lambda value: 0 < value < 1, "between 0 and 1")


def check_fraction(settings: Any, *names: str) -> None:
    """Raises ValueError if one of these fields is not at least 0 and below 1."""
    _check(settings, names, lambda value: 0 <= value < 1, "at least 0 and below 1")


def check_one_of(what: str, value: str, choices: Iterable[str]) -> None:
    """Raises ValueError if `value` is not among the choices."""
    if value not in choices:
        raise ValueError(f"unknown {what} {value!r}: choose one of {', '.join(choices)}")


def _check(settings: Any, names: Iterable[str], holds: Any, what: str) -> None:
    for name in names:
        if not holds(getattr(settings, name)):
            raise ValueError(f"{name} is {getattr(settings, name)}: it must be {what}")
