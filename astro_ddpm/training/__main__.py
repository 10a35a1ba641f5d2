# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What comes before and after a training, from the shell: ``python -m astro_ddpm.training --help``.
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

    average = commands.add_parser("average", help="choose the average of the weights after training")
    average.add_argument("model", help=".safetensors file that the training wrote")
    average.add_argument("folder", help="folder of the snapshots, ema in that of the run")
    average.add_argument("validation", help=".npz file of pairs to choose by")
    average.add_argument("output", help=".safetensors file to write")
    average.add_argument("--widths", type=float, nargs="+", default=[0.02, 0.05, 0.1, 0.15, 0.2])
    average.add_argument("--overwrite", action="store_true")

    for command, run in ((prepare, prepare_command), (deep, deep_command), (average, average_command)):
        command.set_defaults(run=run)
    return parser


def prepare_command(args):
    """Prepare the pairs of a list."""
    from .pairs import prepare_pairs, read_listing

    variance = 1 / args.gain if args.gain else 0.0
    used, rejected = prepare_pairs(
        read_listing(args.listing), args.output, variance_per_flux=variance, overwrite=args.overwrite
    )
    sys.stdout.write(f"{used} pairs written to {args.output}, {rejected} left out\n")


def deep_command(args):
    """Prepare single deep images."""
    from .pairs import prepare_deep

    used = prepare_deep(args.images, args.output, size=args.size, overwrite=args.overwrite)
    sys.stdout.write(f"{used} stamps written to {args.output}\n")


def average_command(args):
    """Choose the average of the weights with the least loss on validation pairs."""
    from astro_ddpm import zoo

    from .arrays import open_arrays
    from .checks import choose_average

    arrays = open_arrays(args.validation)
    best, losses = choose_average(zoo.load(args.model), args.folder, arrays, args.widths)
    for width, loss in losses.items():
        sys.stdout.write(f"width {width:g}: loss {loss:.5f}\n")
    zoo.save(best, args.output, overwrite=args.overwrite)
    sys.stdout.write(f"width {best.training['ema_width']:g} written to {args.output}\n")


def main(args=None):
    """Run the command line; ``args`` defaults to the arguments of the process."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = _parser().parse_args(args)
    args.run(args)


if __name__ == "__main__":
    main()
