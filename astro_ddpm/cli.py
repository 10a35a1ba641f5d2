# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The command ``astro-ddpm``.

Exit codes: 0 for success, 1 for an error that the message explains, 2 for a wrong command line, 130
when interrupted.
"""

import argparse
import math
import os
import re
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

__all__ = ["main"]

# Options that are not called as the argument of Python that they stand for.
RENAMED = {
    "classics": "--compare",
    "keep_samples": "--no-samples",
    "models": "--model",
    "n_injections": "--injections",
    "n_samples": "--samples",
    "noise_ratio": "--noise-ratio",
}


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
    _add_check(commands)
    _add_adapt(commands)
    _add_evaluate(commands)
    _add_prepare(commands)
    _add_train(commands)
    _add_average(commands)
    models = commands.add_parser(
        "models", help="list the models that come with the package, and what each is for"
    )
    models.set_defaults(run=models_command)
    return parser


def _whole(least):
    """Return a type of options: integers from ``least`` on."""

    def parse(text):
        number = int(text)
        if number < least:
            msg = f"must be at least {least}, not {text}"
            raise argparse.ArgumentTypeError(msg)
        return number

    parse.__name__ = "int"
    return parse


def _real(*, positive=False):
    """Return a type of options: finite numbers, all or the positive ones."""

    def parse(text):
        number = float(text)
        if not math.isfinite(number) or (positive and number <= 0):
            msg = f"must be {'positive' if positive else 'finite'}, not {text}"
            raise argparse.ArgumentTypeError(msg)
        return number

    parse.__name__ = "float"
    return parse


def _sky(text):
    """Read what ``--background`` is given."""
    if text == "photutils":
        return text
    try:
        if text.startswith("photutils:"):
            return {"box_size": _whole(1)(text.removeprefix("photutils:"))}
        return float(text)
    except ValueError:
        msg = f"must be 'photutils' or a number, not {text!r}"
        raise argparse.ArgumentTypeError(msg) from None


def _number_or_keyword(text):
    """Read a number, or else the keyword of a header that holds it."""
    try:
        return float(text)
    except ValueError:
        return text


COMMON = {
    "--device": {"help": "where to compute, such as cpu or cuda:0"},
    "--model": {"help": "name or .safetensors file (the default_model of astro_ddpm.cfg: ddpm)"},
    "--overwrite": {"action": "store_true", "help": "replace existing files"},
    "--pairs": {
        "metavar": "LIST.csv",
        "help": "pairs of a shallow and a deep image: paths relative to the list",
    },
    "--quiet": {
        "action": "store_true",
        "help": "no progress bar, which long work shows in a terminal, and no summary",
    },
    "--samples": {
        "dest": "n_samples",
        "type": _whole(1),
        "default": 16,
        "metavar": "N",
        "help": "samples to draw (%(default)s)",
    },
    "--seed": {"type": _whole(0), "default": 0, "help": "seed of all that is drawn (%(default)s)"},
}


def _add_common(parser, *options):
    for option in options:
        parser.add_argument(option, **COMMON[option])


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
    demo.add_argument(
        "--size", type=_whole(32), default=256, help="width of the field in pixels (%(default)s)"
    )
    _add_common(demo, "--seed", "--model", "--samples", "--overwrite", "--quiet")
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
    add = enhance.add_argument
    add("input", nargs="+", metavar="IN.fits", help="sky-subtracted images, may be compressed")
    add("-o", "--output", required=True, metavar="OUT", help="file to write; a folder for several images")
    _add_planes(enhance)
    add("--mask-treatment", choices=["fill", "propagate"], default="fill")
    add(
        "--noise-ratio",
        "--depth",
        dest="noise_ratio",
        type=_real(positive=True),
        metavar="RATIO",
        help="noise of the samples / noise of the image",
    )
    add("--steps", type=_whole(1), help="evaluations of the denoiser per sample (4)")
    add("--precision", choices=["float32", "bfloat16"], default="float32", help="of the numbers of samples")
    add("--seed", type=_whole(0), help="same seed, same samples (drawn and recorded)")
    add("--memory-limit", metavar="SIZE", help="memory of the networks, such as 500MB")
    add("--no-samples", dest="keep_samples", action="store_false", help="write mean and uncertainty only")
    add("--again", action="store_true", help="enhance what has been enhanced once more")
    add("--no-verify", dest="verify", action="store_false", help="neither estimate the error nor correct")
    _add_common(enhance, "--device", "--model", "--samples", "--overwrite", "--quiet")
    enhance.set_defaults(run=enhance_command)


def _add_check(commands):
    check = commands.add_parser(
        "check",
        help="estimate from an image alone how wrong its enhancement is",
        description="Estimate from the image alone how wrong an enhancement is, by Stein's lemma, and say "
        "where the networks help. An enhanced image has that in it; any other one is enhanced first, and not "
        "written.",
    )
    check.add_argument("input", metavar="IN.fits", help="sky-subtracted or enhanced image, may be compressed")
    _add_planes(check)
    _add_common(check, "--device", "--model", "--seed")
    check.set_defaults(run=check_command, model="raunet")


def _add_adapt(commands):
    adapt = commands.add_parser(
        "adapt",
        help="fit a model to a camera from its noisy frames alone",
        description="Fit a model to a camera from noisy frames alone, without any deep image. The model is "
        "written only if it is better on blocks of the frames that were held out; otherwise the exit code is "
        "1. In the paths of noise and masks {folder}, {stem} and {path} stand for those of each frame.",
    )
    add = adapt.add_argument
    add("input", nargs="+", metavar="IN.fits", help="sky-subtracted frames of one camera")
    add(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="the .safetensors file to write; with --groupby a folder",
    )
    add(
        "--groupby",
        nargs="+",
        metavar="KEYWORD",
        help="keywords of the headers that tell cameras apart, such as INSTRUME FILTER: a model for each",
    )
    add("--minutes", type=_real(positive=True), default=10.0, help="time (%(default)s)")
    add("--steps", type=_whole(1), default=400, help="steps at most (%(default)s)")
    add("--picture", action="store_true", help="draw errors and a part of a frame into a .png file beside it")
    _add_planes(adapt)
    _add_common(adapt, "--seed", "--device", "--model", "--overwrite", "--quiet")
    adapt.set_defaults(run=adapt_command)


def _add_planes(parser):
    """Options that say what belongs to an image."""
    add = parser.add_argument
    add("--ext", help="extension of the image, number or name (the first image)")
    noise = parser.add_mutually_exclusive_group()
    plane = "FILE[EXT]"
    noise.add_argument(
        "--stddev", metavar=plane, help="image of the noise, one sigma; [EXT] in the same file"
    )
    noise.add_argument("--variance", metavar=plane, help="image of the variance")
    noise.add_argument("--weight", metavar=plane, help="image of the inverse variance")
    add("--mask", "--dq", metavar=plane, help="image that is not zero at bad pixels")
    add("--ignore-bits", metavar="BITS", help="bits of it that are not bad: 4,64 or ~4,64")
    for name, unit in (("gain", "electron/adu"), ("read-noise", "electron"), ("saturation", "image units")):
        add(
            f"--{name}",
            type=_number_or_keyword,
            metavar="NUMBER",
            help=f"{name.replace('-', ' ')} in {unit}, or its keyword in the header",
        )
    add(
        "--background",
        type=_sky,
        help="sky to subtract before and to add back after: 'photutils', 'photutils:256' for boxes of 256 "
        "pixels, or a number (none)",
    )


def _add_evaluate(commands):
    evaluate = commands.add_parser(
        "evaluate",
        help="judge models on images whose deep counterpart is known",
        description="Enhance images whose deep counterpart is known and write tables, figures and a page "
        "that says whether fluxes and errors are right and whether anything is invented. A run that was "
        "interrupted goes on from there.",
    )
    add = evaluate.add_argument
    data = evaluate.add_mutually_exclusive_group(required=True)
    _add_common(data, "--pairs")
    data.add_argument("--degrade", nargs="+", metavar="DEEP.fits", help="deep images to be made shallow")
    add("-o", "--output", required=True, metavar="DIR", help="folder to write to")
    add(
        "--model",
        dest="models",
        nargs="+",
        default=["raunet", "ddpm"],
        metavar="MODEL",
        help="names or .safetensors files (raunet ddpm)",
    )
    add(
        "--compare",
        dest="classics",
        nargs="*",
        default=["gaussian", "starlet", "nlm", "tv", "wavelet"],
        metavar="METHOD",
        help="classical methods (gaussian starlet nlm tv wavelet; bm3d where that package is installed)",
    )
    add("--limit", type=_whole(1), metavar="N", help="only the first N images")
    add("--gain", type=_real(positive=True), help="gain in electron per unit of flux")
    add(
        "--factor",
        type=_real(positive=True),
        default=10.0,
        help="noise added by --degrade / noise of the image (%(default)s)",
    )
    add("--zero-point", type=_real(), default=0.0, help="magnitude of unit flux (%(default)s)")
    add(
        "--injections",
        dest="n_injections",
        type=_whole(0),
        default=30,
        metavar="N",
        help="sources of each magnitude, 0 for none (%(default)s)",
    )
    _add_common(evaluate, "--samples", "--seed", "--device", "--quiet")
    evaluate.set_defaults(run=evaluate_command)


def _add_prepare(commands):
    prepare = commands.add_parser(
        "prepare",
        help="turn images into the arrays that a training reads",
        description="Turn pairs of exposures, single deep images, or frames of many cameras into arrays "
        "for training.",
    )
    add = prepare.add_argument
    data = prepare.add_mutually_exclusive_group(required=True)
    _add_common(data, "--pairs")
    data.add_argument("--deep", nargs="+", metavar="DEEP.fits", help="sky-subtracted deep images")
    data.add_argument("--cameras", metavar="MANIFEST.yaml", help="frames of many cameras that it describes")
    add("-o", "--output", required=True, metavar="OUT.npz", help="file to write, of --cameras the folder")
    add("--root", metavar="DIR", help="folder of the frames of --cameras (its own)")
    add("--gain", type=_real(positive=True), help="gain of the shallow images in electron per unit of flux")
    add(
        "--size",
        type=_whole(32),
        help="width in pixels of the stamps of --deep (as they are) or --cameras (96)",
    )
    _add_common(prepare, "--seed", "--overwrite", "--quiet")
    prepare.set_defaults(run=prepare_command)


def _add_train(commands):
    train = commands.add_parser(
        "train",
        help="train a model",
        description="Train a model on the arrays of 'astro-ddpm prepare'. The file holds the settings. "
        "Options replace them, as --trainer.max_steps 100; 'astro-ddpm train CONFIG.yaml --print_config' "
        "lists them.",
    )
    train.add_argument("config", metavar="CONFIG.yaml", help="settings, a file or the name of a model")
    train.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="...", help="settings that replace those of the file"
    )
    train.set_defaults(run=train_command)


def _add_average(commands):
    average = commands.add_parser(
        "average",
        help="choose the average of the weights after a training",
        description="Try averages of the weights that reach back over different parts of a training, and "
        "write the model whose loss on validation pairs is least.",
    )
    add = average.add_argument
    add("trained", metavar="MODEL.safetensors", help="what the training wrote")
    add("snapshots", metavar="DIR", help="the folder ema in that of the run")
    add("validation", metavar="VAL.npz", help="pairs to choose by")
    add("-o", "--output", required=True, metavar="OUT.safetensors", help="the file to write")
    add(
        "--widths",
        type=_real(positive=True),
        nargs="+",
        default=[0.05, 0.075, 0.1, 0.15, 0.2],
        metavar="WIDTH",
        help="in units of the length of the training (0.05 0.075 0.1 0.15 0.2)",
    )
    _add_common(average, "--overwrite")
    average.set_defaults(run=average_command)


def enhance_command(args):
    """Run ``astro-ddpm enhance``."""
    taken = {"command", "debug", "run", "input", "output", "quiet"}
    options = {name: value for name, value in vars(args).items() if name not in taken}
    options["progress_bar"] = False if args.quiet else None
    if len(args.input) > 1 or Path(args.output).is_dir() or args.output.endswith(("/", os.sep)):
        return _enhance_several(args, options)
    return _enhance_one(args, options)


def _enhance_one(args, options):
    from .pipeline import enhance_file

    start = time.perf_counter()
    enhanced = enhance_file(*args.input, args.output, **options)
    if not args.quiet:
        _say(_summary(args.output, enhanced, time.perf_counter() - start))
        _say_check(enhanced.check)


def _say_check(table):
    """Print the sentence of a check, if there was one."""
    if table is not None:
        _say(table.meta["sentence"])


def check_command(args):
    """Run ``astro-ddpm check``."""
    from tempfile import TemporaryDirectory

    from .nddata import read_check
    from .pipeline import enhance_file

    _, table = read_check(args.input)
    if table is None:
        taken = {"command", "debug", "run", "input"}
        options = {name: value for name, value in vars(args).items() if name not in taken}
        with TemporaryDirectory() as folder:
            output = Path(folder) / "enhanced.fits"
            table = enhance_file(args.input, output, keep_samples=False, **options).check
    if table is None:
        msg = f"{args.input} has too few valid pixels to be checked"
        raise ValueError(msg)
    for name in table.colnames[3:]:
        table[name].info.format = ".3f"
    _say("\n".join(table.pformat(max_lines=-1, max_width=-1)))
    _say_check(table)


def adapt_command(args):
    """Run ``astro-ddpm adapt``."""
    from .pipeline.collection import plane_path
    from .pipeline.files import PLANES, read_ccd
    from .pipeline.reduction import prepare_ccd
    from .training import adapt, adapt_cameras
    from .utils import atomic_path

    frames = []
    for path in args.input:
        planes = {name: getattr(args, name) for name in PLANES if getattr(args, name) is not None}
        planes = {name: plane_path(plane, Path(path)) for name, plane in planes.items()}
        ccd = read_ccd(path, ext=args.ext, ignore_bits=args.ignore_bits, **planes)
        options = {name: getattr(args, name) for name in ("gain", "read_noise", "saturation", "background")}
        frames.append(prepare_ccd(ccd, **options)[0])
    names = ("model", "background", "minutes", "steps", "seed", "device", "overwrite")
    options = {name: getattr(args, name) for name in names} | {"progress_bar": not args.quiet}
    options["names"] = args.input
    folder = Path(args.output) if args.groupby else Path()
    if args.groupby:
        found = adapt_cameras(frames, location=args.output, groupby=args.groupby, **options)
    else:
        found = {args.output: adapt(frames, output=args.output, **options)}
    for name, adaptation in found.items():
        if adaptation.table is not None and not args.quiet:
            for column in adaptation.table.colnames[3:]:
                adaptation.table[column].info.format = ".4f"
            _say("\n".join(adaptation.table.pformat(max_lines=-1, max_width=-1)))
        if args.picture and adaptation.table is not None:
            with atomic_path(folder / Path(name).with_suffix(".png"), overwrite=args.overwrite) as partial:
                adaptation.plot().savefig(partial, dpi=120)
        if adaptation.accepted:
            _say(f"{name}: {adaptation.reason}")
        else:
            sys.stderr.write(f"astro-ddpm: {name} was not written: {adaptation.reason}\n")
    return int(not all(adaptation.accepted for adaptation in found.values()))


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
        n_samples=args.n_samples,
        seed=args.seed,
        progress_bar=False if args.quiet else None,
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
        _say(_pixel_verdict(field, enhanced))
        _say(_flux_verdict(table))
        _say(_summary(files["enhanced"], enhanced, time.perf_counter() - start))
        _say(f"picture: {files['picture']}")


def compare_fluxes(field, enhanced):
    """
    Measure the sources of a simulated field on input and result, beside the truth.

    Returns a table with the flux of each source in one aperture: true, on the input and on the enhanced
    image, with errors, and the pull of the latter.
    """
    import numpy as np
    from photutils.aperture import CircularAperture

    from .evaluation import aperture_photometry

    catalog = field.catalog
    positions = np.transpose([np.asarray(catalog["x"]), np.asarray(catalog["y"])])
    apertures = CircularAperture(positions, r=6)
    truth = field.truth << field.image.unit
    table = aperture_photometry(enhanced, apertures)["id", "x", "y", "flux", "flux_err"]
    table.rename_columns(["flux", "flux_err"], ["enhanced", "enhanced_err"])
    before = aperture_photometry(field.image, apertures)
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
    """One line on how well fluxes came out, and what faint sources lost."""
    import numpy as np

    pulls = [(table[name] - table["true"]) / table["input_err"] for name in ("input", "enhanced")]
    before, after = (float(np.sqrt(np.mean(pull**2))) for pull in pulls)
    inside = np.mean(np.abs(table["pull"]) < 1)
    faint = np.asarray(table["true"] < 10 * table["input_err"])
    shift = float(np.mean(pulls[1][faint])) if faint.any() else 0.0
    lost = (
        f"; the {faint.sum()} fainter than 10 of these errors came out too "
        f"{'faint' if shift < 0 else 'bright'} by {abs(shift):.2f} of them on average"
    )
    return (
        f"{len(table)} sources: rms flux error {before:.2f} before and {after:.2f} after, in units of the "
        "error of the input; "
        f"{inside:.0%} of the fluxes within one error of the truth{lost if faint.any() else ''}"
    )


def _pixel_verdict(field, enhanced):
    """One line on the errors of pixels, which the package is for."""
    import numpy as np

    use, sigma = ~field.image.mask, field.image.uncertainty.array
    before, after = (
        float(np.sqrt(np.mean(((image.data - field.truth) / sigma)[use] ** 2)))
        for image in (field.image, enhanced)
    )
    return f"pixels: rms error {before:.2f} before and {after:.2f} after, in units of the noise"


def evaluate_command(args):
    """Run ``astro-ddpm evaluate``."""
    from .core import choose_device
    from .report import degrade_images, evaluate, read_pairs
    from .report.run import load_methods

    load_methods(args.models, args.classics, args.n_samples)  # complains before the long work
    choose_device(args.device)
    Path(args.output).mkdir(parents=True, exist_ok=True)
    if args.pairs:
        pairs, rejected = read_pairs(args.pairs, gain=args.gain, limit=args.limit)
    else:
        pairs, rejected = degrade_images(args.degrade[: args.limit], args.factor, seed=args.seed), []
    names = ("models", "classics", "n_samples", "n_injections", "seed", "zero_point", "device")
    page = evaluate(
        pairs,
        args.output,
        rejected=rejected,
        progress_bar=False if args.quiet else None,
        **{name: getattr(args, name) for name in names},
    )
    if not args.quiet:
        _say(f"{page}: {len(pairs)} images, {len(rejected)} left out")


def prepare_command(args):
    """Run ``astro-ddpm prepare``."""
    from .training import prepare_cameras, prepare_deep, prepare_pairs, read_listing

    output, overwrite = args.output, args.overwrite
    if args.pairs:
        variance = 1 / args.gain if args.gain else 0.0
        used, rejected = prepare_pairs(
            read_listing(args.pairs), output, variance_per_flux=variance, overwrite=overwrite
        )
        result = f"{used} pairs, {rejected} left out"
    elif args.deep:
        result = f"{prepare_deep(args.deep, output, size=args.size, overwrite=overwrite)} stamps"
    else:
        options = {"root": args.root, "size": args.size or 96, "seed": args.seed, "overwrite": overwrite}
        counts = prepare_cameras(args.cameras, output, **options)
        result = ", ".join(f"{name} {number}" for name, number in counts.items())
    if not args.quiet:
        _say(f"{output}: {result}")


def train_command(args):
    """Run ``astro-ddpm train``."""
    from . import zoo
    from .training import train

    output = train(args.config, args.options)
    if output:
        _say(f"{output} {zoo.load(output).sha256}")


def average_command(args):
    """Run ``astro-ddpm average``."""
    from . import zoo
    from .training import choose_average, open_arrays
    from .utils import check_output

    check_output(args.output, args.overwrite)
    model, arrays = zoo.load(args.trained), open_arrays(args.validation)
    best, losses = choose_average(model, args.snapshots, arrays, args.widths)
    for width, loss in losses.items():
        _say(f"width {width:g}: loss {loss:.5f}")
    zoo.save(best, args.output, overwrite=args.overwrite)
    _say(f"{args.output}: width {best.training['ema_width']:g}")


def models_command(_):
    """Run ``astro-ddpm models``."""
    from . import conf, domain, zoo

    labels = domain.LABELS | {"noise_ratio": "noise of the samples / noise of the image"}
    for name in zoo.list_models():
        model = zoo.load(name)
        number = sum(p.numel() for network in model.networks for p in network.parameters())
        use = "mean and uncertainty in one pass, for large frames and a first look"
        if model.draws_samples:
            use = "samples of the posterior, for the errors of fluxes, sizes and shapes"
        _say(f"{name}{' (default)' if name == conf.default_model else ''}: {use}")
        for key, text in labels.items():
            if key in model.ranges:
                low, high = model.ranges[key]
                _say(f"    {text}: {low:g} to {high:g}")
        _say(f"    {number / 1e6:.2f} million parameters, sha256 {model.sha256}")


def _say(text):
    sys.stdout.write(f"{text}\n")


def _name_options(message, args):
    """Put options in place of the arguments of Python that a message of the package names."""
    known = {"output", *vars(args)} - {"command", "input", "config", "options", "run"}

    def option(match):
        word = match[0]
        return RENAMED.get(word, f"--{word.replace('_', '-')}") if word in known else word

    subject, must, rest = message.partition(" must ")
    if not must:
        subject, must, rest = message.partition(" ")
    subject = re.sub(r"^(trainer|data|model)(?=\.\w)", r"--\1", subject)
    message = re.sub(r"\w+", option, subject) + must + re.sub(r"\w*_\w*", option, rest)
    return message.replace("set overwrite", "use --overwrite")


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

    def complain(kind, message):
        message = " ".join(str(message).split())
        sys.stderr.write(f"astro-ddpm: {kind}: {_name_options(message, args)}\n")

    with warnings.catch_warnings():
        warnings.simplefilter("always", AstropyUserWarning)
        warnings.showwarning = lambda message, *_: complain("warning", message)
        try:
            return args.run(args) or 0
        except KeyboardInterrupt:
            sys.stderr.write("astro-ddpm: interrupted\n")
            return 130
        except Exception as error:
            if args.debug:
                raise
            complain("error", str(error) or type(error).__name__)
            return 1


if __name__ == "__main__":
    sys.exit(main())
