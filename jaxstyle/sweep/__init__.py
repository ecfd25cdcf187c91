"""Grids: every combination of some settings, run in batches and stored in a folder.

`read` reads a grid file, `cells` resolves its combinations, and `run` runs them into a folder,
skipping finished cells. `read_results` returns the finished cells of a folder.
"""

from jaxstyle.sweep.batches import Group as Group
from jaxstyle.sweep.batches import check as check
from jaxstyle.sweep.batches import group_cells as group_cells
from jaxstyle.sweep.cell import Cell as Cell
from jaxstyle.sweep.cell import cells as cells
from jaxstyle.sweep.finished import FinishedCell as FinishedCell
from jaxstyle.sweep.finished import read_results as read_results
from jaxstyle.sweep.grid_file import GridFile as GridFile
from jaxstyle.sweep.grid_file import read as read
from jaxstyle.sweep.runner import Progress as Progress
from jaxstyle.sweep.runner import run as run
from jaxstyle.sweep.store import Report as Report
from jaxstyle.sweep.store import Store as Store
