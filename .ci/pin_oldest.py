# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Print the oldest versions that pyproject.toml allows, as requirements of pip.

Every lower bound of the package and of its extras for users becomes a pin. What the tests need beside stays
open, so that pip finds versions that go with the pins. Packages named as arguments are left open, too.
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
for requirement in [*project["dependencies"], *extras["train"], *extras["dask"], *extras["evaluate"]]:
    name = re.match(r"[\w.-]+", requirement)[0]
    sys.stdout.write(f"{requirement if name in sys.argv[1:] else requirement.replace('>=', '==')}\n")
for requirement in extras["test"]:
    if not requirement.startswith(project["name"]):
        sys.stdout.write(f"{requirement}\n")
