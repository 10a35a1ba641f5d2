# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Prepare pairs and fit the two models from the shell: ``python -m astro_ddpm.training --help``.
"""

import argparse
import logging
import sys
from pathlib import Path

__all__ = ["main"]


def _parser():
    parser = argparse.ArgumentParser(prog="python -m astro_ddpm.training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    prepare = commands.add_parser("prepare", help="turn a list of FITS pairs into arrays")
    prepare.add_argument("listing", help="CSV file of shallow and deep images, relative to its folder")
    prepare.add_argument("output", help=".npz file to write")
    prepare.add_argument("--gain", type=float, help="gain of the shallow images in electron per unit of flux")
    prepare.add_argument("--overwrite", action="store_true")

    for kind in ("raunet", "ddpm"):
        fit = commands.add_parser(kind, help=f"fit the {kind} to prepared arrays")
        fit.add_argument("train", help="arrays to train on")
        fit.add_argument("validation", help="arrays to look at")
        fit.add_argument("output", help=".safetensors file to write")
        fit.add_argument("--folder", default="runs", help="where checkpoints and logs go (%(default)s)")
        fit.add_argument("--steps", type=int, required=True, help="optimiser steps of the whole run")
        fit.add_argument("--batch-size", type=int, default=16)
        fit.add_argument("--learning-rate", type=float, default=1e-3)
        fit.add_argument("--dropout", type=float, default=0.1)
        fit.add_argument("--seed", type=int, default=0)
        fit.add_argument(
            "--kinds",
            type=float,
            nargs=3,
            default=[0.5, 0.25, 0.25],
            help="shares of pairs as they are, pairs with more noise, and split deep images (%(default)s)",
        )
        fit.add_argument("--device", default="auto", help="accelerator of Lightning (%(default)s)")
        fit.add_argument("--overwrite", action="store_true")
        if kind == "raunet":
            fit.add_argument("--channels", type=int, nargs="+", default=[32, 64, 96, 128])
            fit.add_argument("--weighting", type=float, default=0.5, help="see RAUNetModule (%(default)s)")
            fit.add_argument("--start", help="weights to start from, .safetensors")
        else:
            fit.add_argument("--raunet", required=True, help="trained RAUNet, .safetensors")
    return parser


def prepare(args):
    """Prepare the pairs of a list."""
    from .pairs import prepare_pairs, read_listing

    variance = 1 / args.gain if args.gain else 0.0
    used, rejected = prepare_pairs(
        read_listing(args.listing), args.output, variance_per_flux=variance, overwrite=args.overwrite
    )
    sys.stdout.write(f"{used} pairs written to {args.output}, {rejected} left out\n")


def fit(args):
    """Fit one of the models; an interrupted run continues from its last checkpoint."""
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
    from pytorch_lightning.loggers import CSVLogger

    from astro_ddpm import __version__, zoo

    from .data import PairDataModule
    from .ema import PowerEMA
    from .modules import DDPMModule, RAUNetModule

    output = Path(args.output)
    if output.suffix != ".safetensors" or not output.parent.is_dir():
        msg = f"output {output} must be a .safetensors file in a folder that exists"
        raise ValueError(msg)
    if output.exists() and not args.overwrite:
        msg = f"output {args.output} exists; use --overwrite to replace it"
        raise FileExistsError(msg)
    pl.seed_everything(args.seed)
    data = PairDataModule(
        args.train, args.validation, args.batch_size, seed=args.seed, kinds=tuple(args.kinds)
    )
    options = {"dropout": args.dropout, "learning_rate": args.learning_rate}
    if args.command == "raunet":
        options["weighting"] = args.weighting
        module = RAUNetModule(tuple(args.channels), **options)
        if args.start:
            module.network.load_state_dict(zoo.load(args.start).raunet.state_dict())
    else:
        module = DDPMModule(zoo.load(args.raunet).raunet, **options)
    folder = Path(args.folder) / args.command
    trainer = pl.Trainer(
        accelerator=args.device,
        devices=1,
        max_steps=args.steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        reload_dataloaders_every_n_epochs=1,
        default_root_dir=folder,
        logger=CSVLogger(folder, name=None, version=""),
        callbacks=[
            PowerEMA(),
            LearningRateMonitor(),
            ModelCheckpoint(folder, "last", enable_version_counter=False),
        ],
    )
    last = folder / "last.ckpt"
    trainer.fit(module, data, ckpt_path=last if last.exists() else None)
    module.cpu()
    model = zoo.Model(
        raunet=module.network if args.command == "raunet" else module.raunet,
        network=None if args.command == "raunet" else module.network,
        ranges=training_ranges(data),
        training={
            "version": __version__,
            "seed": args.seed,
            "steps": trainer.global_step,
            "batch_size": args.batch_size,
            "pairs": len(data.train["shallow"]),
            "kinds": args.kinds,
            **options,
        },
    )
    sha256 = zoo.save(model, args.output, overwrite=args.overwrite)
    last.unlink()  # a finished run is not to be continued by the next one
    sys.stdout.write(f"{args.output} {sha256}\n")


def training_ranges(data):
    """
    Gather the ranges that training covered.

    Parameters
    ----------
    data : `~astro_ddpm.training.PairDataModule`
        The data, after set-up.

    Returns
    -------
    ranges : dict
        ``depth`` as [low, high], and ``default_depth``, the median of the pairs.
    """
    import numpy as np

    depth = data.train["depth"]
    return {
        "depth": [round(float(depth.min()) / 10, 4), round(max(float(depth.max()), 0.5), 4)],
        "default_depth": round(float(np.median(depth)), 3),
    }


def main(args=None):
    """Run the command line; ``args`` defaults to the arguments of the process."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = _parser().parse_args(args)
    (prepare if args.command == "prepare" else fit)(args)


if __name__ == "__main__":
    main()
