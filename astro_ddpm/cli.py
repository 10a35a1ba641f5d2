# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The command ``astro-ddpm``.

Exit codes: 0 for success, 1 for an error that the message explains, 2 for a wrong command line, 130
when interrupted.
"""

import argparse
import inspect
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
# What the package says of its arguments in other ways.
PHRASES = {
    "uncertainty=": "--stddev, --variance or --weight",
    "saturation=": "--saturation",
    "background='photutils'": "--background photutils",
    'background={"box_size": ...}': "--background photutils:PIXELS",
    "set again=True": "use --again",
    "set overwrite": "use --overwrite",
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
    _command(commands, models_command)
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
    "--quiet": {
        "action": "store_true",
        "help": "no progress bar, which long work shows in a terminal, and no summary",
    },
    "--samples": {"dest": "n_samples", "type": _whole(1), "default": 16, "metavar": "N"}
    | {"help": "samples to draw (%(default)s)"},
    "--seed": {"type": _whole(0), "default": 0, "help": "seed of all that is drawn (%(default)s)"},
}
POSITIVE = _real(positive=True)


def _command(commands, run, **defaults):
    """
    Return the parser of a new command, and a function that adds an option that takes a value.

    The docstring of the function that runs the command is its help.
    """
    text = inspect.getdoc(run) or ""  # python -OO leaves none
    summary = text[:1].lower() + text.partition(".")[0][1:]
    parser = commands.add_parser(run.__name__.removesuffix("_command"), help=summary, description=text)
    parser.set_defaults(run=run, **defaults)

    def add(names, metavar, text, to=parser, **options):
        to.add_argument(*names.split(), metavar=metavar, help=text, **options)

    return parser, add


def _add_common(parser, *options):
    for option in options:
        parser.add_argument(option, **COMMON[option])


def _add_demo(commands):
    demo, add = _command(commands, demo_command)
    add("-o --output", "DIR", "folder for the files (%(default)s)", default="astro-ddpm-demo")
    add("--size", None, "width of the field in pixels (%(default)s)", type=_whole(32), default=256)
    _add_common(demo, "--seed", "--model", "--samples", "--overwrite", "--quiet")


def _add_enhance(commands):
    enhance, add = _command(commands, enhance_command)
    add("input", "IN.fits", "sky-subtracted images, may be compressed", nargs="+")
    add("-o --output", "OUT", "file to write; a folder for several images", required=True)
    _add_planes(enhance, add)
    add("--mask-treatment", None, None, choices=["fill", "propagate"], default="fill")
    add("--noise-ratio --depth", "RATIO", "noise of the samples / noise of the image", type=POSITIVE)
    add("--steps", None, "evaluations of the denoiser per sample (4)", type=_whole(1))
    add("--precision", None, "of the numbers of samples", choices=["float32", "bfloat16"], default="float32")
    add("--seed", None, "same seed, same samples (drawn and recorded)", type=_whole(0))
    add("--memory-limit", "SIZE", "memory of the networks, such as 500MB")
    switch = enhance.add_argument
    switch("--no-samples", dest="keep_samples", action="store_false", help="write mean and uncertainty only")
    switch("--again", action="store_true", help="enhance what has been enhanced once more")
    switch("--no-verify", dest="verify", action="store_false", help="neither estimate the error nor correct")
    _add_common(enhance, "--device", "--model", "--samples", "--overwrite", "--quiet")


def _add_check(commands):
    check, add = _command(commands, check_command, model="raunet")
    add("input", "IN.fits", "sky-subtracted or enhanced image, may be compressed")
    _add_planes(check, add)
    _add_common(check, "--device", "--model", "--seed")


def _add_adapt(commands):
    adapt, add = _command(commands, adapt_command)
    cameras = "keywords of the headers that tell cameras apart, such as INSTRUME FILTER: a model for each"
    picture = "draw errors and a part of a frame into a .png file beside it"
    add("input", "IN.fits", "sky-subtracted frames of one camera", nargs="+")
    add("-o --output", "OUT", "the .safetensors file to write; with --groupby a folder", required=True)
    add("--groupby", "KEYWORD", cameras, nargs="+")
    add("--minutes", None, "time (%(default)s)", type=POSITIVE, default=10.0)
    add("--steps", None, "steps at most (%(default)s)", type=_whole(1), default=200)
    adapt.add_argument("--picture", action="store_true", help=picture)
    _add_planes(adapt, add)
    _add_common(adapt, "--seed", "--device", "--model", "--overwrite", "--quiet")


def _add_planes(parser, add):
    """Options that say what belongs to an image."""
    add("--ext", None, "extension of the image, number or name (the first image)")
    noise, plane = parser.add_mutually_exclusive_group(), "FILE[EXT]"
    add("--stddev", plane, "image of the noise, one sigma; [EXT] in the same file", noise)
    add("--variance", plane, "image of the variance", noise)
    add("--weight", plane, "image of the inverse variance", noise)
    add("--mask --dq", plane, "image that is not zero at bad pixels")
    add("--ignore-bits", "BITS", "bits of it that are not bad: 4,64 or ~4,64")
    units = {"gain": "electron/adu", "read-noise": "electron", "saturation": "image units"}
    for name, unit in units.items():
        text = f"{name.replace('-', ' ')} in {unit}, or its keyword in the header"
        add(f"--{name}", "NUMBER", text, type=_number_or_keyword)
    add(
        "--background",
        None,
        "sky to subtract before and to add back after: 'photutils', 'photutils:256' for boxes of 256 "
        "pixels, or a number (none)",
        type=_sky,
    )


def _add_pairs(parser, add):
    """Options that say what images with a deep counterpart there are; one of them is required."""
    group = parser.add_mutually_exclusive_group(required=True)
    add("--pairs", "LIST.csv", "pairs of a shallow and a deep image: paths relative to the list", group)
    return group


def _add_evaluate(commands):
    evaluate, add = _command(
        commands,
        evaluate_command,
        models=["raunet", "ddpm"],
        classics=["gaussian", "starlet", "nlm", "tv", "wavelet"],
    )
    data = _add_pairs(evaluate, add)
    classics = "classical methods (gaussian starlet nlm tv wavelet; bm3d where that package is installed)"
    added = "noise added by --degrade / noise of the image (%(default)s)"
    sources = "sources of each magnitude, 0 for none (%(default)s)"
    add("--degrade", "DEEP.fits", "deep images to be made shallow", data, nargs="+")
    add("-o --output", "DIR", "folder to write to", required=True)
    add("--model", "MODEL", "names or .safetensors files (raunet ddpm)", dest="models", nargs="+")
    add("--compare", "METHOD", classics, dest="classics", nargs="*")
    add("--limit", "N", "only the first N images", type=_whole(1))
    add("--gain", None, "gain in electron per unit of flux", type=POSITIVE)
    add("--factor", None, added, type=POSITIVE, default=10.0)
    add("--zero-point", None, "magnitude of unit flux (%(default)s)", type=_real(), default=0.0)
    add("--injections", "N", sources, dest="n_injections", type=_whole(0), default=30)
    _add_common(evaluate, "--samples", "--seed", "--device", "--quiet")


def _add_prepare(commands):
    prepare, add = _command(commands, prepare_command)
    data = _add_pairs(prepare, add)
    size = "width in pixels of the stamps of --deep (as they are) or --cameras (96)"
    add("--deep", "DEEP.fits", "sky-subtracted deep images", data, nargs="+")
    add("--cameras", "MANIFEST.yaml", "frames of many cameras that it describes", data)
    add("-o --output", "OUT.npz", "file to write, of --cameras the folder", required=True)
    add("--root", "DIR", "folder of the frames of --cameras (its own)")
    add("--gain", None, "gain of the shallow images in electron per unit of flux", type=POSITIVE)
    add("--size", None, size, type=_whole(32))
    _add_common(prepare, "--seed", "--overwrite", "--quiet")


def _add_train(commands):
    _, add = _command(commands, train_command)
    add("config", "CONFIG.yaml", "settings, a file or the name of a model")
    add("options", "...", "settings that replace those of the file", nargs=argparse.REMAINDER)


def _add_average(commands):
    average, add = _command(commands, average_command, widths=[0.05, 0.075, 0.1, 0.15, 0.2])
    widths = "in units of the length of the training (0.05 0.075 0.1 0.15 0.2)"
    add("trained", "MODEL.safetensors", "what the training wrote")
    add("snapshots", "DIR", "the folder ema in that of the run")
    add("validation", "VAL.npz", "pairs to choose by")
    add("-o --output", "OUT.safetensors", "the file to write", required=True)
    add("--widths", "WIDTH", widths, type=POSITIVE, nargs="+")
    _add_common(average, "--overwrite")


def enhance_command(args):
    """
    Enhance FITS images.

    A result holds the posterior mean, its uncertainty, the mask and the samples. Those of several images go
    into a folder, with a table of how it went; what is there already from the same call is kept. In the paths
    of their noise and masks {folder}, {stem} and {path} stand for those of each image.
    """
    options = _options(args) | {"progress_bar": False if args.quiet else None}
    if len(args.input) > 1 or Path(args.output).is_dir() or args.output.endswith(("/", os.sep)):
        return _enhance_several(args, options)
    return _enhance_one(args, options)


def _options(args):
    """Return the options that are arguments of `enhance_file` of the same name."""
    others = {"command", "debug", "run", "input", "output", "quiet"}
    return {name: value for name, value in vars(args).items() if name not in others}


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
    """
    Estimate from an image alone how wrong its enhancement is.

    The estimate, by Stein's lemma, says where the networks help. An enhanced image has it in it; any other
    one is enhanced first, and not written.
    """
    from tempfile import TemporaryDirectory

    from .nddata import read_check
    from .pipeline import enhance_file

    _, table = read_check(args.input)
    if table is None:
        with TemporaryDirectory() as folder:
            output = Path(folder) / "enhanced.fits"
            table = enhance_file(args.input, output, keep_samples=False, **_options(args)).check
    if table is None:
        msg = f"{args.input} has too few valid pixels to be checked"
        raise ValueError(msg)
    _say_table(table, ".3f")
    _say_check(table)


def adapt_command(args):
    """
    Fit a model to a camera from its noisy frames alone.

    The model is written only if it is better on blocks of the frames that were held out; otherwise the exit
    code is 1. In the paths of noise and masks {folder}, {stem} and {path} stand for those of each frame.
    """
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
            _say_table(adaptation.table, ".4f")
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
    """
    Enhance a simulated galaxy field and compare with its truth.

    FITS files and a picture are written, and recovered fluxes printed beside the true ones.
    """
    from . import enhance
    from .datasets import make_galaxy_field
    from .evaluation import plot_comparison
    from .utils import atomic_path

    folder = Path(args.output)
    source, result, picture, fluxes = files = [
        folder / name for name in ("input.fits", "enhanced.fits", "demo.png", "fluxes.ecsv")
    ]
    taken = [str(path) for path in files if path.exists()]
    if taken and not args.overwrite:
        msg = f"{', '.join(taken)} would be overwritten; use --overwrite or another --output"
        raise FileExistsError(msg)
    start = time.perf_counter()
    field = make_galaxy_field((args.size, args.size), seed=args.seed)
    options = {"model": args.model, "n_samples": args.n_samples, "seed": args.seed}
    enhanced = enhance(field.image, progress_bar=False if args.quiet else None, **options)
    table = compare_fluxes(field, enhanced)
    folder.mkdir(parents=True, exist_ok=True)
    field.image.write(source, overwrite=args.overwrite)
    enhanced.write(result, overwrite=args.overwrite)
    table.write(fluxes, overwrite=args.overwrite)
    figure = plot_comparison(enhanced, field.truth, image=field.image)
    with atomic_path(picture, overwrite=args.overwrite) as partial:
        figure.savefig(partial, dpi=120)
    _say_table(table)
    if not args.quiet:
        _say(_pixel_verdict(field, enhanced))
        _say(_flux_verdict(table))
        _say(_summary(result, enhanced, time.perf_counter() - start))
        _say(f"picture: {picture}")


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
    """
    Judge models on images whose deep counterpart is known.

    Tables, figures and a page say whether fluxes and errors are right and whether anything is invented. A run
    that was interrupted goes on from there.
    """
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
    options = {name: getattr(args, name) for name in names} | {"rejected": rejected}
    page = evaluate(pairs, args.output, progress_bar=False if args.quiet else None, **options)
    if not args.quiet:
        _say(f"{page}: {len(pairs)} images, {len(rejected)} left out")


def prepare_command(args):
    """
    Turn images into the arrays that a training reads.

    The images are pairs of exposures, single deep ones, or frames of many cameras.
    """
    from .training import prepare_cameras, prepare_deep, prepare_pairs, read_listing

    output, overwrite = args.output, args.overwrite
    if args.pairs:
        options = {"variance_per_flux": 1 / args.gain if args.gain else 0.0, "overwrite": overwrite}
        used, rejected = prepare_pairs(read_listing(args.pairs), output, **options)
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
    """
    Train a model.

    It learns from the arrays of 'astro-ddpm prepare'. The file holds the settings. Options replace them, as
    --trainer.max_steps 100; 'astro-ddpm train CONFIG.yaml --print_config' lists them.
    """
    from . import zoo
    from .training import train

    output = train(args.config, args.options)
    if output:
        _say(f"{output} {zoo.load(output).sha256}")


def average_command(args):
    """
    Choose the average of the weights after a training.

    Averages that reach back over different parts of it are tried, and the model whose loss on validation
    pairs is least is written.
    """
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
    """List the models that come with the package, and what each is for."""
    from . import conf, domain, zoo

    labels = domain.LABELS | {"noise_ratio": "noise of the samples / noise of the image"}
    for name in zoo.list_models():
        model = zoo.load(name)
        number = sum(p.numel() for network in model.networks for p in network.parameters())
        use = "mean and uncertainty, for large frames and a first look"
        if model.draws_samples:
            use = "samples of the posterior, for the errors of fluxes, sizes and shapes"
        elif model.passes == 1:
            use = "mean and uncertainty in 0.6 of the time, with a little more noise left"
        _say(f"{name}{' (default)' if name == conf.default_model else ''}: {use}")
        for key, text in labels.items():
            if key in model.ranges:
                low, high = model.ranges[key]
                _say(f"    {text}: {low:g} to {high:g}")
        _say(f"    {number / 1e6:.2f} million parameters, sha256 {model.sha256}")


def _say(text):
    sys.stdout.write(f"{text}\n")


def _say_table(table, number_format=None):
    """Print all of a table, with a format for what follows its first three columns."""
    for name in table.colnames[3:] if number_format else ():
        table[name].info.format = number_format
    _say("\n".join(table.pformat(max_lines=-1, max_width=-1)))


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
    for phrase, option_text in PHRASES.items():
        message = message.replace(phrase, option_text)
    return message


def main(args=None):
    """Run the command line with arguments, those of the process by default; return the exit code."""
    from astropy.utils.exceptions import AstropyUserWarning

    args, said = _parser().parse_args(args), set()

    def complain(kind, message):
        message = " ".join(str(message).split())
        line = f"astro-ddpm: {kind}: {_name_options(message, args)}\n"
        if line not in said:  # astropy warns of a header whenever it reads it
            said.add(line)
            sys.stderr.write(line)

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
