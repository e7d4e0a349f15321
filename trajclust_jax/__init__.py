"""Policy-based trajectory clustering in offline RL, in JAX.

What most programs need stands here: data, clusterers, learners, and `fit`, which trains them. Each is imported when it
is first asked for; the packages below have the rest.
"""

import ast
import importlib
from importlib import resources
from typing import Any

__version__ = "0.1.0"

# The stub is the one list of names, as in SPEC 1 of Scientific Python: editors and type checkers read it, and so do we.
_STUB = ast.parse(resources.files(__name__).joinpath("__init__.pyi").read_text("utf-8"))
_HOME = {each.name: node.module for node in _STUB.body if isinstance(node, ast.ImportFrom) for each in node.names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
