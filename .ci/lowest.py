"""Print the lowest version that pyproject.toml allows of each requirement, as pip constraints."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
for group in (project["dependencies"], *project["optional-dependencies"].values()):
    for requirement in group:
        if found := re.match(r"([\w.-]+)(?:\[[\w,]+\])?[>=]=([\w.]+)", requirement):
            print("==".join(found.groups()))
