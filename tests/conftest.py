"""Tests are small and many: compile quickly, and compile a program only once a session."""

import importlib.metadata
import os
import tempfile

# Before jax starts. Compiling takes nearly all of the tests' time; what is compiled runs for milliseconds. The emitters
# of fused operations make faster programs, and take a third of that time; later versions have no others.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=1"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# Workers share it, and the commands that tests start.
os.environ.setdefault("TRAJCLUST_COMPILE_CACHE", tempfile.mkdtemp(prefix="trajclust-xla-"))

import pytest

from trajclust_jax.compile_cache import enable, release

enable()


@pytest.fixture(autouse=True, scope="module")
def released():
    """A module's programs are not kept for ever: a process may hold only so many."""
    yield
    release()
