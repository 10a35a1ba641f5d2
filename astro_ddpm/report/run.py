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

import numpy as np
from astropy.nddata import CCDData
from astropy.table import QTable

import astro_ddpm
from astro_ddpm import zoo
from astro_ddpm.core import enhance
from astro_ddpm.evaluation.detection import detection_curve, noise_image
from astro_ddpm.evaluation.honesty import calibration_tests
from astro_ddpm.nddata import EnhancedCCDData
from astro_ddpm.pipeline.files import find_difference
from astro_ddpm.utils import atomic_path, progress

from . import tables as measures
from .classics import CLASSICS, REQUIREMENTS
from .columns import add_captions, describe
from .page import render_page
from .sections import make_sections

if TYPE_CHECKING:
    from .pairs import Pair

__all__ = ["evaluate"]

log = logging.getLogger(__name__)

NOISE_SHAPE = (256, 256)


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
    progress_bar: bool | None = None,
) -> Path:
    """
    Test models on pairs and write tables, figures and a page.

    The folder keeps every enhanced image. An interrupted run goes on from there, and a run after a change of
    the models enhances only what has changed.

    Parameters
    ----------
    pairs : list of `Pair`
        From `read_pairs` or `degrade_images`.

    folder : str or path-like
        Where everything is written; it is made if it does not exist. Its tables and figures are replaced.

    models : sequence of str or `~astro_ddpm.zoo.Model`, optional
        The models, as `~astro_ddpm.enhance` takes them.

    classics : sequence of str, optional
        The classical methods to compare with: names of ``astro_ddpm.report.classics.CLASSICS``.

    n_samples : int, optional
        The samples of each image.

    n_injections : int, optional
        The number of point sources of each magnitude for `detection_curve`, in white noise of the level of
        the images; 0 to do without.

    seed : int, optional
        Selects samples and noise; that of a pair is its number added to it.

    zero_point : float, optional
        The magnitude of unit flux.

    rejected : sequence of str, optional
        The names of pairs that were left out, to be mentioned.

    device : str, optional
        Where to compute.

    progress_bar : bool, optional
        Whether to show a progress bar; by default in terminals and notebooks, if it takes more than three
        seconds.

    Returns
    -------
    page : `~pathlib.Path`
        The file ``index.html``, which holds all figures and needs no other file. The tables are beside it in
        the ECSV format, the figures as PNG.

    Raises
    ------
    ValueError
        If there is no pair, a name in ``models`` or ``classics`` is unknown or occurs twice, or ``n_samples``
        is less than 2 with a model that draws samples.

    ImportError
        If a package of the extra ``evaluate``, or one that a classical method needs, is not installed.

    OSError
        If the folder cannot be written.
    """
    if not pairs:
        msg = "pairs must hold at least one pair"
        raise ValueError(msg)
    folder = Path(folder)
    loaded = load_methods(models, classics, n_samples)
    names = [model.name for model in loaded]
    options: dict = {"seed": seed, "device": device, "progress_bar": progress_bar}
    results, noise, cost = _run_methods(pairs, folder / "enhanced", loaded, classics, n_samples, **options)
    tables = _measure(pairs, results, noise, zero_point) | {"cost": cost}
    if n_injections:
        options |= {"n_injections": n_injections, "zero_point": zero_point}
        for model in loaded:
            tables |= _find_sources(pairs, results, model, folder, **options)
    add_captions(tables)
    sections = make_sections(pairs, results, tables, names, area=np.prod(NOISE_SHAPE))
    describe(tables, loaded, {"n_samples": n_samples, "seed": seed, "zero_point": zero_point})
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
    """Check the options of the same names of `evaluate`, before the long work, and return the models."""
    unknown = sorted(set(classics) - set(CLASSICS))
    if unknown:
        msg = f"classics must be names among {', '.join(CLASSICS)}, not {', '.join(unknown)}"
        raise ValueError(msg)
    for package in ("jinja2", "scoringrules", "skimage"):
        if find_spec(package) is None:
            msg = f"evaluate needs {package}: pip install 'astro_ddpm[evaluate]'"
            raise ImportError(msg)
    for name in classics:
        package = REQUIREMENTS.get(name, "numpy")
        if find_spec(package) is None:
            extra = "bm3d" if name == "bm3d" else "astro_ddpm[evaluate]"
            msg = f"{name!r} in classics needs {package}: pip install {extra!r}, or leave it out"
            raise ImportError(msg)
    loaded = [model if isinstance(model, zoo.Model) else zoo.load(model) for model in models]
    if n_samples < 2 and any(model.draws_samples for model in loaded):
        msg = f"n_samples must be at least 2 to judge the spread of samples, not {n_samples}"
        raise ValueError(msg)
    names = ["input", *classics, *(model.name for model in loaded)]  # by which the tables tell them apart
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        msg = f"models and classics must differ in name; rename the file of {', '.join(repeated)}"
        raise ValueError(msg)
    return loaded


