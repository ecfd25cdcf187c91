"""Grids: every combination of some settings, run as lanes, kept in a folder, summed up.

`read` a grid file, make `cells` of it, and `run` them into a folder; run again, it goes on
where it stopped.
"""

from jaxstyle.grid.cells import Cell, cells
from jaxstyle.grid.file import GridFile, read
from jaxstyle.grid.lanes import Group, check, grouped
from jaxstyle.grid.runner import Progress, run
from jaxstyle.grid.store import Report, Store

__all__ = [
    "Cell",
    "GridFile",
    "Group",
    "Progress",
    "Report",
    "Store",
    "cells",
    "check",
    "grouped",
    "read",
    "run",
]
