"""Prints the oldest version of each requirement of the base and of some extras, for `make ends`.

The tests' own tools (the extra `dev`) stay as they are: users have none of them.
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
wanted = list(project["dependencies"])
for extra in sys.argv[1].replace(",", " ").split():
    if extra == "dev":
        print("\n".join(project["optional-dependencies"][extra]))
    else:
        wanted += project["optional-dependencies"][extra]
floors = {}
for one in wanted:
    requirement, _, marker = one.partition(";")
    found = re.fullmatch(r"([\w.\-]+(?:\[\w+\])?)>=([0-9.]+).*", requirement.strip())
    if found:
        name, floor = found.groups()
        parts = [*floor.split("."), "0"][: max(2, floor.count(".") + 1)]
        oldest = ".".join(parts) + (".*" if len(parts) == 2 else "")
        floors[name] = f"{name}=={oldest}{';' if marker else ''}{marker}"  # an extra may want more
print(*floors.values(), sep="\n")
