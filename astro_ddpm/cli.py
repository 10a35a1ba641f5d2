# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The command ``astro-ddpm``.

Exit codes: 0 for success, 1 for an error that the message explains, 2 for a wrong command line, 130
when interrupted.
"""

import argparse
import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

__all__ = ["main"]


def _parser():
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="astro-ddpm",
        description="Turn noisy galaxy images into what a much deeper exposure would have shown.",
    )
    parser.add_argument("--version", action="version", version=f"astro-ddpm {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_enhance(commands)
    _add_train(commands)
    _add_evaluate(commands)
    models = commands.add_parser("models", help="list the models that ship with the package")
    models.set_defaults(run=list_models)
    return parser


def _add_common(parser, samples_help="samples to draw (%(default)s)"):
    parser.add_argument(
        "--model", help="name or .safetensors file (the default_model of astro_ddpm.cfg: ddpm)"
    )
    parser.add_argument("--samples", type=int, default=16, metavar="N", help=samples_help)
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")


def _add_demo(commands):
    demo = commands.add_parser(
        "demo",
        help="enhance a simulated galaxy field and compare with its truth",
        description="Simulate a galaxy field, enhance it, write FITS files and a picture, and print "
        "recovered fluxes beside the true ones.",
    )
    demo.add_argument(
        "-o", "--output", default="astro-ddpm-demo", metavar="DIR", help="folder for the files (%(default)s)"
    )
    demo.add_argument("--seed", type=int, default=0, help="seed of field and samples (%(default)s)")
    demo.add_argument("--size", type=int, default=256, help="width of the field in pixels (%(default)s)")
    _add_common(demo)
    demo.set_defaults(run=demo_command)


def _add_enhance(commands):
    enhance = commands.add_parser(
        "enhance",
        help="enhance FITS images",
        description="Enhance FITS images. A result holds the posterior mean, its uncertainty, the mask "
        "and the samples. Those of several images go into a folder, with a table of how it went; what is "
        "there already from the same call is kept. In the paths of their noise and masks {folder}, {stem} "
        "and {path} stand for those of each image.",
    )
    enhance.add_argument(
        "input", nargs="+", metavar="IN.fits", help="sky-subtracted images, may be compressed"
    )
    enhance.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="file to write; a folder for several images"
    )
    enhance.add_argument("--ext", help="extension of the image, number or name (the first image)")
    noise = enhance.add_mutually_exclusive_group()
    plane = "FILE[EXT]"
    noise.add_argument(
        "--stddev", metavar=plane, help="image of the noise, one sigma; [EXT] in the same file"
    )
    noise.add_argument("--variance", metavar=plane, help="image of the variance")
    noise.add_argument("--weight", metavar=plane, help="image of the inverse variance")
    enhance.add_argument("--mask", "--dq", metavar=plane, help="image that is not zero at bad pixels")
    enhance.add_argument("--ignore-bits", metavar="BITS", help="bits of it that are not bad: 4,64 or ~4,64")
    enhance.add_argument(
        "--background", help="sky to subtract before and to add back after: 'photutils' or a number (none)"
    )
    enhance.add_argument("--mask-treatment", choices=["fill", "propagate"], default="fill")
    enhance.add_argument("--depth", type=float, help="noise of the samples / noise of the image")
    enhance.add_argument("--steps", type=int, help="evaluations of the denoiser per sample (10)")
    enhance.add_argument("--seed", type=int, help="same seed, same samples (drawn and recorded)")
    enhance.add_argument("--device", help="where to compute, such as cpu or cuda:0")
    enhance.add_argument("--memory-limit", metavar="SIZE", help="memory of the networks, such as 500MB")
    enhance.add_argument("--no-samples", action="store_true", help="write mean and uncertainty only")
    _add_common(enhance)
    enhance.set_defaults(run=enhance_command)


def _add_train(commands):
    train = commands.add_parser(
        "train",
        help="train a model",
        description="Train a model on prepared pairs. The file holds the settings. Options replace them, as "
        "--trainer.max_steps 100; 'astro-ddpm train CONFIG.yaml --print_config' lists them.",
    )
    train.add_argument("config", metavar="CONFIG.yaml", help="settings, a file or the name of a model")
    train.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="...", help="settings that replace those of the file"
    )
    train.set_defaults(run=train_command)


def _add_evaluate(commands):
    evaluate = commands.add_parser(
        "evaluate",
        help="judge models on images whose deep counterpart is known",
        description="Enhance images whose deep counterpart is known and write tables, figures and a page "
        "that says whether fluxes and errors are right and whether anything is invented. A run that was "
        "interrupted goes on from there.",
    )
    data = evaluate.add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--pairs", metavar="LIST.csv", help="pairs of a shallow and a deep image: paths relative to the list"
    )
    data.add_argument("--degrade", nargs="+", metavar="DEEP.fits", help="deep images to be made shallow")
    evaluate.add_argument("-o", "--output", required=True, metavar="DIR", help="folder to write to")
    evaluate.add_argument(
        "--model",
        nargs="+",
        default=["raunet", "ddpm"],
        metavar="MODEL",
        help="names or .safetensors files (%(default)s)",
    )
    evaluate.add_argument(
        "--compare",
        nargs="*",
        default=["gaussian", "starlet", "nlm", "tv", "wavelet"],
        metavar="METHOD",
        help="classical methods (%(default)s; bm3d where that package is installed)",
    )
    evaluate.add_argument(
        "--samples", type=int, default=16, metavar="N", help="samples to draw (%(default)s)"
    )
    evaluate.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    evaluate.add_argument("--gain", type=float, help="gain in electron per unit of flux, for photon noise")
    evaluate.add_argument(
        "--factor",
        type=float,
        default=10.0,
        help="noise added by --degrade / noise of the image (%(default)s)",
    )
    evaluate.add_argument(
        "--zero-point", type=float, default=0.0, help="magnitude of unit flux (%(default)s)"
    )
    evaluate.add_argument(
        "--injections",
        type=int,
        default=30,
        metavar="N",
        help="sources of each magnitude, 0 for none (%(default)s)",
    )
    evaluate.add_argument("--seed", type=int, default=0, help="seed of noise and samples (%(default)s)")
    evaluate.add_argument("--device", help="where to compute, such as cpu or cuda:0")
    evaluate.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    evaluate.set_defaults(run=evaluate_command)


def enhance_command(args):
    """Run ``astro-ddpm enhance``."""
    planes = ("ext", "stddev", "variance", "weight", "mask", "ignore_bits")
    options = {name: getattr(args, name) for name in planes} | {
        "overwrite": args.overwrite,
        "model": args.model,
        "n_samples": args.samples,
        "steps": args.steps,
        "seed": args.seed,
        "depth": args.depth,
        "background": _background(args.background),
        "mask_treatment": args.mask_treatment,
        "device": args.device,
        "memory_limit": args.memory_limit,
        "keep_samples": not args.no_samples,
        "progress_bar": not args.quiet,
    }
    if len(args.input) > 1 or Path(args.output).is_dir() or args.output.endswith(("/", os.sep)):
        return _enhance_several(args, options)
    return _enhance_one(args, options)


def _enhance_one(args, options):
    from .pipeline import enhance_file

    start = time.perf_counter()
    enhanced = enhance_file(*args.input, args.output, **options)
    if not args.quiet:
        _say(_summary(args.output, enhanced, time.perf_counter() - start))


def _enhance_several(args, options):
    from .pipeline import enhance_collection

    manifest = enhance_collection(args.input, args.output, **options)
    for row in manifest:
        if row["warnings"]:
            sys.stderr.write(f"astro-ddpm: warning: {row['input']}: {row['warnings']}\n")
        if row["status"] == "failed":
            sys.stderr.write(f"astro-ddpm: error: {row['input']}: {row['reason']}\n")
    if not args.quiet:
        count = Counter(manifest["status"])
        _say(f"{args.output}: {', '.join(f'{n} {status}' for status, n in sorted(count.items()))}")
    return int("failed" in manifest["status"])


def _background(text):
    """Turn the text of ``--background`` into what `enhance` takes."""
    if text is None or text == "photutils":
        return text
    try:
        return float(text)
    except ValueError:
        msg = f"background must be 'photutils' or a number, not {text!r}"
        raise ValueError(msg) from None


def _summary(output, enhanced, seconds):
    samples = "no samples" if enhanced.samples is None else f"{len(enhanced.samples)} samples"
    ny, nx = enhanced.shape
    meta = enhanced.meta
    return (
        f"{output}: {nx} x {ny} pixels, model {meta['DDPMMODL']}, {samples}, seed {meta['DDPMSEED']}, "
        f"{seconds:.1f} s"
    )


def demo_command(args):
    """Run ``astro-ddpm demo``."""
    from . import enhance
    from .datasets import make_galaxy_field
    from .evaluation import plot_comparison
    from .utils import atomic_path

    folder = Path(args.output)
    files = {
        "input": folder / "input.fits",
        "enhanced": folder / "enhanced.fits",
        "picture": folder / "demo.png",
        "table": folder / "fluxes.ecsv",
    }
    taken = [str(path) for path in files.values() if path.exists()]
    if taken and not args.overwrite:
        msg = f"{', '.join(taken)} would be overwritten; use --overwrite or another --output"
        raise FileExistsError(msg)
    start = time.perf_counter()
    field = make_galaxy_field((args.size, args.size), seed=args.seed)
    enhanced = enhance(
        field.image,
        model=args.model,
        n_samples=args.samples,
        seed=args.seed,
        progress_bar=not args.quiet,
    )
    table = compare_fluxes(field, enhanced)
    folder.mkdir(parents=True, exist_ok=True)
    field.image.write(files["input"], overwrite=args.overwrite)
    enhanced.write(files["enhanced"], overwrite=args.overwrite)
    table.write(files["table"], overwrite=args.overwrite)
    figure = plot_comparison(enhanced, field.truth, image=field.image)
    with atomic_path(files["picture"], overwrite=args.overwrite) as partial:
        figure.savefig(partial, dpi=120)
    _say("\n".join(table.pformat(max_lines=-1, max_width=-1)))
    if not args.quiet:
        _say(_flux_verdict(table))
        _say(_summary(files["enhanced"], enhanced, time.perf_counter() - start))
        _say(f"picture: {files['picture']}")


def compare_fluxes(field, enhanced):
    """
    Measure the sources of a simulated field on input and result, beside the truth.

    Parameters
    ----------
    field : `~astro_ddpm.datasets.GalaxyField`
        The field.

    enhanced : `~astro_ddpm.EnhancedCCDData`
        Its enhanced image.

    Returns
    -------
    table : `~astropy.table.QTable`
        Per source the flux in one aperture: true, on the input and on the enhanced image, with errors,
        and the pull of the latter.
    """
    import numpy as np
    from astropy.nddata import CCDData
    from photutils.aperture import CircularAperture

    from .evaluation import aperture_photometry

    catalog = field.catalog
    positions = np.transpose([np.asarray(catalog["x"]), np.asarray(catalog["y"])])
    apertures = CircularAperture(positions, r=6)
    truth = CCDData(field.truth, unit=field.image.unit)
    table = aperture_photometry(enhanced, apertures)["id", "x", "y", "flux", "flux_err"]
    table.rename_columns(["flux", "flux_err"], ["enhanced", "enhanced_err"])
    before = aperture_photometry(field.image, apertures, mask=field.image.mask)
    table["true"] = aperture_photometry(truth, apertures)["flux"]
    table["input"], table["input_err"] = before["flux"], before["flux_err"]
    if "enhanced_err" in table.colnames:
        table["pull"] = ((table["enhanced"] - table["true"]) / table["enhanced_err"]).to_value("")
    table["kind"] = catalog["kind"]
    order = ["id", "kind", "x", "y", "true", "input", "input_err", "enhanced", "enhanced_err", "pull"]
    table = table[[name for name in order if name in table.colnames]]
    for name in table.colnames[2:]:
        table[name].info.format = ".2f" if name == "pull" else ".1f"
    return table


def _flux_verdict(table):
    """One line on how well fluxes came out."""
    import numpy as np

    pulls = [(table[name] - table["true"]) / table["input_err"] for name in ("input", "enhanced")]
    before, after = (float(np.sqrt(np.mean(pull**2))) for pull in pulls)
    inside = np.mean(np.abs(table["pull"]) < 1)
    return (
        f"{len(table)} sources: rms flux error {before:.2f} before and {after:.2f} after, in units of the "
        "error of the input; "
        f"{inside:.0%} of the fluxes within one error of the truth"
    )


def evaluate_command(args):
    """Run ``astro-ddpm evaluate``."""
    from .evaluation import degrade_images, evaluate, read_pairs

    if args.pairs:
        pairs, rejected = read_pairs(args.pairs, gain=args.gain, limit=args.limit)
    else:
        pairs, rejected = degrade_images(args.degrade[: args.limit], args.factor, seed=args.seed), []
    page = evaluate(
        pairs,
        args.output,
        models=args.model,
        classics=args.compare,
        n_samples=args.samples,
        n_injections=args.injections,
        seed=args.seed,
        zero_point=args.zero_point,
        rejected=rejected,
        device=args.device,
        progress_bar=not args.quiet,
    )
    if not args.quiet:
        _say(f"{page}: {len(pairs)} images, {len(rejected)} left out")


def train_command(args):
    """Run ``astro-ddpm train``."""
    from . import zoo
    from .training import train

    output = train(args.config, args.options)
    if output:
        _say(f"{output} {zoo.load(output).sha256}")


def list_models(_):
    """Run ``astro-ddpm models``."""
    from . import zoo

    for name in zoo.list_models():
        model = zoo.load(name)
        number = sum(p.numel() for net in (model.raunet, model.network) if net for p in net.parameters())
        _say(f"{name:<10} {model.kind:<7} {number / 1e6:.2f} M parameters  sha256 {model.sha256}")


def _say(text):
    sys.stdout.write(f"{text}\n")


def _show_warning(message, *_):
    sys.stderr.write(f"astro-ddpm: warning: {' '.join(str(message).split())}\n")


def main(args=None):
    """
    Run the command line.

    Parameters
    ----------
    args : list of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    code : int
        The exit code.
    """
    from astropy.utils.exceptions import AstropyUserWarning

    args = _parser().parse_args(args)
    with warnings.catch_warnings():
        warnings.simplefilter("always", AstropyUserWarning)
        warnings.showwarning = _show_warning
        try:
            return args.run(args) or 0
        except KeyboardInterrupt:
            sys.stderr.write("astro-ddpm: interrupted\n")
            return 130
        except Exception as error:
            if args.debug:
                raise
            sys.stderr.write(f"astro-ddpm: error: {error or type(error).__name__}\n")
            return 1


if __name__ == "__main__":
    sys.exit(main())
