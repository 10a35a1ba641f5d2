# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From pairs to tables, figures and one page that says whether a model can be trusted.
"""

from __future__ import annotations

import logging
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import QTable

import astro_ddpm
from astro_ddpm import zoo
from astro_ddpm.enhance import enhance
from astro_ddpm.nddata import EnhancedCCDData, is_complete
from astro_ddpm.utils import atomic_path, progress

from . import figures, measures
from .classics import CLASSICS, REQUIREMENTS
from .detection import detection_curve, noise_image
from .honesty import calibration_tests
from .page import Picture, Section, render_page
from .photometry import standard_deviation

if TYPE_CHECKING:
    from .pairs import Pair

__all__ = ["evaluate"]

log = logging.getLogger(__name__)

_NOISE_SHAPE = (256, 256)
_CAPTIONS = {
    "pixels": "Error of the pixels in bins of the brightness of the reference.",
    "calibration": "Honesty of the errors of pixels in bins of the estimated brightness.",
    "coverage": "Fraction of the reference pixels within central intervals.",
    "images": "Metrics of image restoration, of arcsinh(image / noise of the sky).",
    "spectra": "Power spectra beside those of the references.",
    "sources": "Sizes and shapes of the sources of the references.",
    "structure": "Median and scatter of the differences in size and shape from the references.",
    "fluxes": "Fluxes of sources in circular apertures.",
    "flux_summary": "Fluxes in circular apertures, against the references.",
    "honesty": "Tests of the fluxes of the samples against those of the references.",
    "invented": "Sources in the images that the references do not show, and the reverse.",
    "noise": "Sources in an enhanced image of pure noise.",
    "detection_limits": "Magnitude at which 90 % of injected point sources are found at 90 % purity.",
    "detection_curve": "Completeness and purity of the detection of injected point sources.",
    "reliability": "Probability of existence against what came true.",
    "cost": "Time per image.",
}
_PULLS = (
    "Pulls of the fluxes of all sources. Without samples the error of a flux ignores the covariance of "
    "pixels and is too small for an enhanced image."
)
_PANELS = "Residuals are image minus reference, from -2 to 2 in units of the noise of the input."
_SPECTRA = (
    "Structure of arcsinh(image / noise of the sky) by spatial frequency; dotted: the samples, which have "
    "the noise of an exposure."
)
_COLUMNS = {
    "method": "Method",
    "bin": "Bin of brightness in units of the noise of the sky: sky < 1, lsb 1-5, mid 5-30, hi > 30",
    "pair": "Name of the pair",
    "n": "Number of cases",
    "rmse": "Root mean square error in units of the noise of the input",
    "excess": "rmse without the noise of the reference",
    "bias": "Mean error, or median error of fluxes, in units of the noise of the input",
    "bias_err": "Error of bias",
    "std_over_rmse": "Announced error over actual error",
    "crps": "Mean continuous ranked probability score in units of the noise of the input",
    "coverage_68": "Fraction within the 68 % interval",
    "coverage_95": "Fraction within the 95 % interval",
    "spread_skill": "Spread over error, 1 for honest errors",
    "ranks": "Rank histogram",
    "level": "Probability of the interval",
    "covered": "Fraction within the interval",
    "radius": "Radius of the aperture",
    "scatter": "Robust scatter of the difference in units of the noise of the flux in the input",
    "scatter_ratio": "Scatter over that of the input",
    "pull": "Difference over its error; its robust width in summaries",
    "pull_err": "Error of the width",
    "seconds": "Median time per image",
    "pixel_rate": "Median number of pixels per time",
    "x": "Column of the center; pixel centers are integers, from 0",
    "y": "Row of the center; pixel centers are integers, from 0",
    "magnitude": "Magnitude in the reference",
    "snr": "Signal-to-noise ratio of the flux in the reference by the noise of the input",
    "sources": "Number of sources in the image",
    "invented": "Sources of the image that the reference does not show",
    "references": "Number of sources in the reference",
    "missed": "Sources of the reference that the image does not show",
    "rate": "Density of the sources",
    "rate_low": "Lower limit of its 95 % interval",
    "rate_high": "Upper limit of its 95 % interval",
    "ratio": "Median ratio of the power to that of the reference",
    "correlation": "Median correlation with the reference",
    "psnr": "Peak signal-to-noise ratio in decibel",
    "ssim": "Structural similarity",
    "mae": "Mean absolute error",
    "mse": "Mean square error",
    "spectral_mse": "Mean square difference of the logarithms of the power spectra",
    "n_pixels": "Number of pixels compared",
}
_COLUMNS |= {
    f"{name}_{kind}": f"{text} of the difference of {name.replace('_', ' ')} from the reference"
    for name in measures.STRUCTURE
    for kind, text in (("bias", "Median"), ("scatter", "Robust scatter"))
}
_UNITS = {
    "magnitude": u.mag,
    "half_light_radius_bias": u.pix,
    "half_light_radius_scatter": u.pix,
    "pixel_rate": u.pix / u.s,
    "radius": u.pix,
    "rate": u.Unit("1e-6 / pix"),
    "rate_high": u.Unit("1e-6 / pix"),
    "rate_low": u.Unit("1e-6 / pix"),
    "seconds": u.s,
    "x": u.pix,
    "y": u.pix,
}


def evaluate(
    pairs: list[Pair],
    folder: str | Path,
    *,
    models: tuple[str, ...] = ("raunet", "ddpm"),
    classics: tuple[str, ...] = ("gaussian", "starlet", "nlm", "tv", "wavelet"),
    n_samples: int = 16,
    n_injections: int = 30,
    seed: int = 0,
    zero_point: float = 0.0,
    rejected: tuple[str, ...] = (),
    device: str | None = None,
    progress_bar: bool = False,
) -> Path:
    """
    Judge models on pairs and write tables, figures and a page.

    Every enhanced image is kept in the folder, so that an interrupted run goes on from there, and another
    one after a change of the models enhances only what has changed.

    Parameters
    ----------
    pairs : list of `Pair`
        From `read_pairs` or `degrade_images`.

    folder : str or path-like
        Where everything is written; it is made if it does not exist. Its tables and figures are replaced.

    models : sequence of str or `~astro_ddpm.zoo.Model`, optional
        The models, as `~astro_ddpm.enhance` takes them.

    classics : sequence of str, optional
        The classical methods to compare with: names of ``astro_ddpm.evaluation.classics.CLASSICS``.

    n_samples : int, optional
        The samples of each image.

    n_injections : int, optional
        The number of point sources of each magnitude for `detection_curve`, in white noise of the
        level of the images; 0 to do without.

    seed : int, optional
        Selects samples and noise; that of a pair is its number added to it.

    zero_point : float, optional
        The magnitude of unit flux.

    rejected : sequence of str, optional
        The names of pairs that were left out, to be mentioned.

    device : str, optional
        Where to compute.

    progress_bar : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    page : `~pathlib.Path`
        The file ``index.html``, which holds all figures and needs no other file. The tables are beside it in
        the ECSV format, the figures as PNG.

    Raises
    ------
    ValueError
        If there is no pair, a name in ``models`` or ``classics`` is unknown or occurs twice, or
        ``n_samples`` is less than 2 with a model that draws samples.

    ImportError
        If a classical method needs a package that is not installed.

    OSError
        If the folder cannot be written.
    """
    if not pairs:
        msg = "pairs must hold at least one pair"
        raise ValueError(msg)
    folder = Path(folder)
    loaded = load_methods(models, classics, n_samples)
    options = {"seed": seed, "device": device, "progress_bar": progress_bar}
    results, noise, cost = run_methods(
        pairs, folder / "enhanced", loaded, classics, n_samples=n_samples, **options
    )
    tables = measure(pairs, results, noise, zero_point=zero_point) | {"cost": cost}
    if n_injections:
        for model in loaded:
            tables |= find_sources(
                pairs, results, model, folder, n_injections=n_injections, zero_point=zero_point, **options
            )
    names = [model.name for model in loaded]
    for name, table in tables.items():
        kind = next(key for key in _CAPTIONS if name.startswith(key))
        suffix = name.removeprefix(kind).removeprefix("_")
        table.meta["caption"] = f"{_CAPTIONS[kind]} {suffix and f'({suffix})'}".strip()
    sections = _sections(pairs, results, tables, names)
    _describe(tables, loaded, {"n_samples": n_samples, "seed": seed, "zero_point": zero_point})
    _write(folder, tables, sections, _summary(pairs, names, n_samples, rejected), _footer(loaded))
    return folder / "index.html"


def _write(folder, tables, sections, summary, footer):
    """Write tables, figures and the page."""
    for name, table in tables.items():
        with atomic_path(folder / f"{name}.ecsv", overwrite=True) as partial:
            table.write(partial, format="ascii.ecsv", overwrite=True)
    for picture in (picture for section in sections for picture in section.pictures):
        with atomic_path(folder / f"{picture.name}.png", overwrite=True) as partial:
            partial.write_bytes(picture.png)
    with atomic_path(folder / "index.html", overwrite=True) as partial:
        html = render_page("Evaluation of enhanced images", summary, sections, footer)
        partial.write_text(html, encoding="utf-8")


def load_methods(models, classics, n_samples):
    """
    Check what is to be compared, before the long work.

    Parameters
    ----------
    models, classics, n_samples
        As for `evaluate`.

    Returns
    -------
    loaded : list of `~astro_ddpm.zoo.Model`
        The models.

    Raises
    ------
    ValueError
        If a name is unknown or occurs twice, or there are too few samples.

    ImportError
        If a classical method needs a package that is not installed.
    """
    unknown = sorted(set(classics) - set(CLASSICS))
    if unknown:
        msg = f"classics must be names among {', '.join(CLASSICS)}, not {', '.join(unknown)}"
        raise ValueError(msg)
    for name in classics:
        package = REQUIREMENTS.get(name, "numpy")
        if find_spec(package) is None:
            extra = "bm3d" if name == "bm3d" else "astro_ddpm[evaluate]"
            msg = f"{name!r} in classics needs {package}: pip install {extra!r}, or leave it out"
            raise ImportError(msg)
    loaded = [model if isinstance(model, zoo.Model) else zoo.load(model) for model in models]
    if n_samples < 2 and any(model.kind != "raunet" for model in loaded):
        msg = f"n_samples must be at least 2 to judge the spread of samples, not {n_samples}"
        raise ValueError(msg)
    names = ["input", *classics, *(model.name for model in loaded)]  # by which the tables tell them apart
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        msg = f"models and classics must differ in name; rename the file of {', '.join(repeated)}"
        raise ValueError(msg)
    return loaded


def run_methods(pairs, folder, models, classics, *, n_samples, seed, device=None, progress_bar=False):
    """
    Apply models and classical methods to the images of pairs, and the models to pure noise.

    Parameters
    ----------
    pairs : list of `Pair`
        The images.

    folder : `~pathlib.Path`
        Where enhanced images are kept, in one folder per model.

    models : list of `~astro_ddpm.zoo.Model`
        The models.

    classics : sequence of str
        Names of classical methods.

    n_samples, seed, device, progress_bar
        As for `evaluate`.

    Returns
    -------
    results : dict
        The images of every method, the input among them.

    noise : dict
        The enhanced pure noise of every model.

    cost : `~astropy.table.QTable`
        One row per method: the median of ``seconds`` per image, and ``pixel_rate``.
    """
    results = {"input": [pair.image for pair in pairs]}
    noise, seconds = {}, {}
    blank = noise_image(_NOISE_SHAPE, seed=seed)
    with progress(len(models) * (len(pairs) + 1), show=progress_bar) as advance:
        for model in models:
            options = {"model": model, "n_samples": n_samples, "device": device}
            done = []
            for number, pair in enumerate(pairs):
                path = folder / model.name / f"{pair.name}.fits"
                options |= {"seed": seed + number, "depth": pair.depth}
                done.append(_enhance(pair.image, path, options))
                advance()
            depth = float(np.median([pair.depth for pair in pairs]))
            path = folder / "pure noise" / f"{model.name}.fits"
            noise[model.name] = _enhance(blank, path, options | {"seed": seed, "depth": depth})
            advance()
            results[model.name] = done
            seconds[model.name] = [image.meta["EVALTIME"] for image in done]
    for name in classics:
        results[name], seconds[name] = _denoise(pairs, CLASSICS[name])
    return results, noise, _cost(pairs, seconds)


def _enhance(image, path, options):
    """Return the enhanced image from its file, if that is what would be computed, or compute and keep it."""
    kept = _kept(path, image, options)
    if kept is not None:
        return kept
    start = time.perf_counter()
    enhanced = enhance(image, **options)
    enhanced.meta["EVALTIME"] = (time.perf_counter() - start, "[s] time it took")
    enhanced.meta["EVALCRC"] = (_checksum(image), "CRC-32 of the input")
    path.parent.mkdir(parents=True, exist_ok=True)
    enhanced.write(path, format="fits", overwrite=True)
    return enhanced


def _kept(path, image, options):
    """Return the image in a file, or None if it is not complete or not what would be computed."""
    draws = options["model"].kind != "raunet"
    wanted = {
        "DDPMVERS": astro_ddpm.__version__,
        "DDPMSHA": options["model"].sha256,
        "DDPMNSAM": options["n_samples"] if draws else 0,
        "DDPMSEED": options["seed"],
        "DDPMDEP": options["depth"],
        "EVALCRC": _checksum(image),
    }
    try:
        usable = path.is_file() and is_complete(path) and _same(fits.getheader(path), wanted)
    except OSError as error:
        log.info("%s is done again: %s", path, error)
        return None
    return EnhancedCCDData.read(path, format="fits") if usable else None


def _checksum(image):
    mask = np.zeros(image.shape, bool) if image.mask is None else image.mask
    planes = (image.data, standard_deviation(image), mask)
    return crc32(b"".join(np.ascontiguousarray(plane).tobytes() for plane in planes))


def _denoise(pairs, method):
    """Return the images of a classical method and the seconds that each took."""
    images, seconds = [], []
    for pair in pairs:
        sigma = standard_deviation(pair.image)
        mask = pair.image.mask
        data = np.where(mask, np.median(pair.image.data[~mask]), pair.image.data).astype(float)
        start = time.perf_counter()
        clean = method(data, float(np.median(sigma[~mask])))
        seconds.append(time.perf_counter() - start)
        images.append(CCDData(clean, unit=pair.image.unit, wcs=pair.image.wcs, mask=mask))
    return images, seconds


def _cost(pairs, seconds):
    pixels = np.array([pair.image.data.size for pair in pairs])
    rows = [
        {
            "method": method,
            "seconds": float(np.median(times)),
            "pixel_rate": float(np.median(pixels / np.array(times))),
        }
        for method, times in seconds.items()
    ]
    return QTable(rows)


def measure(pairs, results, noise, *, zero_point=0.0):
    """
    Make all tables that need nothing but images.

    Parameters
    ----------
    pairs : list of `Pair`
        The images and their references.

    results, noise : dict
        From `run_methods`.

    zero_point : float, optional
        The magnitude of unit flux.

    Returns
    -------
    tables : dict of `~astropy.table.QTable`
        The tables by name.
    """
    drawn = {name: images for name, images in results.items() if _have_samples(images)}
    sources = measures.source_rows(pairs, _with_one_sample(results, drawn), zero_point=zero_point)
    positions = [_positions(sources, pair.name) for pair in pairs]
    fluxes = measures.flux_rows(pairs, results, positions, zero_point=zero_point)
    depths = {name: image.meta["DDPMDEP"] for name, image in noise.items()}
    tables = {
        "pixels": measures.pixel_rows(pairs, results),
        "calibration": measures.calibration_rows(pairs, results),
        "coverage": measures.coverage_rows(pairs, results),
        "images": measures.image_rows(pairs, _with_one_sample(results, drawn)),
        "spectra": measures.spectrum_rows(pairs, results),
        "sources": sources,
        "fluxes": fluxes,
        "invented": measures.invented_rows(pairs, results),
        "noise": measures.noise_rows(noise, depths, np.prod(_NOISE_SHAPE)),
    }
    if len(sources):
        tables["structure"] = measures.structure_summary(sources)
    if len(fluxes):
        tables["flux_summary"] = measures.flux_summary(fluxes)
        for name, images in drawn.items():
            features = measures.flux_features(pairs, images, fluxes)
            tables[f"honesty_{name}"] = calibration_tests(*features)
    return tables


def _have_samples(images):
    return all(getattr(image, "samples", None) is not None for image in images)


def _with_one_sample(results, drawn):
    """Add the first sample of each model as a method of its own."""
    return results | {
        f"{name} sample": [CCDData(image.samples[0], unit=image.unit) for image in images]
        for name, images in drawn.items()
    }


def _positions(sources, name):
    if not len(sources):
        return np.empty((0, 2))
    pick = (sources["pair"] == name) & (sources["method"] == "input")
    return np.transpose([sources["x"][pick].value, sources["y"][pick].value])


def find_sources(
    pairs, results, model, folder, *, n_injections, seed, zero_point, device=None, progress_bar=False
):
    """
    Inject point sources into noise like that of the images and look for them.

    Parameters
    ----------
    pairs : list of `Pair`
        The images.

    results : dict
        From `run_methods`.

    model : `~astro_ddpm.zoo.Model`
        The model.

    folder : `~pathlib.Path`
        Where the tables of an earlier run may lie.

    n_injections, seed, zero_point, device, progress_bar
        As for `evaluate`.

    Returns
    -------
    tables : dict of `~astropy.table.QTable`
        ``detection_limits_...``, ``detection_curve_...``, ``reliability_...`` with the name of the model.
    """
    sky = float(np.median([measures.Pixels.of(pair).sky for pair in pairs]))
    widths = [image.meta.get("DDPMPSF", np.nan) for image in results[model.name]]
    fwhm = float(np.nanmedian(widths)) if np.isfinite(widths).any() else 4.0
    depth = float(np.median([pair.depth for pair in pairs]))
    wanted = {"version": astro_ddpm.__version__, "model_sha256": model.sha256, "seed": seed}
    wanted |= {"n_injections": n_injections}
    wanted |= {"sky_noise": sky, "psf_fwhm": fwhm, "depth": depth, "zero_point": zero_point}
    names = [f"{kind}_{model.name}" for kind in ("detection_curve", "detection_limits", "reliability")]
    kept = {name: _read_table(folder / f"{name}.ecsv") for name in names}
    kept = {name: table for name, table in kept.items() if table is not None}
    if kept and all(_same(table.meta, wanted) for table in kept.values()):
        return kept
    noise = noise_image(_NOISE_SHAPE, sky * pairs[0].image.unit, seed=seed)

    def run(image, seed):
        return enhance(image, model=model, n_samples=8, seed=seed, depth=depth, device=device)

    found = detection_curve(
        noise,
        model=run,
        psf=fwhm,
        zero_point=zero_point,
        n_injections=n_injections,
        seed=seed,
        progress_bar=progress_bar,
    )
    tables = dict(zip(names, (found.curve, found.limits, found.reliability), strict=True))
    tables = {name: table for name, table in tables.items() if table is not None}
    for table in tables.values():
        table.meta.update(wanted)
    return tables


def _read_table(path):
    return QTable.read(path, format="ascii.ecsv") if path.is_file() else None


def _same(meta, wanted):
    return all(meta.get(key) == value for key, value in wanted.items())


def _describe(tables, models, options):
    """Add units, descriptions, versions and options to tables."""
    shas = {model.name: model.sha256 for model in models}
    for table in tables.values():
        table.meta |= {"version": astro_ddpm.__version__, "models": shas, "options": options}
        for name in table.colnames:
            if name in _UNITS and table[name].unit is None:
                table[name] = table[name] * _UNITS[name]
            table[name].info.description = table[name].info.description or _COLUMNS.get(name)


def _summary(pairs, names, n_samples, rejected):
    depth = np.median([pair.depth for pair in pairs])
    left_out = f" {len(rejected)} more differ by more than noise and were left out." if rejected else ""
    fitted = any(pair.fitted for pair in pairs)
    shared = (
        " The kernels that bring the references to the PSF of the images were fitted to the images, whose "
        "noise they follow in part. Where a bright source fills much of an image, even the exact scene would "
        "differ from the reference by more than the reference's noise, and fluxes of the input by less than "
        "theirs: compare methods with each other there."
    )
    return (
        f"{len(pairs)} images, whose references have a noise of {depth:.2f} times theirs (median), enhanced "
        f"by {', '.join(names)} with {n_samples} samples where a model draws them.{left_out} Unless said "
        f"otherwise, numbers are in units of the noise of the input.{shared if fitted else ''}"
    )


def _footer(models):
    hashes = "; ".join(f"{model.name} sha256 {model.sha256}" for model in models)
    return f"astro_ddpm {astro_ddpm.__version__}; {hashes}"


def _sections(pairs, results, tables, names):
    """Answer the three questions, and then show how it compares and what went worst."""
    return [
        _flux_section(tables, names),
        _error_section(tables, names),
        _invention_section(tables, names),
        _comparison_section(tables),
        _picture_section(pairs, results, tables, names),
    ]


def _comparison_section(tables):
    shown = [_mean_by_method(tables["images"]), _excess_by_bin(tables["pixels"])]
    shown += [_scatter_of(tables["structure"])] if "structure" in tables else []
    pictures = [
        Picture("excess", figures.plot_excess(tables["pixels"]), "Noise left over, by brightness."),
        Picture("spectra", figures.plot_spectra(tables["spectra"]), _SPECTRA),
    ]
    return Section("How does it compare?", [], [*shown, tables["cost"]], pictures)


def _picture_section(pairs, results, tables, names):
    shown = [*names, *(name for name in ("bm3d", "nlm") if name in results)][:3]
    first, worst = range(min(4, len(pairs))), _worst(tables["images"], pairs, names)
    pictures = [
        Picture(name, figures.plot_panels(pairs, results, numbers, shown), f"{caption} {_PANELS}")
        for name, numbers, caption in (
            ("first", first, "The first pairs of the list."),
            ("worst", worst, "The pairs with the largest errors."),
        )
    ]
    return Section("What does it look like, and where does it fail?", [], [], pictures)


def _worst(images, pairs, names, number=4):
    """Return the numbers of the pairs with the largest error by any of the models."""
    errors = np.max([np.asarray(images["rmse"][images["method"] == name], float) for name in names], axis=0)
    return np.argsort(-errors)[: min(number, len(pairs))]


def _mean_by_method(images):
    methods = list(dict.fromkeys(images["method"]))
    table = QTable({"method": methods})
    for name in ("psnr", "ssim", "mae", "mse", "spectral_mse"):
        table[name] = [np.nanmedian(np.asarray(images[name][images["method"] == m], float)) for m in methods]
    table.meta["caption"] = f"{_CAPTIONS['images']} Medians over the pairs."
    return table


def _excess_by_bin(pixels):
    """Return the noise left over with one row per method and one column per bin."""
    methods = list(dict.fromkeys(pixels["method"]))
    table = QTable({"method": methods})
    for name in measures.BINS:
        table[name] = np.asarray(pixels["excess"][pixels["bin"] == name], float)
    table.meta["caption"] = (
        "Noise left over, in units of that of the input, in bins of the brightness of the reference in units "
        "of the noise of the sky: below 1, 1 to 5, 5 to 30, above 30."
    )
    return table


def _scatter_of(structure):
    """Return the scatter of sizes and shapes alone."""
    table = QTable({name: structure[name] for name in ("method", "n")})
    for name in measures.STRUCTURE:
        table[name] = structure[f"{name}_scatter"]
    table.meta["caption"] = "Scatter of sizes and shapes of sources round those of the references."
    return table


def _flux_section(tables, names):
    title = "Are the fluxes right?"
    if "flux_summary" not in tables:
        return Section(title, [(None, "The references show no source that could tell.")], [], [])
    summary, verdicts = tables["flux_summary"], []
    for name in names:
        for row in summary[summary["method"] == name]:
            bias, error = float(row["bias"]), float(row["bias_err"])
            text = (
                f"{name}, {row['n']} sources within {row['radius']:g} pixels: biased by {bias:+.2f} ± "
                f"{error:.2f} of the error of the input; their scatter is {row['scatter_ratio']:.2f} times "
                "that of the input."
            )
            verdicts.append((abs(bias) < max(0.1, 2 * error), text))
    methods = ["input", *names]
    figure = figures.plot_pulls(tables["fluxes"], methods)
    return Section(title, verdicts, [summary], [Picture("pulls", figure, _PULLS)])


def _error_section(tables, names):
    calibration, verdicts = tables["calibration"], []
    for name in names:
        rows = calibration[(calibration["method"] == name) & (calibration["n"] > 0)]
        for level, tolerance in ((68, 0.02), (95, 0.01)):
            covered, p = np.asarray(rows[f"coverage_{level}"], float), level / 100
            chance = 2 * np.sqrt(p * (1 - p) / np.asarray(rows["n"], float))
            good = bool(np.all(np.abs(covered - p) <= np.maximum(tolerance, chance)))
            text = (
                f"{name}: the {level} % intervals contain {100 * covered.min():.1f} to "
                f"{100 * covered.max():.1f} % of the reference pixels, depending on brightness "
                f"(yes if within {100 * tolerance:g} points, or twice the error of so few pixels)."
            )
            verdicts.append((good, text))
        if "flux_summary" in tables:
            for row in tables["flux_summary"][tables["flux_summary"]["method"] == name]:
                pull, error = float(row["pull"]), float(row["pull_err"])
                text = (
                    f"{name}: pulls of fluxes within {row['radius']:g} pixels have a width of {pull:.2f} ± "
                    f"{error:.2f} (yes if 0.85 to 1.15)."
                )
                verdicts.append((0.85 <= pull <= 1.15, text))
    shown = [calibration] + [tables[f"honesty_{name}"] for name in names if f"honesty_{name}" in tables]
    curves, ranks = tables["coverage"], calibration
    pictures = [
        Picture("coverage", figures.plot_coverage(_of(curves, names)), "Coverage of intervals of pixels."),
        Picture(
            "ranks", figures.plot_ranks(_of(ranks, names)), "Rank histograms of pixels, relative to flat."
        ),
    ]
    return Section("Are the errors right?", verdicts, shown, pictures)


def _invention_section(tables, names):
    verdicts, pictures = [], []
    for name in names:
        row = tables["invented"][tables["invented"]["method"] == name][0]
        text = (
            f"{name}: of {row['sources']} sources in its images {row['invented']} are not in the references; "
            f"of {row['references']} in the references it misses {row['missed']}."
        )
        verdicts.append((bool(row["invented"] == 0), text))
        row = tables["noise"][tables["noise"]["method"] == name][0]
        text = (
            f"{name}: {row['sources']} sources in {np.prod(_NOISE_SHAPE)} pixels of pure noise, a rate of "
            f"{row['rate_low']:.0f} to {row['rate_high']:.0f} per million pixels (95 %)."
        )
        verdicts.append((bool(row["sources"] == 0), text))
    limits = {
        name: tables[f"detection_limits_{name}"] for name in names if f"detection_limits_{name}" in tables
    }
    for name, table in limits.items():
        for row in table[1:]:
            gain, error = (float(getattr(row[key], "value", row[key])) for key in ("gain", "gain_err"))
            text = (
                f"{name}, {row['method']}: point sources in noise are found {gain:+.2f} ± {error:.2f} mag "
                "fainter than by a matched filter on the input, at the same completeness and purity."
            )
            verdicts.append((None, text))
    if limits:
        curves = {name: tables[f"detection_curve_{name}"] for name in limits}
        figure = figures.plot_completeness(curves)
        pictures.append(Picture("completeness", figure, _CAPTIONS["detection_curve"]))
    diagrams = {name: tables[f"reliability_{name}"] for name in names if f"reliability_{name}" in tables}
    if diagrams:
        figure = figures.plot_reliability(diagrams)
        pictures.append(Picture("reliability", figure, _CAPTIONS["reliability"]))
    shown = [tables["invented"], tables["noise"], *limits.values()]
    return Section("Does it invent or lose sources?", verdicts, shown, pictures)


def _of(table, names):
    return table[np.isin(table["method"], names)]
