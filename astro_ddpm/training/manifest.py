# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Frames of many cameras, described by a manifest, as arrays ready for training.
"""

import logging
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from astro_ddpm.noise import (
    BORDER,
    estimate_sky_level,
    estimate_sky_sigma,
    match_pair,
    noise_kernel,
    photon_noise,
)
from astro_ddpm.utils import check_output, require

from .arrays import write_arrays
from .cameras import noise_gain
from .pairs import noise_width, stack_rows

__all__ = ["ManifestEntry", "prepare_cameras", "read_frame", "read_manifest"]

log = logging.getLogger(__name__)

CHOICES = {"use": ("pairs", "deep", "frames"), "sky": ("subtracted", "subtract"), "align": ("pixels", "wcs")}
POWERS = {"stddev": 1.0, "variance": 0.5, "inverse_variance": -0.5}  # of a weight, that give the noise
LEVELS = (-np.inf, 1, 5, 30, 100, np.inf)  # in units of the noise


@dataclass(frozen=True)
class ManifestEntry:
    """
    Files of one camera that are read alike.

    Parameters
    ----------
    camera : str
        The name of the camera. Each camera and use gets its own file of arrays.

    use : {"frames", "deep", "pairs"}
        What the files are good for. Ordinary ``frames``, whose noise is white or correlated over few pixels,
        are split into input and target; ``deep`` images are made shallow by added noise that hides their
        own; ``pairs`` are exposures of one scene, each compared with the mean of the others.

    files : list of str
        Patterns of their names (`pathlib.Path.glob`).

    hdu, plane : int, optional
        The number of the HDU of the image, and which plane of a cube.

    weight, mask : dict, optional
        Where the plane of the noise and of the mask is: ``hdu``, its number, and ``replace``, two strings of
        which the first in the name of the file becomes the second. For the weight also ``kind``: ``stddev``,
        ``variance`` or ``inverse_variance``. For the mask also ``bits``, a list of the bits that make a pixel
        invalid; by default all.

    sky : {"subtracted", "subtract"}, optional
        Whether the sky is to be subtracted.

    gain : float or "sky", optional
        The gain in electrons per unit of flux, for the photon noise of files without a weight; ``"sky"`` to
        take it from level and noise of the sky that is subtracted. Without it bright sources are not used.

    noise : float, "white" or "correlated", optional
        How the noise of neighbouring pixels is correlated: not at all, as measured, or as by a Gaussian of
        this standard deviation in pixels.

    limits : list of float, optional
        The values from and to which a pixel is valid, in the unit of the file.

    align, offset : {"pixels", "wcs"}, list of int, optional
        Whether the exposures of pairs lie on the same pixels, or are brought there by their WCS; and the
        columns and rows by which sources move back from each exposure to the next.

    brightest : float, optional
        Up to which brightness, in units of the noise of the sky, exposures of pairs differ by noise alone.

    bayer : bool, optional
        Whether the pixels have a mosaic of colour filters of two by two. Each of the four is an image.

    trim, number : int, optional
        The width of the edge that is left out, and how many stamps to take from the files together.
    """

    camera: str
    use: str
    files: list
    hdu: int = 0
    plane: int | None = None
    weight: dict = field(default_factory=dict)
    mask: dict = field(default_factory=dict)
    sky: str = "subtracted"
    gain: float | str | None = None
    noise: float | str = "white"
    limits: list | None = None
    align: str = "pixels"
    offset: list | None = None
    brightest: float = 100.0
    bayer: bool = False
    trim: int = 0
    number: int = 200

    def __post_init__(self):
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                msg = f"{name} of camera {self.camera} must be one of {allowed}, not {getattr(self, name)!r}"
                raise ValueError(msg)
        kind, camera = self.weight.get("kind", "variance"), self.camera
        require(kind in POWERS, f"kind of the weight of {camera} must be one of {[*POWERS]}, not {kind!r}")
        if not (self.noise in ("white", "correlated") or isinstance(self.noise, int | float)):
            msg = f"noise of camera {camera} must be 'white', 'correlated' or a width, not {self.noise!r}"
            raise ValueError(msg)


class Frame(NamedTuple):
    """
    A sky-subtracted image and its noise (1 sigma), finite everywhere, shape (ny, nx).

    ``valid`` and ``use`` mark where it was measured and where its noise is known; ``sky_sigma`` is the noise
    of its sky.
    """

    data: np.ndarray
    sigma: np.ndarray
    valid: np.ndarray
    use: np.ndarray
    sky_sigma: float


def read_manifest(path):
    """
    Read a manifest, a YAML file: a list of mappings, each with the parameters of a `ManifestEntry`.

    ValueError if it is no such list, or an entry lacks a key or has one that is unknown.
    """
    import yaml

    with Path(path).open() as file:
        rows = yaml.safe_load(file)
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        msg = f"manifest {path} must be a list of mappings"
        raise ValueError(msg)
    try:
        return [ManifestEntry(**row) for row in rows]
    except TypeError as error:
        msg = f"manifest {path}: {error}"
        raise ValueError(msg) from error


def _read_plane(path, place, default):
    """Read the plane of a weight or a mask."""
    from astropy.io import fits

    if "replace" in place:
        path = path.with_name(path.name.replace(*place["replace"]))
    return fits.getdata(path, place.get("hdu", default))


def _read_sigma(entry, path):
    """Return the noise that a weight tells, infinite where there is none."""
    weight = _read_plane(path, entry.weight, entry.hdu).astype(float)
    kind = entry.weight.get("kind", "inverse_variance")
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.maximum(weight, 0) ** POWERS[kind]
    return np.where(np.isfinite(sigma) & (sigma > 0), sigma, np.inf)


def read_frame(entry, path):
    """
    Read an image as its entry in the manifest describes it.

    Returns a list of one `Frame`, or one for each colour of a mosaic of filters. ValueError if the image is
    not two-dimensional, or its noise cannot be measured.
    """
    from astropy.io import fits

    path = Path(path)
    data = fits.getdata(path, entry.hdu).astype(float)
    data = data if entry.plane is None else data[entry.plane]
    require(data.ndim == 2, f"{path}: HDU {entry.hdu} is not two-dimensional; give plane")
    valid = np.isfinite(data)
    if entry.limits:
        valid &= (data > entry.limits[0]) & (data < entry.limits[1])
    if entry.mask:
        flags = _read_plane(path, entry.mask, entry.hdu).astype(np.int64)
        bits = entry.mask.get("bits")
        valid &= flags & (-1 if bits is None else sum(1 << bit for bit in bits)) == 0
    sigma = _read_sigma(entry, path) if entry.weight else None
    step = 2 if entry.bayer else 1
    edge = entry.trim
    inner = (slice(edge, -edge or None),) * 2
    planes = [None if plane is None else plane[inner] for plane in (data, sigma, valid)]
    return [
        _measure(entry, *(None if p is None else p[row::step, column::step] for p in planes))
        for row in range(step)
        for column in range(step)
    ]


def _measure(entry, data, sigma, valid):
    """Subtract the sky, and find the noise of each pixel."""
    from scipy.ndimage import binary_dilation, gaussian_filter

    if sigma is not None:
        valid = valid & np.isfinite(sigma)
    level = estimate_sky_level(data, ~valid) if entry.sky == "subtract" else 0.0
    data = np.where(valid, data - level, 0.0)
    sky_sigma = estimate_sky_sigma(data, ~valid)
    use = valid & ~binary_dilation(~valid, np.ones((3, 3)))
    if sigma is not None:
        sigma = np.where(valid, sigma, np.median(sigma[valid]))
        faint = valid & (gaussian_filter(data, 2) < sky_sigma)
        sigma = sigma * sky_sigma / np.median(sigma[faint])  # weights are often wrong by a factor
    elif entry.gain is not None:
        gain = level / sky_sigma**2 if entry.gain == "sky" else entry.gain
        sigma = photon_noise(data, sky_sigma, 1 / gain)
    else:
        sigma = np.full(data.shape, sky_sigma)
        use &= ~binary_dilation(gaussian_filter(data, 1) > 10 * sky_sigma, iterations=2)
    return Frame(data, sigma, valid, use, sky_sigma)


def choose_stamps(frame, size, number, rng):
    """
    Return first row and column of at most ``number`` stamps in which all levels of brightness occur.

    By turns they hold a pixel below 1, 5, 30, 100 times the noise and above; three quarters of their pixels
    are valid.
    """
    from scipy.ndimage import gaussian_filter

    shape = np.array(frame.data.shape)
    if min(shape) < size:
        return []
    level = gaussian_filter(frame.data / frame.sigma, 1)
    places = [np.argwhere((level >= low) & (level < high) & frame.valid) for low, high in pairwise(LEVELS)]
    places = [place for place in places if len(place)]
    corners = set()
    for trial in range(4 * number):
        place = places[trial % len(places)]
        corner = place[rng.integers(len(place))] - rng.integers(size // 4, size - size // 4, 2)
        top, left = np.clip(corner, 0, shape - size)
        if frame.valid[top : top + size, left : left + size].mean() > 0.75:
            corners.add((int(top), int(left)))
        if len(corners) == number:
            break
    return sorted(corners)


def _cut(frame, corner, size):
    place = tuple(slice(start, start + size) for start in corner)
    return [plane[place] for plane in (frame.data, frame.sigma, frame.valid, frame.use)]


def _frame_rows(entry, frames, size, rng):
    """Stamps of ordinary frames, to be split."""
    white = np.pad([[1.0]], 4)
    for frame in frames:
        whitened = frame.data / frame.sigma
        kernel = noise_kernel(whitened, frame.use) if entry.noise == "correlated" else white
        for corner in choose_stamps(frame, size, -(-entry.number // len(frames)), rng):
            planes = dict(zip(("data", "sigma", "valid", "use"), _cut(frame, corner, size), strict=True))
            yield planes | {"kernel": kernel, "min_factor": 0.3 if kernel[4, 4] == 1 else 1.0}


def _deep_rows(entry, frames, size, rng):
    """Stamps of deep images, to be degraded."""
    for frame in frames:
        width = 0.0 if entry.noise == "white" else entry.noise
        width = noise_width(frame.data / frame.sigma, ~frame.valid) if width == "correlated" else width
        for corner in choose_stamps(frame, size, -(-entry.number // len(frames)), rng):
            data, _, valid, _ = _cut(frame, corner, size)
            if valid.all():
                yield {"deep": data, "sky_sigma": frame.sky_sigma, "noise_width": width}


def _aligned(entry, paths, frames, index):
    """Return all frames on the pixels of one of them."""
    if entry.align == "wcs":
        from astropy.io import fits
        from astropy.wcs import WCS
        from reproject import reproject_interp

        inner = (slice(entry.trim, None),) * 2
        worlds = [WCS(fits.getheader(path, entry.hdu))[inner] for path in paths]
        for number, frame in enumerate(frames):
            data = np.where(frame.valid, frame.data, np.nan)
            if number != index:
                data, _ = reproject_interp((data, worlds[number]), worlds[index], frames[index].data.shape)
            yield data
    else:
        for number, frame in enumerate(frames):
            shift = np.round(np.multiply(entry.offset or (0, 0), index - number)).astype(int)[::-1]
            data = np.full(frames[index].data.shape, np.nan)
            here, there = _overlap(shift, data.shape, frame.data.shape)
            data[here] = np.where(frame.valid, frame.data, np.nan)[there]
            yield data


def _overlap(shift, shape, other):
    """Slices of two planes where one that is shifted lies on the other."""
    ends = [(max(-d, 0), min(n, m - d), d) for d, n, m in zip(shift, shape, other, strict=True)]
    here = tuple(slice(start, stop) for start, stop, _ in ends)
    return here, tuple(slice(start + d, stop + d) for start, stop, d in ends)


def _pair_rows(entry, paths, frames, size, rng):
    """Stamps of each exposure and of the mean of the others at its PSF."""
    full = size + 2 * BORDER
    gain = entry.gain if isinstance(entry.gain, int | float) else None
    for index, frame in enumerate(frames):
        planes = list(_aligned(entry, paths, frames, index))
        others = np.stack(planes[:index] + planes[index + 1 :])
        valid = np.isfinite(others).all(axis=0)
        deep = np.where(valid, np.mean(others, axis=0), 0)
        seen = frame._replace(valid=frame.valid & valid)
        deep_sky = estimate_sky_sigma(deep, ~valid)
        own = noise_kernel(deep / deep_sky, valid)
        for corner in choose_stamps(seen, full, -(-entry.number // len(frames)), rng):
            data, sigma, measured, _ = _cut(seen, corner, full)
            place = tuple(slice(start, start + full) for start in corner)
            options = {"variance_per_flux": 1 / gain if gain else 0.0, "max_residual": np.inf}
            options |= {"sigma": sigma, "valid": measured, "deep_valid": valid[place]}
            pair = match_pair(data, deep[place], **options)
            use = pair.use & (pair.target < entry.brightest * frame.sky_sigma)
            depth = noise_gain(pair.kernel, own) * deep_sky / frame.sky_sigma
            rms = np.sqrt(np.mean(((data - pair.target) / sigma)[use] ** 2) / (1 + depth**2))
            if not (rms < 1.2 and use.mean() > 0.6):
                log.info("%s %s left out: rms %.2f, used %.2f", entry.camera, corner, rms, use.mean())
                continue
            row = {"shallow": data, "sigma": sigma, "target": pair.target}
            row |= {"valid": measured & valid[place], "use": use}
            inside = (slice(BORDER, -BORDER),) * 2
            yield {name: plane[inside] for name, plane in row.items()} | {"depth": depth}


def prepare_cameras(manifest, folder, *, root=None, size=96, cameras=None, seed=0, overwrite=False):
    """
    Turn the frames of a manifest into one file of arrays per camera and use.

    Parameters
    ----------
    manifest : str or path-like
        The manifest, see `read_manifest`.

    folder : str or path-like
        Where the files are written, made if it does not exist. Each is named as the camera and the use, such
        as ``sdss_frames.npz``. Of ``frames`` they hold ``data``, ``sigma``, ``valid`` and ``use`` of shape
        (n, size, size), ``kernel`` of shape (n, 9, 9), see `astro_ddpm.noise.noise_kernel`, and
        ``min_factor`` of shape (n,), the least factor to split by; of ``pairs`` and ``deep`` images what
        `prepare_pairs` and `prepare_deep` write, of pairs without ``deep``: the mean of few exposures is not
        deep enough to be split. With frames and pairs go the measures that `prepare_pairs` writes.

    root : str or path-like, optional
        The folder that the patterns belong to; by default that of the manifest.

    size : int, optional
        The width of the stamps in pixels.

    cameras : sequence of str, optional
        The cameras to prepare; by default all.

    seed : int, optional
        Selects the stamps.

    overwrite : bool, optional
        Whether to replace existing files.

    Returns
    -------
    counts : dict of str to int
        The number of stamps in each file.

    Raises
    ------
    FileExistsError
        If a file exists and is not to be overwritten.

    ValueError
        If the manifest or a file in it cannot be used, or a pattern fits no file.
    """
    root = Path(manifest).parent if root is None else Path(root)
    makers, rows = {"frames": _frame_rows, "deep": _deep_rows}, {}
    entries = [entry for entry in read_manifest(manifest) if cameras is None or entry.camera in cameras]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in {f"{entry.camera}_{entry.use}" for entry in entries}:
        check_output(Path(folder) / f"{name}.npz", overwrite)
    turns = Counter()
    for entry in entries:
        rng = np.random.default_rng([seed, turns[entry.camera]])  # whatever other cameras there are
        turns[entry.camera] += 1
        paths = [path for pattern in entry.files for path in sorted(root.glob(pattern))]
        require(paths, f"files {entry.files} of camera {entry.camera} fit no file in {root}")
        frames = [frame for path in paths for frame in read_frame(entry, path)]
        found = rows.setdefault(f"{entry.camera}_{entry.use}", [])
        if entry.use == "pairs":
            found.extend(_pair_rows(entry, paths, frames, size, rng))
        else:
            found.extend(makers[entry.use](entry, frames, size, rng))
    for name, stamps in rows.items():
        require(stamps, f"no stamp of {size} pixels of {name} can be used")
        write_arrays(Path(folder) / f"{name}.npz", stack_rows(stamps), overwrite=overwrite)
    return {name: len(stamps) for name, stamps in rows.items()}
