"""The free memory of a device, or of the machine, container or process."""

from collections.abc import Iterator
from pathlib import Path

import jax
import psutil

_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def free_bytes() -> int | None:
    """Return the free bytes of the first device; on CPU, of the machine or container."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        if "bytes_limit" not in stats:
            return None
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    free = [int(psutil.virtual_memory().available), *_free_in_cgroups()]
    if (space := _free_address_space()) is not None:
        free.append(space)
    return max(0, min(free))


def _free_address_space() -> int | None:
    """Return the bytes of address space that `ulimit -v` leaves; None without a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    return int(limit - psutil.Process().memory_info().vms)


def _free_in_cgroups() -> Iterator[int]:
    """Yield the bytes that each limit of a container or job leaves, for cgroups version 1 and 2.

    The page cache counts as free, as the system reclaims it when memory is requested.
    """
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, *names = _CGROUP, "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            root = _CGROUP / "memory"
            names = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_"]
        else:
            continue
        own = root / path.lstrip("/")
        # Limits of parent groups apply too. In a container its own group may be the root.
        for folder in (own, *own.parents):
            if not folder.is_relative_to(root):
                break
            try:
                limit = int((folder / names[0]).read_text())
                used = int((folder / names[1]).read_text())
                pairs = map(str.split, (folder / "memory.stat").read_text().splitlines())
                stat = {name: int(value) for name, value in pairs}
            except (OSError, ValueError):
                # There is no limit, or it is "max".
                continue
            caches = sum(stat.get(f"{names[2]}{kind}_file", 0) for kind in ("active", "inactive"))
            yield limit - max(0, used - caches)
