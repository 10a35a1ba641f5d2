# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From pairs to tables, figures and one page that says whether a model can be trusted.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
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
from astro_ddpm.utils import atomic_path, progress, require

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

    The folder keeps every enhanced image: a run that was interrupted goes on from there.

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

    n_samples, n_injections : int, optional
        The samples of each image, and the point sources of each magnitude for `detection_curve`, in white
        noise of the level of the images; 0 to do without.

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
    require(pairs, "pairs must hold at least one pair")
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
    hashes = "; ".join(f"{model.name} sha256 {model.sha256}" for model in loaded)
    footer = f"astro_ddpm {astro_ddpm.__version__}; {hashes}"
    _write(folder, tables, sections, _summary(pairs, names, n_samples, rejected), footer)
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
    require(not unknown, f"classics must be names among {', '.join(CLASSICS)}, not {', '.join(unknown)}")
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
    names = Counter(["input", *classics, *(model.name for model in loaded)])  # they tell rows of tables apart
    repeated = sorted(name for name, number in names.items() if number > 1)
    if repeated:
        msg = f"models and classics must differ in name; rename the file of {', '.join(repeated)}"
        raise ValueError(msg)
    return loaded


def _run_methods(pairs, folder, models, classics, n_samples, *, seed, device, progress_bar):
    """Return the images of every method, the enhanced pure noise of every model, and the cost."""
    results, noise, seconds = {"input": [pair.image for pair in pairs]}, {}, {}
    blank, ratio = noise_image(NOISE_SHAPE, seed=seed), _noise_ratio(pairs)
    with progress(len(models) * (len(pairs) + 1), show=progress_bar) as advance:
        for model in models:
            options, done = {"model": model, "n_samples": n_samples, "device": device}, []
            for number, pair in enumerate(pairs):
                path = folder / model.name / f"{pair.name}.fits"
                own = {"seed": seed + number, "noise_ratio": pair.noise_ratio}
                done.append(_enhance(pair.image, path, options | own))
                advance()
            path = folder / "pure noise" / f"{model.name}.fits"
            noise[model.name] = _enhance(blank, path, options | {"seed": seed, "noise_ratio": ratio})
            advance()
            results[model.name], seconds[model.name] = done, [image.meta["EVALTIME"] for image in done]
    for name in classics:
        results[name], seconds[name] = _denoise(pairs, CLASSICS[name])
    pixels = np.array([pair.image.data.size for pair in pairs])
    cost = QTable({"method": list(seconds), "seconds": [np.median(times) for times in seconds.values()]})
    cost["pixel_rate"] = [np.median(pixels / np.array(times)) for times in seconds.values()]
    return results, noise, cost


def _noise_ratio(pairs):
    return float(np.median([pair.noise_ratio for pair in pairs]))


def _enhance(image, path, options):
    """Return the enhanced image, from its file if that holds the same result."""
    mask = np.zeros(image.shape, bool) if image.mask is None else image.mask
    planes = (image.data, measures.sigma_of(image), mask)
    checksum = crc32(b"".join(np.ascontiguousarray(plane).tobytes() for plane in planes))
    wanted = {
        "DDPMVERS": astro_ddpm.__version__,
        "DDPMSHA": options["model"].sha256,
        "DDPMNSAM": options["n_samples"] if options["model"].draws_samples else 0,
        "DDPMSEED": options["seed"],
        "DDPMDEP": options["noise_ratio"],
        "EVALCRC": checksum,
    }
    difference = find_difference(path, wanted) if path.is_file() else "is not there"
    if not difference:
        return EnhancedCCDData.read(path, format="fits")
    log.info("%s is made: it %s", path, difference)
    start = time.perf_counter()
    enhanced = enhance(image, progress_bar=False, **options)
    enhanced.meta["EVALTIME"] = (time.perf_counter() - start, "[s] time it took")
    enhanced.meta["EVALCRC"] = (checksum, "CRC-32 of the input")
    path.parent.mkdir(parents=True, exist_ok=True)
    enhanced.write(path, format="fits", overwrite=True)
    return enhanced


