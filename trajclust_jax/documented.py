"""Classes of settings say what each setting does, in `help` and to commands that list them."""

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from typing import Any


@functools.cache
def settings_of(algorithm: type) -> dict[str, str]:
    """What each field of a dataclass does, one line each, in their order: the strings that stand below the fields.

    Empty where a field has none, or its class has no source.
    """
    found: dict[str, str] = {}
    for base in reversed(algorithm.__mro__):
        if dataclasses.is_dataclass(base):
            found |= _below_fields(base)
    return {field.name: found.get(field.name, "") for field in dataclasses.fields(algorithm)}


def _below_fields(algorithm: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(algorithm))
    except (OSError, TypeError):
        return {}
    body = ast.parse(source).body[0].body
    return {
        field.target.id: " ".join(inspect.cleandoc(below.value.value).split())
        for field, below in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def documented(algorithm: type) -> type:
    """The class, whose docstring, as `help` shows it, ends with its settings, their defaults and what they do."""
    if algorithm.__dict__.get("__doc__"):
        algorithm.__doc__ = _WithSettings(algorithm.__doc__, algorithm)
    return algorithm


class _WithSettings(str):
    """A class's docstring, put together when it is read: reading sources on import would take too long."""

    __slots__ = ("algorithm",)

    def __new__(cls, own: str, algorithm: type) -> "_WithSettings":
        text = super().__new__(cls, own)
        text.algorithm = algorithm
        return text

    def __get__(self, instance: Any, owner: type) -> str:
        return self.whole()

    def expandtabs(self, tabsize: int = 8) -> str:
        """`help` finds the string itself in the class, and begins with this."""
        return self.whole().expandtabs(tabsize)

    def whole(self) -> str:
        """With the settings, once the class is a dataclass."""
        own = inspect.cleandoc(str(self))
        if "__match_args__" not in self.algorithm.__dict__:  # `dataclass`, which sets them last, asks for a docstring
            return own
        lines, does = [own, "", "Settings:"], settings_of(self.algorithm)
        for field in dataclasses.fields(self.algorithm):
            default = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
            lines.append(f"    {field.name}{default}")
            lines += textwrap.wrap(does[field.name], 100, initial_indent=" " * 8, subsequent_indent=" " * 8)
        return "\n".join(lines)
