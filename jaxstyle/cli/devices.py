"""What the command line sets up in JAX before the first program is compiled."""

import os

import jax


def enable_compilation_cache() -> None:
    """Keep compiled programs between commands, in our cache folder unless JAX has been told.

    The folder holds executable code, so it lies where only the user writes.
    """
    from jaxstyle.weights import cache_folder

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    # Old programs go when the folder reaches a gigabyte.
    jax.config.update("jax_compilation_cache_max_size", 2**30)
