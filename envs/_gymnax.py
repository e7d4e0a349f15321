"""gymnax without what it does not need: its Pong imports seaborn, with pandas and scipy.stats, for one drawing. That
takes longer than all of gymnax, and is left until Pong draws."""

import importlib
import sys
import types
from typing import Any


class _Deferred(types.ModuleType):
    """Stands for a module, which is imported when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


_stands_in = sys.modules.setdefault("seaborn", _Deferred("seaborn"))
try:
    import gymnax
finally:
    if isinstance(_stands_in, _Deferred):  # others who import it get seaborn itself
        del sys.modules["seaborn"]

__all__ = ["gymnax"]
