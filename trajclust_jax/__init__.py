"""Policy-based trajectory clustering in offline RL, in JAX."""

__version__ = "0.1.0"
