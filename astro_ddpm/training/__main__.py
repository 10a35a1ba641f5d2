# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The earlier command line of training, whose commands are now those of ``astro-ddpm``.
"""

import sys
import warnings

from astropy.utils.exceptions import AstropyDeprecationWarning

from astro_ddpm import cli

__all__ = ["main"]

USAGE = """usage: python -m astro_ddpm.training COMMAND ...

commands, all of them deprecated, and what replaces them:
  prepare LIST.csv OUT.npz        astro-ddpm prepare --pairs LIST.csv -o OUT.npz
  prepare-deep OUT.npz DEEP...    astro-ddpm prepare --deep DEEP... -o OUT.npz
  prepare-simulated OUT.npz       astro-ddpm train ... --data.scene_share 0.4, without a file
  average MODEL DIR VAL.npz OUT   astro-ddpm average MODEL DIR VAL.npz -o OUT
"""


def translate(args):
    """Put arguments of the earlier command line into those of the present one; None if that cannot be."""
    command, *rest = args or [""]
    n_files = next((i for i, text in enumerate(rest) if text.startswith("-")), len(rest))
    files, options = rest[:n_files], rest[n_files:]
    if command == "prepare" and n_files == 2:
        return ["prepare", "--pairs", files[0], "-o", files[1], *options]
    if command == "prepare-deep" and n_files > 1:
        return ["prepare", "-o", files[0], "--deep", *files[1:], *options]
    if command == "average" and n_files == 4:
        return ["average", *files[:3], "-o", files[3], *options]
    return None


def main(args=None):
    """Run the command line with arguments, those of the process by default; return the exit code."""
    new = translate(sys.argv[1:] if args is None else args)
    if new is None:
        sys.stderr.write(USAGE)
        return 2
    message = f"python -m astro_ddpm.training is deprecated: use astro-ddpm {' '.join(new)}"
    warnings.warn(message, AstropyDeprecationWarning, stacklevel=2)
    return cli.main(new)


if __name__ == "__main__":
    sys.exit(main())
