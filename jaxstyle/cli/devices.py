"""Setup of JAX by the commands, before the first program is compiled."""

import errno
import os
import re
import warnings
from pathlib import Path
from typing import Any

import jax

from jaxstyle.cli.streams import tell
from jaxstyle.errors import JaxstyleError

# What JAX warns of; the name is that of the program, of which there may be several variants.
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
"""Effort of the compiler for TPUs to make fast programs, from -1 to 1: from here down it compiles
VGG-19's program in a tenth of the time (`docs/scale.md`), which is minutes for a run of seconds."""


def use_cpu() -> None:
    """Restrict JAX to the CPU, for commands that only read files.

    They start no accelerator and need none.
    """
    jax.config.update("jax_platforms", "cpu")


def enable_compilation_cache() -> None:
    """Enable JAX's cache of compiled programs, in our cache folder unless JAX is configured.

    The folder holds executable code, so it lies where only the user writes. For TPUs, compile with
    `TPU_EFFORT`, likewise.
    """
    from jaxstyle.weights import cache_folder

    if problem := backend_problem():
        raise JaxstyleError(f"{problem}; set JAX_PLATFORMS=cpu, or see `jaxstyle doctor`")
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    if jax.default_backend() == "tpu" and not os.environ.get("JAX_EXEC_TIME_OPTIMIZATION_EFFORT"):
        jax.config.update("jax_exec_time_optimization_effort", TPU_EFFORT)
    # Old programs go when the folder reaches a gigabyte.
    jax.config.update("jax_compilation_cache_max_size", 2**30)
    # On some CPUs XLA calls every program from the cache an error, for features that only tune it
    # (openxla/xla issue 44565).
    asked = os.environ.get("JAX_LOGGING_LEVEL") or os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    # JAX sets the second to 1 itself.
    if asked in (None, "1") and jax.default_backend() == "cpu":
        jax.config.update("jax_logging_level", "CRITICAL")
    warnings.filterwarnings("always", "Error (reading|writing) persistent compilation cache entry")
    if warnings.showwarning is not _show:
        _show.others = warnings.showwarning
        warnings.showwarning = _show


class _Show:
    """Shows warnings; mends the compilation cache where JAX only warns, at every command, of it."""

    others: Any
    """Shows all other warnings."""
    told = False

    def __call__(self, message: Warning | str, *arguments: Any, **options: Any) -> None:
        match = _TROUBLE.match(str(message))
        if match is None:
            self.others(message, *arguments, **options)
            return
        doing, program, reason = match.groups()
        folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
        # JAX leaves damaged files where they are. Without them the program is kept again.
        if doing == "reading":
            damaged = list(Path(folder).glob(f"{program}-*-cache"))
        else:
            # A process killed between its two files leaves one that no program is kept beside.
            damaged = [
                path
                for path in Path(folder).glob("*-cache")
                if not path.with_name(path.name.removesuffix("-cache") + "-atime").exists()
            ]
        for path in damaged:
            path.unlink(missing_ok=True)
        full = doing == "writing" and os.strerror(errno.ENOSPC) in reason
        if damaged and not full:
            text = f"a compiled program in {folder} was damaged; it is compiled and kept anew"
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
