# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From pairs to tables, figures and one page that says whether a model can be trusted.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable

from astro_ddpm import zoo
from astro_ddpm.enhance import enhance
from astro_ddpm.nddata import EnhancedCCDData
from astro_ddpm.utils import progress

from .classics import CLASSICS
from .photometry import standard_deviation

if TYPE_CHECKING:
    from .pairs import Pair

__all__ = ["evaluate"]

log = logging.getLogger(__name__)

_NOISE_SHAPE = (256, 256)


def evaluate(
    pairs: list[Pair],
    folder: str | Path,
    *,
    models: tuple[str, ...] = ("raunet", "ddpm"),
    classics: tuple[str, ...] = ("gaussian", "starlet", "nlm", "tv", "wavelet"),
    n_samples: int = 16,
    seed: int = 0,
    zero_point: float = 0.0,
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

    seed : int, optional
        Selects them; that of a pair is its number added to it.

    zero_point : float, optional
        The magnitude of unit flux.

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
        If there is no pair, or a name in ``models`` or ``classics`` is unknown.

    OSError
        If the folder cannot be written.
    """
    _check(pairs, classics)
    folder = Path(folder)
    models = [model if isinstance(model, zoo.Model) else zoo.load(model) for model in models]
    results, cost = run_methods(
        pairs,
        folder / "enhanced",
        models,
        classics,
        n_samples=n_samples,
        seed=seed,
        device=device,
        progress_bar=progress_bar,
    )
    return write_report(pairs, results, cost, folder)


def _check(pairs, classics):
    if not pairs:
        msg = "pairs must hold at least one pair"
        raise ValueError(msg)
    unknown = sorted(set(classics) - set(CLASSICS))
    if unknown:
        msg = f"classics must be names among {', '.join(CLASSICS)}, not {', '.join(unknown)}"
        raise ValueError(msg)


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
            noise[model.name] = _enhance(_pure_noise(seed), path, options | {"seed": seed, "depth": depth})
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
    if not path.is_file():
        return None
    try:
        enhanced = EnhancedCCDData.read(path, format="fits")
    except (OSError, ValueError, KeyError) as error:
        log.info("%s is done again: %s", path, error)
        return None
    draws = options["model"].kind != "raunet"
    wanted = {
        "DDPMSHA": options["model"].sha256,
        "DDPMNSAM": options["n_samples"] if draws else 0,
        "DDPMSEED": options["seed"],
        "DDPMDEP": options["depth"],
        "EVALCRC": _checksum(image),
    }
    same = all(enhanced.meta.get(key) == value for key, value in wanted.items())
    return enhanced if same and "EVALTIME" in enhanced.meta else None


def _checksum(image):
    mask = np.zeros(image.shape, bool) if image.mask is None else image.mask
    planes = (image.data, standard_deviation(image), mask)
    return crc32(b"".join(np.ascontiguousarray(plane).tobytes() for plane in planes))


def _pure_noise(seed):
    """Make an image of white noise of unit variance."""
    data = np.random.default_rng([seed, 1]).standard_normal(_NOISE_SHAPE, np.float32)
    return CCDData(data, unit="adu", uncertainty=StdDevUncertainty(np.ones_like(data)))


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
