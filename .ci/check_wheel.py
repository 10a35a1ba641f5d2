# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Check that wheel and sdist in a folder hold what they must: weights, model cards, licences, credits and types.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

root, folder = Path(__file__).parents[1], Path(sys.argv[1])
(wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
in_wheel = zipfile.ZipFile(wheel).namelist()
with tarfile.open(sdist) as archive:
    in_sdist = {name.partition("/")[2] for name in archive.getnames()}
listing = subprocess.run(["git", "ls-files"], cwd=root, check=True, capture_output=True, text=True)
files = listing.stdout.split()

package = [name for name in files if name.startswith("astro_ddpm/")]
licences = [name for name in files if name.startswith("licenses/") or name == "LICENSE.rst"]
missing = [name for name in package if name not in in_wheel]
missing += [
    name for name in licences if not any(entry.endswith(f".dist-info/licenses/{name}") for entry in in_wheel)
]
missing += [f"{name} (sdist)" for name in files if name not in in_sdist]
foreign = [name for name in in_wheel if not name.startswith(("astro_ddpm/", "astro_ddpm-"))]
if missing or foreign:
    sys.exit(f"missing: {missing}\nforeign: {foreign}")
sys.stdout.write(f"{wheel.name}: {len(in_wheel)} files, {wheel.stat().st_size / 1e6:.1f} MB, complete\n")
