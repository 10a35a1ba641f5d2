# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Prepare images from the shell: ``python -m astro_ddpm.training --help``.
"""

import argparse
import logging
import sys

__all__ = ["main"]


def _parser():
    parser = argparse.ArgumentParser(prog="python -m astro_ddpm.training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    prepare = commands.add_parser("prepare", help="turn a list of FITS pairs into arrays")
    prepare.add_argument("listing", help="CSV file of shallow and deep images, relative to its folder")
    prepare.add_argument("output", help=".npz file to write")
    prepare.add_argument("--gain", type=float, help="gain of the shallow images in electron per unit of flux")
    prepare.add_argument("--overwrite", action="store_true")

    deep = commands.add_parser("prepare-deep", help="turn single deep images into arrays")
    deep.add_argument("output", help=".npz file to write")
    deep.add_argument("images", nargs="+", help="sky-subtracted FITS images")
    deep.add_argument("--size", type=int, help="cut the images into stamps of this width in pixels")
    deep.add_argument("--overwrite", action="store_true")
    return parser


def prepare(args):
    """Prepare the pairs of a list."""
    from .pairs import prepare_pairs, read_listing

    variance = 1 / args.gain if args.gain else 0.0
    used, rejected = prepare_pairs(
        read_listing(args.listing), args.output, variance_per_flux=variance, overwrite=args.overwrite
    )
    sys.stdout.write(f"{used} pairs written to {args.output}, {rejected} left out\n")


def deep(args):
    """Prepare single deep images."""
    from .pairs import prepare_deep

    used = prepare_deep(args.images, args.output, size=args.size, overwrite=args.overwrite)
    sys.stdout.write(f"{used} stamps written to {args.output}\n")


def main(args=None):
    """Run the command line; ``args`` defaults to the arguments of the process."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = _parser().parse_args(args)
    (prepare if args.command == "prepare" else deep)(args)


if __name__ == "__main__":
    main()