def _run_methods(pairs, folder, models, classics, n_samples, *, seed, device, progress_bar):
    """Return the images of every method, the enhanced pure noise of every model, and the cost."""
    results = {"input": [pair.image for pair in pairs]}
    noise, seconds = {}, {}
    blank = noise_image(NOISE_SHAPE, seed=seed)
    with progress(len(models) * (len(pairs) + 1), show=progress_bar) as advance:
        for model in models:
            options = {"model": model, "n_samples": n_samples, "device": device}
            done = []
            for number, pair in enumerate(pairs):
                path = folder / model.name / f"{pair.name}.fits"
                options |= {"seed": seed + number, "noise_ratio": pair.noise_ratio}
                done.append(_enhance(pair.image, path, options))
                advance()
            ratio = float(np.median([pair.noise_ratio for pair in pairs]))
            path = folder / "pure noise" / f"{model.name}.fits"
            noise[model.name] = _enhance(blank, path, options | {"seed": seed, "noise_ratio": ratio})
            advance()
            results[model.name] = done
            seconds[model.name] = [image.meta["EVALTIME"] for image in done]
    for name in classics:
        results[name], seconds[name] = _denoise(pairs, CLASSICS[name])
    return results, noise, _cost(pairs, seconds)


def _enhance(image, path, options):
    """Return the enhanced image, from its file if that holds the same result."""
    kept = _kept(path, image, options)
    if kept is not None:
        return kept
    start = time.perf_counter()
    enhanced = enhance(image, progress_bar=False, **options)
    enhanced.meta["EVALTIME"] = (time.perf_counter() - start, "[s] time it took")
    enhanced.meta["EVALCRC"] = (_checksum(image), "CRC-32 of the input")
    path.parent.mkdir(parents=True, exist_ok=True)
    enhanced.write(path, format="fits", overwrite=True)
    return enhanced


def _kept(path, image, options):
    """Return the image in a file, or None if it is incomplete or another one."""
    draws = options["model"].draws_samples
    wanted = {
        "DDPMVERS": astro_ddpm.__version__,
        "DDPMSHA": options["model"].sha256,
        "DDPMNSAM": options["n_samples"] if draws else 0,
        "DDPMSEED": options["seed"],
        "DDPMDEP": options["noise_ratio"],
        "EVALCRC": _checksum(image),
    }
    difference = find_difference(path, wanted) if path.is_file() else "is not there"
    if difference:
        log.info("%s is made: it %s", path, difference)
        return None
    return EnhancedCCDData.read(path, format="fits")


def _same(meta, wanted):
    return all(meta.get(key) == value for key, value in wanted.items())


def _checksum(image):
    mask = np.zeros(image.shape, bool) if image.mask is None else image.mask
    planes = (image.data, measures.sigma_of(image), mask)
    return crc32(b"".join(np.ascontiguousarray(plane).tobytes() for plane in planes))


def _denoise(pairs, method):
    """Return the images of a classical method and the seconds that each took."""
    images, seconds = [], []
    for pair in pairs:
        sigma = measures.sigma_of(pair.image)
        mask = pair.image.mask
        data = np.where(mask, np.median(pair.image.data[~mask]), pair.image.data).astype(float)
        start = time.perf_counter()
        clean = method(data, float(np.median(sigma[~mask])))
        seconds.append(time.perf_counter() - start)
        images.append(CCDData(clean, unit=pair.image.unit, wcs=pair.image.wcs, mask=mask))
    return images, seconds


