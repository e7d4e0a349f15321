"""Policy-based trajectory clustering in offline RL, in JAX.

What most programs need stands here: data, clusterers, learners, and `fit`, which trains them. Each is imported when it
is first asked for; the packages below have the rest.
"""

import importlib
import re
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# The names and their modules stand in the stub, as editors and type checkers want them.
_STUB = Path(__file__).with_suffix(".pyi").read_text()
_HOME = {name: module for module, name in re.findall(r"^from (\S+) import \w+ as (\w+)$", _STUB, re.MULTILINE)}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
