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

    simulated = commands.add_parser("prepare-simulated", help="simulate deep images, as arrays")
    simulated.add_argument("output", help=".npz file to write")
    simulated.add_argument("--number", type=int, default=1500, help="how many images (1500)")
    simulated.add_argument("--size", type=int, default=100, help="width of the images in pixels (100)")
    simulated.add_argument("--seed", type=int, default=0)
    simulated.add_argument("--overwrite", action="store_true")

    average = commands.add_parser("average", help="choose the average of the weights after training")
    average.add_argument("model", help=".safetensors file that the training wrote")
    average.add_argument("folder", help="folder of the snapshots, ema in that of the run")
    average.add_argument("validation", help=".npz file of pairs to choose by")
    average.add_argument("output", help=".safetensors file to write")
    average.add_argument("--widths", type=float, nargs="+", default=[0.05, 0.075, 0.1, 0.15, 0.2])
    average.add_argument("--overwrite", action="store_true")

    runs = prepare_command, deep_command, simulated_command, average_command
    for command, run in zip((prepare, deep, simulated, average), runs, strict=True):
        command.set_defaults(run=run)
    return parser


def prepare_command(args):
    """Prepare the pairs of a list."""
    from astro_ddpm.exposures import read_listing

    from .pairs import prepare_pairs

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


def simulated_command(args):
    """Simulate deep images."""
    from .simulated import prepare_simulated

    options = {"size": args.size, "seed": args.seed, "overwrite": args.overwrite}
    prepare_simulated(args.number, args.output, progress_bar=True, **options)
    sys.stdout.write(f"{args.number} images written to {args.output}\n")


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
