"""Modules that are imported when they are first used: what is heavy must not slow down commands that do without it."""

import importlib
import types
from typing import Any


class _Lazy(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def lazy(name: str) -> Any:
    """The module `name`, imported when an attribute of it is first read. Annotations with it are to be quoted."""
    return _Lazy(name)