def _cost(pairs, seconds):
    pixels = np.array([pair.image.data.size for pair in pairs])
    rates = [np.median(pixels / np.array(times)) for times in seconds.values()]
    medians = [np.median(times) for times in seconds.values()]
    return QTable({"method": list(seconds), "seconds": medians, "pixel_rate": rates})


def _measure(pairs, results, noise, zero_point):
    """Return all tables that need nothing but images, by name."""
    drawn = {name: images for name, images in results.items() if measures.have_samples(images)}
    sources = measures.source_rows(pairs, _with_one_sample(results, drawn), zero_point=zero_point)
    positions = [_positions(sources, pair.name) for pair in pairs]
    fluxes = measures.flux_rows(pairs, results, positions, zero_point=zero_point)
    ratios = {name: image.meta["DDPMDEP"] for name, image in noise.items()}
    tables = {
        "pixels": measures.pixel_rows(pairs, results),
        "calibration": measures.calibration_rows(pairs, results),
        "coverage": measures.coverage_rows(pairs, results),
        "images": measures.image_rows(pairs, _with_one_sample(results, drawn)),
        "spectra": measures.spectrum_rows(pairs, results),
        "sources": sources,
        "fluxes": fluxes,
        "invented": measures.invented_rows(pairs, results),
        "noise": measures.noise_rows(noise, ratios, np.prod(NOISE_SHAPE)),
    }
    if len(sources):
        tables["structure"] = measures.structure_summary(sources)
    if len(fluxes):
        tables["flux_summary"] = measures.flux_summary(fluxes)
        for name, images in drawn.items():
            features = measures.flux_features(pairs, images, fluxes)
            tables[f"honesty_{name}"] = calibration_tests(*features)
    return tables


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


def _find_sources(
    pairs, results, model, folder, *, n_injections, seed, zero_point, device=None, progress_bar=False
):
    """Inject point sources into noise like that of the images; return the tables, or those in the folder."""
    sky = float(np.median([measures.sky_noise(pair) for pair in pairs]))
    widths = [image.meta.get("DDPMPSF", np.nan) for image in results[model.name]]
    fwhm = float(np.nanmedian(widths)) if np.isfinite(widths).any() else 4.0
    noise_ratio = float(np.median([pair.noise_ratio for pair in pairs]))
    wanted = {"version": astro_ddpm.__version__, "model_sha256": model.sha256, "seed": seed}
    wanted |= {"n_injections": n_injections}
    wanted |= {"sky_noise": sky, "psf_fwhm": fwhm, "noise_ratio": noise_ratio, "zero_point": zero_point}
    names = [f"{kind}_{model.name}" for kind in ("detection_curve", "detection_limits", "reliability")]
    kept = {name: _read_table(folder / f"{name}.ecsv") for name in names}
    kept = {name: table for name, table in kept.items() if table is not None}
    if kept and all(_same(table.meta, wanted) for table in kept.values()):
        return kept
    noise = noise_image(NOISE_SHAPE, sky * pairs[0].image.unit, seed=seed)

    def run(image, seed):
        options = {"noise_ratio": noise_ratio, "device": device, "progress_bar": False}
        return enhance(image, model=model, n_samples=8, seed=seed, **options)

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


def _summary(pairs, names, n_samples, rejected):
    noise_ratio = np.median([pair.noise_ratio for pair in pairs])
    left_out = f" {len(rejected)} more differ by more than noise and were left out." if rejected else ""
    fitted = any(pair.fitted for pair in pairs)
    shared = (
        " The kernels that bring the references to the PSF of the images were fitted to the images, whose "
        "noise they follow in part. Where a bright source fills much of an image, even the exact scene would "
        "differ from the reference by more than the reference's noise, and fluxes of the input by less than "
        "theirs: compare methods with each other there."
    )
    return (
        f"{len(pairs)} images, whose references have a noise of {noise_ratio:.2f} times theirs (median), "
        f"enhanced by {', '.join(names)} with {n_samples} samples where a model draws them.{left_out} Unless "
        f"said otherwise, numbers are in units of the noise of the input.{shared if fitted else ''}"
    )


def _footer(models):
    hashes = "; ".join(f"{model.name} sha256 {model.sha256}" for model in models)
    return f"astro_ddpm {astro_ddpm.__version__}; {hashes}"