def _denoise(pairs, method):
    """Return the images of a classical method and the seconds that each took."""
    images, seconds = [], []
    for pair in pairs:
        sigma, mask = measures.sigma_of(pair.image), pair.image.mask
        data = np.where(mask, np.median(pair.image.data[~mask]), pair.image.data).astype(float)
        start = time.perf_counter()
        clean = method(data, float(np.median(sigma[~mask])))
        seconds.append(time.perf_counter() - start)
        images.append(CCDData(clean, unit=pair.image.unit, wcs=pair.image.wcs, mask=mask))
    return images, seconds


def _measure(pairs, results, noise, zero_point):
    """Return all tables that need nothing but images, by name."""
    drawn = {name: images for name, images in results.items() if measures.have_samples(images)}
    compared = results | {  # with the first sample of each model as a method of its own
        f"{name} sample": [CCDData(image.samples[0], unit=image.unit) for image in images]
        for name, images in drawn.items()
    }
    sources = measures.source_rows(pairs, compared, zero_point=zero_point)
    positions = [np.empty((0, 2))] * len(pairs)
    if len(sources):
        found = sources[sources["method"] == "input"]
        found = [found[found["pair"] == pair.name] for pair in pairs]
        positions = [np.transpose([rows["x"].value, rows["y"].value]) for rows in found]
    fluxes = measures.flux_rows(pairs, results, positions, zero_point=zero_point)
    ratios = {name: image.meta["DDPMDEP"] for name, image in noise.items()}
    tables = {
        "pixels": measures.pixel_rows(pairs, results),
        "calibration": measures.calibration_rows(pairs, results),
        "coverage": measures.coverage_rows(pairs, results),
        "images": measures.image_rows(pairs, compared),
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


def _find_sources(pairs, results, model, folder, *, device, progress_bar, **options):
    """Inject point sources into noise like that of the images; return the tables, or those in the folder."""
    sky = float(np.median([measures.sky_noise(pair) for pair in pairs]))
    widths = [image.meta.get("DDPMPSF", np.nan) for image in results[model.name]]
    fwhm = float(np.nanmedian(widths)) if np.isfinite(widths).any() else 4.0
    wanted = {"version": astro_ddpm.__version__, "model_sha256": model.sha256, "sky_noise": sky}
    wanted |= {"psf_fwhm": fwhm, "noise_ratio": _noise_ratio(pairs)} | options
    names = [f"{kind}_{model.name}" for kind in ("detection_curve", "detection_limits", "reliability")]
    paths = {name: folder / f"{name}.ecsv" for name in names}
    kept = {n: QTable.read(path, format="ascii.ecsv") for n, path in paths.items() if path.is_file()}
    if kept and all(wanted.items() <= table.meta.items() for table in kept.values()):
        return kept

    def run(image, seed):
        own = {"model": model, "noise_ratio": wanted["noise_ratio"], "device": device, "progress_bar": False}
        return enhance(image, n_samples=8, seed=seed, **own)

    noise = noise_image(NOISE_SHAPE, sky * pairs[0].image.unit, seed=options["seed"])
    found = detection_curve(noise, model=run, psf=fwhm, progress_bar=progress_bar, **options)
    tables = dict(zip(names, (found.curve, found.limits, found.reliability), strict=True))
    tables = {name: table for name, table in tables.items() if table is not None}
    for table in tables.values():
        table.meta.update(wanted)
    return tables


def _summary(pairs, names, n_samples, rejected):
    left_out = f" {len(rejected)} more differ by more than noise and were left out." if rejected else ""
    fitted = any(pair.fitted for pair in pairs)
    shared = (
        " The kernels that bring the references to the PSF of the images were fitted to the images, whose "
        "noise they follow in part. Where a bright source fills much of an image, even the exact scene would "
        "differ from the reference by more than the reference's noise, and fluxes of the input by less than "
        "theirs: compare methods with each other there."
    )
    return (
        f"{len(pairs)} images, whose references have a noise of {_noise_ratio(pairs):.2f} times theirs "
        f"(median), enhanced by {', '.join(names)} with {n_samples} samples where a model draws "
        f"them.{left_out} Unless said otherwise, numbers are in units of the noise of the "
        f"input.{shared if fitted else ''}"
    )
