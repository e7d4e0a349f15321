"""Tests are small and many: compile quickly, and compile a program only once a session."""

import os
import tempfile

# Before jax starts. Compiling takes nearly all of the tests' time; what is compiled runs for milliseconds.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=1"

import jax

_session = os.environ.setdefault("TRAJCLUST_TEST_CACHE", tempfile.mkdtemp(prefix="trajclust-xla-"))  # workers share it
jax.config.update("jax_compilation_cache_dir", _session)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
