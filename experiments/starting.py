"""What a process does before it computes: users' modules, JAX as all results are made with, the compilation cache."""

from trajclust_experiments import extensions
from trajclust_experiments.usage import UsageError

# With another setting equal seeds and record ids would give other numbers, or what is computed would be refused.
_SETTINGS = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_high_dynamic_range_gumbel": False,
    "jax_default_matmul_precision": None,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_transfer_guard": None,
    "jax_transfer_guard_host_to_device": None,
    "jax_transfer_guard_device_to_host": None,
}


def ready() -> None:
    """Readies this process for computing.

    Raises:
        UsageError: for a module of the user's that cannot be imported, or a setting of JAX that changes results.
    """
    extensions.load()
    check_jax()
    from trajclust_jax.compile_cache import enable

    enable()


def check_jax() -> None:
    """Refuses JAX with another setting than results are made with, of which neither ids nor records tell.

    Raises:
        UsageError: naming the variable in which users give the setting.
    """
    import jax

    for name, ours in _SETTINGS.items():
        given = getattr(jax.config, name, ours)  # a setting that a version of JAX does not have is not another
        given = getattr(given, "value", given)  # of an enumeration
        if given != ours and (ours, given) != (None, "allow"):
            raise UsageError(
                f"{name.upper()} is {given}: results would not be those of equal seeds and ids elsewhere; unset it"
            )
