"""What is imported when it is first used: what is heavy must not slow down commands that do without it."""

import importlib
import types
from typing import Any


class _Lazy(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def lazy(name: str) -> Any:
    """The module `name`, imported when an attribute of it is first read. Annotations with it are to be quoted."""
    return _Lazy(name)


class Names:
    """The names of what stands in a module: of `Names("a.b")` the attribute `C` is `a.b:C`, and nothing is imported."""

    def __init__(self, module: str):
        self._module = module

    def __getattr__(self, attribute: str) -> str:
        return f"{self._module}:{attribute}"


def imported(name: str) -> Any:
    """What has this name, `module:attribute`."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Imported:
    """A field of a dataclass that takes a class or its name, `module:Class`, and gives the class.

    `default` is the field's; without one it has none.
    """

    def __init__(self, *default: Any):
        self._default = default

    def __set_name__(self, owner: type, field: str) -> None:
        self._field = field

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self._field] = value

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:  # a dataclass asks for the default
            if not self._default:
                raise AttributeError(self._field)
            return self._default[0]
        value = vars(instance)[self._field]
        return imported(value) if isinstance(value, str) else value


def class_name(instance: Any, field: str) -> str:
    """The name of the class in an `Imported` field, which is not imported."""
    value = vars(instance)[field]
    return value.partition(":")[2] if isinstance(value, str) else value.__name__
