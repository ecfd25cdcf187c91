"""Setup of JAX for the commands, before the first compilation."""

import errno
import os
import re
import warnings
from pathlib import Path
from typing import Any

import jax

from jaxstyle.cli.streams import tell
from jaxstyle.errors import JaxstyleError

# JAX's warnings, with the name of the program, of which the cache may have several variants.
_TROUBLE = re.compile(
    r"Error (reading|writing) persistent compilation cache entry for '([\w<>-]+)': (.*)", re.DOTALL
)


def backend_problem() -> str | None:
    """Return why JAX has no device, or None if it has one."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS")
        what = f"JAX_PLATFORMS={asked} asks for a backend" if asked else "JAX has a backend"
        reason = " ".join(str(error).split("(set JAX_PLATFORMS")[0].split())
        return f"{what} that is not here" + (f": {reason}" if reason else "")
    return None


TPU_EFFORT = -0.5
"""Value of `jax_exec_time_optimization_effort` on TPUs, in [-1, 1]. From this value down, VGG-19's
program compiles in a tenth of the time (`docs/scale.md`), which saves minutes in a run of
seconds."""


def use_cpu() -> None:
    """Restrict JAX to the CPU, for commands that only read files and need no accelerator."""
    jax.config.update("jax_platforms", "cpu")


def enable_compilation_cache() -> None:
    """Enable JAX's persistent compilation cache, and set `TPU_EFFORT` on TPUs.

    JAX's environment variables for the folder and the effort take precedence. The cache contains
    executable code, so its default is the user's cache folder, where only the user writes.

    Raises:
      JaxstyleError: JAX has no device.
    """
    from jaxstyle.weights import cache_folder

    if problem := backend_problem():
        raise JaxstyleError(f"{problem}; set JAX_PLATFORMS=cpu, or see `jaxstyle doctor`")
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    if jax.default_backend() == "tpu" and not os.environ.get("JAX_EXEC_TIME_OPTIMIZATION_EFFORT"):
        jax.config.update("jax_exec_time_optimization_effort", TPU_EFFORT)
    # JAX removes old programs when the folder reaches this size.
    jax.config.update("jax_compilation_cache_max_size", 2**30)
    # On some CPUs XLA logs an error for every cached program, about CPU features that only matter
    # for tuning (openxla/xla issue 44565).
    asked = os.environ.get("JAX_LOGGING_LEVEL") or os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    # JAX itself sets TF_CPP_MIN_LOG_LEVEL to 1.
    if asked in (None, "1") and jax.default_backend() == "cpu":
        jax.config.update("jax_logging_level", "CRITICAL")
    warnings.filterwarnings("always", "Error (reading|writing) persistent compilation cache entry")
    if warnings.showwarning is not _show:
        _show.others = warnings.showwarning
        warnings.showwarning = _show


class _Show:
    """A `warnings.showwarning` that removes damaged files of the compilation cache.

    JAX itself leaves them there and warns in every command.
    """

    others: Any
    """The previous `warnings.showwarning`, for all other warnings."""
    told = False

    def __call__(self, message: Warning | str, *arguments: Any, **options: Any) -> None:
        match = _TROUBLE.match(str(message))
        if match is None:
            self.others(message, *arguments, **options)
            return
        doing, program, reason = match.groups()
        folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
        # Once the damaged files are removed, the program is cached again.
        if doing == "reading":
            damaged = list(Path(folder).glob(f"{program}-*-cache"))
        else:
            # A process killed while it writes may leave a `-cache` without its `-atime` file, which
            # makes all later writes fail.
            damaged = [
                path
                for path in Path(folder).glob("*-cache")
                if not path.with_name(path.name.removesuffix("-cache") + "-atime").exists()
            ]
        for path in damaged:
            path.unlink(missing_ok=True)
        full = doing == "writing" and os.strerror(errno.ENOSPC) in reason
        if damaged and not full:
            text = f"a compiled program in {folder} was damaged; it is compiled again"
        elif self.told:
            return
        else:
            self.told = True
            text = (
                f"compiled programs cannot be kept in {folder} ({' '.join(reason.split())[:200]}), "
                "so that every command compiles its own; make room there or set JAXSTYLE_CACHE"
            )
        tell(text, "warning")


_show = _Show()
