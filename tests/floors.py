"""Prints the oldest version of each requirement of the base and of some extras, for `make ends`."""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
wanted = list(project["dependencies"])
for extra in sys.argv[1].split(","):
    wanted += project["optional-dependencies"][extra]
for one in wanted:
    requirement, _, marker = one.partition(";")
    found = re.fullmatch(r"([\w.\-]+(?:\[\w+\])?)>=([0-9.]+).*", requirement.strip())
    if found:
        name, floor = found.groups()
        parts = [*floor.split("."), "0"][: max(2, floor.count(".") + 1)]
        oldest = ".".join(parts) + (".*" if len(parts) == 2 else "")
        print(f"{name}=={oldest}{';' if marker else ''}{marker}")
