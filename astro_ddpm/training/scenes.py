# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Scenes whose truth is exact: light and stars without a PSF, and examples of what cameras make of them.
"""

import functools
from typing import ClassVar

import numpy as np
import scipy.fft
from scipy import ndimage, special

from astro_ddpm.utils import require

from .cameras import (
    RESAMPLING,
    correlated_noise,
    expose,
    hot_pixels,
    log_uniform,
    random_psf,
    resampling_kernel,
    row_offsets,
)
from .examples import ExampleDataset, marks

__all__ = ["KINDS", "Scene", "SceneDataset", "draw_scene"]

WIDTH = 160  # pixels, of a scene
f32 = np.float32


class Scene:
    """
    The sky before a telescope: a plane of light, and stars.

    Parameters
    ----------
    light : ndarray, shape (n, n), float32
        The flux of each pixel.

    stars : ndarray, shape (k, 3), optional
        The position y, x in pixels and the flux of each point source.
    """

    def __init__(self, light, stars=()):
        self.light = light
        self.stars = np.reshape(np.asarray(stars, np.float32), (-1, 3))
        self._spectra = {}

    def planes(self, m):
        """
        Sort the flux by its position in the pixel, one of m x m sub-pixel positions: shape (m, m, n, n).

        A plane has the flux i / m and j / m pixels above and to the right of each pixel's centre. Light lies
        in the first plane, stars in the one next to them; without stars the first is all.
        """
        if not len(self.stars):
            return self.light[None, None]
        n = len(self.light)
        fine = np.floor(self.stars[:, :2].T * m).astype(int) % (n * m)
        (y, i), (x, j) = (np.divmod(axis, m) for axis in fine)
        flat = np.ravel_multi_index((i, j, y, x), (m, m, n, n))
        planes = np.bincount(flat, self.stars[:, 2], m * m * n * n).astype(np.float32).reshape(m, m, n, n)
        planes[0, 0] += self.light
        return planes

    def image(self, psf):
        """
        Look at the scene through a telescope (an ``Optics``), without noise.

        Light that leaves at an edge comes in at the opposite one.
        """
        m = psf.oversampling
        if m not in self._spectra:
            self._spectra[m] = scipy.fft.rfft2(self.planes(m))
        scene = self._spectra[m]
        optics = psf.spectra(len(self.light), phases=len(scene))
        image = scipy.fft.irfft2(np.einsum("ijyx,ijyx->yx", scene, optics), self.light.shape)
        return np.maximum(image, 0)


class Optics:
    """A `~astro_ddpm.training.cameras.PSF` and its Fourier transforms, computed when first needed."""

    def __init__(self, psf):
        self.psf, self.oversampling = psf, psf.oversampling
        self._kernels, self._spectra = None, {}

    def spectra(self, n, phases):
        """Transform the kernels of the first ``phases`` sub-pixel positions per axis on n x n pixels."""
        if self._kernels is None:
            self._kernels = self.psf.kernels()
        if (n, phases) not in self._spectra:
            kernels = self._kernels[:phases, :phases]
            size = kernels.shape[-1]
            planes = np.zeros((phases, phases, n, n), np.float32)
            planes[..., :size, :size] = kernels
            planes = np.roll(planes, (-(size // 2), -(size // 2)), axis=(-2, -1))
            self._spectra[n, phases] = scipy.fft.rfft2(planes)
        return self._spectra[n, phases]


def _noise(rng, slope, n=WIDTH):
    """Gaussian noise of unit variance whose power falls with the given slope."""
    y, x = scipy.fft.fftfreq(n)[:, None], scipy.fft.rfftfreq(n)
    square = (y**2 + x**2).astype(np.float32)
    square[0, 0] = 1
    gain = square ** f32(-slope / 4)
    gain[0, 0] = 0
    white = rng.standard_normal((2, n, n // 2 + 1), dtype=np.float32)
    plane = scipy.fft.irfft2(gain * (white[0] + 1j * white[1]), (n, n))
    return plane / plane.std()


def _frame(centre, ratio=1.0, angle=0.0, n=WIDTH):
    """Coordinates of the pixels about a centre: along the major axis, and stretched along the minor one."""
    y = np.arange(n, dtype=np.float32)[:, None] - f32(centre[0])
    x = np.arange(n, dtype=np.float32) - f32(centre[1])
    cos, sin = f32(np.cos(angle)), f32(np.sin(angle))
    return x * cos + y * sin, (y * cos - x * sin) / f32(ratio)


def _sersic(r, radius, index):
    """Sersic profile, 1 at the half-light radius (Ciotti & Bertin 1999), soft within a quarter of a pixel."""
    b = 2 * index - 1 / 3 + 0.01 / index
    scaled = np.sqrt(r**2 + f32(0.06)) * f32(1 / radius)
    return np.exp(f32(-b) * (scaled ** f32(1 / index) - 1))


def _centre(rng, margin=0.1):
    return rng.uniform(margin * WIDTH, (1 - margin) * WIDTH, 2)


def _smooth_galaxy(rng, centre=None, radius=None):
    """One to three Sersic components."""
    centre = _centre(rng) if centre is None else centre
    radius = radius or log_uniform(rng, 1.0, 30)
    light, angle = 0, rng.uniform(0, np.pi)
    for component in range(rng.integers(1, 4)):
        u, v = _frame(centre, rng.uniform(0.3, 1), angle + 0.2 * rng.standard_normal())
        size, index = radius * (0.3**component if component else 1), log_uniform(rng, 0.5, 5)
        light = light + log_uniform(rng, 0.2, 2) * 4**component * _sersic(np.hypot(u, v), size, index)
    return light


def _structured_galaxy(rng, centre=None, scale=None):
    """A disc with a bulge, and some of: arms, a bar, rings, clumps, dust, a warp, a broken edge."""
    centre = _centre(rng, 0.25) if centre is None else centre
    scale = scale or log_uniform(rng, 3, 25)
    ratio, angle = rng.uniform(0.25, 1), rng.uniform(0, np.pi)
    u, v = _frame(centre, ratio, angle)
    r = np.hypot(u, v) + f32(1e-3)
    phi = np.arctan2(v, u)
    if rng.random() < 0.3:  # warp
        phi = phi + f32(rng.uniform(-0.8, 0.8)) * np.minimum(r / f32(4 * scale), 1.5) ** 2
        v = r * np.sin(phi)
        u = r * np.cos(phi)
        r = np.hypot(u, v * f32(rng.uniform(0.8, 1.4)))
    disc = np.exp(-r / f32(scale))
    if rng.random() < 0.4:
        edge, soft = scale * rng.uniform(2, 4), scale * rng.uniform(0.05, 0.5)
        disc = disc * special.expit((f32(edge) - r) / f32(soft))
    light = disc.astype(np.float32)
    texture = _noise(rng, rng.uniform(1.5, 3.2))
    phase = phi - np.log(r / f32(scale)) / f32(np.tan(rng.choice([-1, 1]) * rng.uniform(0.12, 0.7)))
    arms = rng.choice([0, 1, 2, 2, 2, 3, 4, 5])
    if arms:
        phase = phase + f32(rng.uniform(0, 0.5)) * texture
        wave = np.exp(f32(log_uniform(rng, 0.7, 6)) * (np.cos(arms * phase) - 1))
        inner = np.minimum(r / f32(scale * rng.uniform(0.3, 1)), 1)
        light = light * (1 - f32(rng.uniform(0.2, 0.9)) * inner)
        light = light + disc * wave * inner * f32(rng.uniform(0.5, 3))
    if rng.random() < 0.6:  # clumps
        light = light * np.exp(f32(rng.uniform(0.3, 1.5)) * texture)
    if rng.random() < 0.3:
        ring, width = scale * rng.uniform(0.7, 3), scale * log_uniform(rng, 0.05, 0.4)
        light += f32(log_uniform(rng, 0.05, 1)) * np.exp(-0.5 * ((r - f32(ring)) / f32(width)) ** 2)
    if rng.random() < 0.4:
        turn = rng.uniform(0, np.pi)
        a, b = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
        long = scale * rng.uniform(0.4, 1.5)
        shape = (np.abs(a) / f32(long)) ** 3 + (np.abs(b) / f32(long * rng.uniform(0.15, 0.4))) ** 2
        light += f32(log_uniform(rng, 0.3, 4)) * np.exp(-shape).astype(np.float32)
    if rng.random() < 0.5:  # dust along the inner side of the arms, or in patches
        lanes = texture > 0.7
        if rng.random() < 0.5:
            lanes = np.exp(3 * (np.cos(max(arms, 1) * (phase - 0.4)) - 1))
        light = light * np.exp(-f32(rng.uniform(0.2, 2)) * lanes * (r < 4 * scale))
    if rng.random() < 0.8:
        bulge = scale * rng.uniform(0.08, 0.5)
        a, b = _frame(centre, rng.uniform(ratio, 1), angle)
        light += f32(log_uniform(rng, 0.1, 8)) * _sersic(np.hypot(a, b), bulge, rng.uniform(0.7, 4))
    return light


def _edge_on(rng, centre=None):
    """A disc seen from the side, with a bulge, perhaps a dust lane and a warp."""
    centre = _centre(rng) if centre is None else centre
    scale = log_uniform(rng, 4, 40)
    u, v = _frame(centre, 1, rng.uniform(0, np.pi))
    if rng.random() < 0.4:
        v = v + f32(rng.uniform(-2, 2)) * (u / f32(2 * scale)) ** rng.integers(2, 4)
    height = max(scale * rng.uniform(0.05, 0.25), 0.4)
    thin = np.exp(-np.abs(u) / f32(scale)) / np.cosh(np.clip(v / f32(height), -40, 40)) ** rng.integers(1, 3)
    light = thin.astype(np.float32)
    if rng.random() < 0.5:
        flat = rng.uniform(2, 5)
        thick = np.exp(-np.hypot(u, v * f32(flat)) / f32(scale * rng.uniform(0.6, 1.3)))
        light += f32(log_uniform(rng, 0.03, 0.5)) * thick
    if rng.random() < 0.7:
        r = np.hypot(u, v / f32(rng.uniform(0.6, 1)))
        bulge = _sersic(r, scale * rng.uniform(0.05, 0.3), rng.uniform(0.8, 4))
        light += f32(log_uniform(rng, 0.1, 4)) * bulge
    if rng.random() < 0.6:
        wiggle = f32(0.3 * height) * _noise(rng, 3) if rng.random() < 0.5 else 0
        lane, width = height * rng.uniform(-0.5, 0.5), height * rng.uniform(0.2, 0.6)
        depth = np.exp(-(((v + wiggle - f32(lane)) / f32(width)) ** 2))
        light = light * np.exp(-f32(rng.uniform(0.3, 3)) * depth * (np.abs(u) < 3 * scale))
    return light


def _tail(rng, centre, length):
    """A curved tail of stars that leaves a galaxy and fades."""
    angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-1.5, 1.5)
    u, v = _frame(centre, 1, angle)
    axis = v - f32(bend / length) * u**2
    width = f32(length * rng.uniform(0.03, 0.15)) * (1 + np.abs(u) / f32(length))
    along = np.clip(u / f32(0.15 * length), 0, 1) * np.exp(-np.maximum(u, 0) / f32(length))
    return along * np.exp(-0.5 * (axis / width) ** 2)


def _shells(rng, centre, length):
    """Arcs with sharp outer edges on both sides of a galaxy (Malin & Carter 1983)."""
    u, v = _frame(centre, rng.uniform(0.5, 1), rng.uniform(0, np.pi))
    r, cone = np.hypot(u, v), f32(rng.uniform(0.3, 1.2))
    light = 0
    for number in range(rng.integers(2, 7)):
        edge = f32(length * rng.uniform(0.5, 3))
        inside = (r < edge) & (np.abs(v) < cone * np.abs(u)) & ((u > 0) == bool(number % 2))
        fade = np.exp((np.minimum(r, edge) - edge) / f32(0.15 * edge))
        light = light + f32(rng.uniform(0.3, 1)) * inside * fade
    return light


def _merger(rng):
    """Two or three galaxies that disturb each other, with tails, bridges or shells."""
    centre, scale = _centre(rng, 0.3), log_uniform(rng, 4, 15)
    light = 0
    for _ in range(rng.integers(2, 4)):
        place = centre + scale * rng.uniform(-2, 2, 2)
        draw = _structured_galaxy if rng.random() < 0.6 else _smooth_galaxy
        part = draw(rng, place, scale * rng.uniform(0.3, 1))
        light = light + log_uniform(rng, 0.2, 1) * part / part.max()
        if rng.random() < 0.7:
            light = light + f32(log_uniform(rng, 0.003, 0.1)) * _tail(rng, place, scale * rng.uniform(1, 5))
    if rng.random() < 0.4:
        light = light + f32(log_uniform(rng, 0.01, 0.2)) * _shells(rng, centre, 2 * scale)
    return light


def _blobs(rng, number, sizes, slope):
    """Many small elliptical Gaussians or exponentials, each drawn in a box of its own."""
    light = np.zeros((WIDTH, WIDTH), np.float32)
    flux = rng.random(number) ** (-1 / slope)
    for value in flux:
        size, ratio, angle = log_uniform(rng, *sizes), rng.uniform(0.3, 1), rng.uniform(0, np.pi)
        half = int(np.ceil(5 * size)) + 1
        corner = rng.integers(-half, WIDTH + half, 2)
        u, v = _frame(rng.uniform(0, 1, 2) + half, ratio, angle, 2 * half + 1)
        square = (u * u + v * v) * f32(1 / size**2)
        blob = np.exp(-0.5 * square) if rng.random() < 0.5 else np.exp(-np.sqrt(square))
        low, high = np.maximum(corner - half, 0), np.minimum(corner + half + 1, WIDTH)
        if np.all(low < high):
            first, last = low - corner + half, high - corner + half
            part = blob[first[0] : last[0], first[1] : last[1]]
            light[low[0] : high[0], low[1] : high[1]] += f32(value / size**2 / ratio) * part
    return light


def _clouds(rng):
    """Log-normal clouds, filaments along the ridges of a noise, or both."""
    noise = _noise(rng, rng.uniform(1.5, 4))
    if rng.random() < 0.5:
        return np.exp(f32(rng.uniform(0.4, 2)) * noise)
    width = f32(log_uniform(rng, 0.02, 0.3))
    ridges = 1 / (1 + (noise / width) ** 2)
    return ridges * np.exp(f32(rng.uniform(0.3, 1.2)) * _noise(rng, rng.uniform(2, 4)))


def _leaves(rng):
    """Dead leaves: discs, strips and lozenges that hide each other, graded or textured (Lee et al. 2001)."""
    light = np.full((WIDTH, WIDTH), rng.uniform(0, 1), np.float32)
    texture = _noise(rng, rng.uniform(1, 3)) if rng.random() < 0.7 else None
    for _ in range(rng.integers(5, 40)):
        centre, angle, size = _centre(rng, 0), rng.uniform(0, np.pi), log_uniform(rng, 2, 60)
        half = int(np.ceil(1.2 * size)) + 1
        low, high = np.maximum(np.int64(centre) - half, 0), np.minimum(np.int64(centre) + half + 1, WIDTH)
        y = np.arange(low[0], high[0], dtype=np.float32)[:, None] - f32(centre[0])
        x = np.arange(low[1], high[1], dtype=np.float32) - f32(centre[1])
        u = x * np.cos(angle) + y * np.sin(angle)
        v = (y * np.cos(angle) - x * np.sin(angle)) / rng.uniform(0.1, 1)
        distance = (np.hypot, np.maximum, np.add)[rng.integers(3)](np.abs(u), np.abs(v))
        cover = np.clip(size - distance, 0, 1)
        shade = rng.uniform(0, 1) * (1 + rng.uniform(-0.8, 0.8) * u / size)
        if texture is not None and rng.random() < 0.5:
            shade = shade * np.exp(rng.uniform(0, 0.7) * texture[low[0] : high[0], low[1] : high[1]])
        part = light[low[0] : high[0], low[1] : high[1]]
        part += (f32(1) * (shade - part) * cover).astype(np.float32)
    return np.maximum(light - light.min() * rng.uniform(0, 1), 0)


def _cusp(rng):
    """A power-law core, with or without a core radius, as in the centres of ellipticals and clusters."""
    u, v = _frame(_centre(rng), rng.uniform(0.5, 1), rng.uniform(0, np.pi))
    core = log_uniform(rng, 0.3, 8)
    square = 1 + (u * u + v * v) * f32(1 / core**2)
    return square ** f32(-rng.uniform(0.4, 2))


def _stars(rng, number):
    """Stars whose numbers fall with flux as a power law; y, x and flux."""
    flux = np.minimum(rng.random(number) ** (-1 / rng.uniform(0.3, 1.5)), 1e4)
    stars = np.column_stack([rng.uniform(0, WIDTH, (number, 2)), flux])
    if rng.random() < 0.3:  # a cluster
        centre, width = _centre(rng), log_uniform(rng, 5, 40)
        stars[:, :2] = centre + width * np.clip(rng.standard_t(3, (number, 2)), -20, 20)
    return stars


def _some(rng, draw, low, high):
    """Add several of a kind, of any brightness."""
    parts = [draw(rng) for _ in range(rng.integers(low, high))]
    return sum(log_uniform(rng, 0.05, 1) / part.max() * part for part in parts)


KINDS = {
    "smooth": lambda rng: _some(rng, _smooth_galaxy, 1, 6),
    "structured": lambda rng: _some(rng, _structured_galaxy, 1, 4),
    "edge-on": lambda rng: _some(rng, _edge_on, 1, 4),
    "merger": _merger,
    "faint": lambda rng: _blobs(rng, rng.integers(12, 120), (0.5, 3.0), 2.5),
    "field": lambda rng: _blobs(rng, rng.integers(5, 60), (0.6, 6.0), 0.8),
    "clouds": _clouds,
    "leaves": _leaves,
    "cusp": lambda rng: _some(rng, _cusp, 1, 5),
    "stars": None,
    "crowd": None,
    "empty": None,
}
_WEIGHTS = dict(zip(KINDS, (3, 4, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1), strict=True))


def draw_scene(rng, kind=None):
    """
    Draw a `Scene`, in arbitrary units, or a mix of scenes.

    ``kind`` is one of ``KINDS``; by default any, and in every third scene a second kind on top.
    """
    weights = np.array(list(_WEIGHTS.values())) / sum(_WEIGHTS.values())
    kinds = [kind] if kind else list(rng.choice(list(KINDS), 1 + (rng.random() < 0.33), p=weights))
    light, stars = np.zeros((WIDTH, WIDTH), np.float32), []
    for each in kinds:
        if KINDS[each]:
            part = KINDS[each](rng)
            light += f32(log_uniform(rng, 0.03, 1) / max(part.max(), 1e-20)) * part
    number = 0
    if "crowd" in kinds:
        number = int(log_uniform(rng, 150, 3000))
    elif "stars" in kinds or rng.random() < 0.3:
        number = int(log_uniform(rng, 1, 150))
    if number and (kind in (None, "crowd", "stars")):
        stars = _stars(rng, number)
        stars[:, 2] *= log_uniform(rng, 0.1, 30) / stars[:, 2].max()
    return Scene(light, stars)


@functools.lru_cache(maxsize=64)
def _scene(*key):
    return draw_scene(np.random.default_rng(key))


@functools.lru_cache(maxsize=64)
def _optics(*key):
    return Optics(random_psf(np.random.default_rng(key)))


class SceneDataset(ExampleDataset):
    """
    Examples made from scenes, each seen by a camera of its own.

    A scene is convolved with a random PSF and scaled to a brightness. It gets read noise and the photon noise
    of an exposure, or in 30 % of a stack of up to 300, white in 60 %, otherwise like that of a resampled
    image. In 20 % the noise that the network is told was estimated from the image itself. Some inputs have
    rows or columns that are a little off, or hot pixels.

    A scene and a PSF serve several examples, in other company and other cuts, within a block of
    examples: read them in order, which saves much time.

    Parameters
    ----------
    seed, epoch, stream : int, optional
        Select the draws; ``stream`` tells data sets apart that are seen beside each other.

    number : int, optional
        How many examples there are.

    size : int, optional
        The width of the examples in pixels, 8 to 96.

    noisy_target : bool, optional
        Whether the target has white noise, ``depth`` times that of the input; otherwise it is the truth,
        and the depth is 0.

    depth_range, snr_range, sky_range : tuple of float, optional
        The ranges of the depth, of the brightest pixel in units of the noise of the sky, and of the
        background of an exposure in electrons per pixel; log-uniform.

    reuse : int, optional
        How many examples share a scene, and as many others a PSF.

    Raises
    ------
    ValueError
        If ``size`` is not between 8 and 96.
    """

    ranges: ClassVar[dict] = {  # of what is drawn, as `measure_ranges` gives those of prepared arrays
        "psf_fwhm": [1.0, 10.0],
        "noise_correlation": [-0.1, 0.7],
        "peak_snr": [0.0, 5000.0],
        "noise_ratio": [0.02, 0.5],
    }
    _pool = 24  # scenes in a block

    def __init__(
        self,
        seed=0,
        epoch=0,
        number=1000,
        size=48,
        *,
        noisy_target=True,
        depth_range=(0.02, 0.5),
        snr_range=(0.3, 5000.0),
        sky_range=(5.0, 2e4),
        reuse=8,
        stream=1000,
    ):
        require(8 <= size <= 96, f"size must be between 8 and 96, not {size}")
        super().__init__(seed, epoch, size, stream)
        self.number, self.reuse, self.noisy_target = number, reuse, noisy_target
        self.depth_range, self.snr_range, self.sky_range = depth_range, snr_range, sky_range

    def __len__(self):
        return self.number

    def _row(self, index):
        """Return a scene and the optics to look at it through."""
        block, place = divmod(index, self._pool * self.reuse)
        turn, place = divmod(place, self._pool)
        key = self.seed, self.epoch, self.stream
        optics = _optics(*key, 2, block * self._pool + (place + 5 * turn) % self._pool)
        return _scene(*key, 1, block * self._pool + place), optics

    def _draw(self, row, rng):
        """Draw an example: image, noise, target and depth."""
        truth, sky, read_noise = self._look(*row, rng)
        if rng.random() < 0.6:
            data, sigma = expose(truth, 1.0, read_noise, sky, rng)
        else:
            kernel = resampling_kernel(str(rng.choice(RESAMPLING)), rng)
            sigma = np.sqrt(truth + f32(sky + read_noise**2))
            data = truth + sigma * correlated_noise(truth.shape, kernel, rng)
        depth, target = 0.0, truth
        if self.noisy_target:
            depth = log_uniform(rng, *self.depth_range)
            target = truth + f32(depth) * sigma * rng.standard_normal(truth.shape, dtype=np.float32)
        if rng.random() < 0.2:  # as pipelines do that have no model of the image
            light = ndimage.gaussian_filter(np.maximum(data, 0), rng.uniform(0.7, 2.5))
            sigma = np.sqrt(light + f32(sky + read_noise**2))
        if rng.random() < 0.15:
            data = data + sigma * row_offsets(truth.shape, rng)
        if rng.random() < 0.1:
            data = data + sigma * hot_pixels(truth.shape, rng)
        return data, sigma, target, depth, *marks({}, data.shape)

    def _look(self, scene, optics, rng):
        """Return a part of an image without noise, the sky, all in electrons, and the read noise."""
        truth = random_cut(scene.image(optics), self.size, rng)
        sky, read_noise = log_uniform(rng, *self.sky_range), log_uniform(rng, 0.5, 15)
        if rng.random() < 0.3:  # a stack of many exposures
            sky *= log_uniform(rng, 1, 300)
        peak = log_uniform(rng, *self.snr_range) * np.sqrt(sky + read_noise**2)
        return truth * f32(peak / max(truth.max(), 1e-20)), sky, read_noise


def random_cut(image, size, rng):
    """Cut a random square out of an image, in half of the cases about light, the likelier the brighter."""
    end = len(image) - size
    corner = rng.integers(0, end + 1, 2)
    if rng.random() < 0.5:
        light = np.cumsum(np.sqrt(image))
        place = np.searchsorted(light, rng.random() * light[-1])
        centre = np.array(np.unravel_index(min(place, image.size - 1), image.shape))
        corner = np.clip(centre - rng.integers(size // 4, size - size // 4, 2), 0, end)
    return image[corner[0] : corner[0] + size, corner[1] : corner[1] + size]
