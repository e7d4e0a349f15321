"""Modules of users' own, which register methods, learners, datasets and tables."""

import importlib
import os

from trajclust_experiments.usage import UsageError


def load() -> None:
    """Imports the modules of `$TRAJCLUST_EXTENSIONS` (commas between them).

    Raises:
        UsageError: for one that cannot be imported.
    """
    for name in filter(None, os.environ.get("TRAJCLUST_EXTENSIONS", "").split(",")):
        try:
            importlib.import_module(name.strip())
        except Exception as error:  # whatever a user's module does
            raise UsageError(
                f"TRAJCLUST_EXTENSIONS: {name} cannot be imported ({type(error).__name__}: {error}); is its folder in "
                "PYTHONPATH?"
            ) from None
