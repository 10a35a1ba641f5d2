# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a camera does to an image: PSF, pixels, noise, sky and flaws, as functions of arrays and a generator.
"""

import dataclasses

import numpy as np
import scipy.fft
from scipy import ndimage, special

from astro_ddpm.noise import (
    convolve_periodic,
    correlated_noise,
    embed_kernel,
    gaussian_kernel,
    sigma_from_gain,
)
from astro_ddpm.utils import require

__all__ = [
    "PSF",
    "add_exposure_noise",
    "block_sum",
    "broaden_psf",
    "correlated_noise",
    "dihedral",
    "expose",
    "gaussian_kernel",
    "hot_pixels",
    "log_uniform",
    "moffat_kernel",
    "noise_gain",
    "random_crop",
    "random_holes",
    "random_noise_kernel",
    "random_psf",
    "resampling_kernel",
    "row_offsets",
    "saturated",
    "sky_error",
    "split_exposure",
]

f32 = np.float32


def moffat_kernel(fwhm, beta=3.0):
    r"""
    PSF of the atmosphere, :math:`(1 + r^2 / \alpha^2)^{-\beta}` (Moffat 1969), of unit sum.

    ``fwhm`` is the full width at half maximum, :math:`2 \alpha \sqrt{2^{1 / \beta} - 1}`, in pixels. The
    kernel, shape (n, n), reaches out to 3 times that.
    """
    half = int(np.ceil(3 * fwhm))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = (1 + 4 * (2 ** (1 / beta) - 1) * (x**2 + y**2) / fwhm**2) ** -beta
    return kernel / kernel.sum()


def random_noise_kernel(rng, widths=(0.3, 0.8)):
    """
    Draw the kernel of the noise of a smoothed image: an elliptical Gaussian, axis ratio 0.6 to 1.

    ``widths`` is the range of the standard deviation along the major axis in pixels; neighbours of a round
    kernel of 0.3, 0.5 and 0.8 pixels are correlated by 1, 26 and 67 %.
    """
    return gaussian_kernel(rng.uniform(*widths), rng.uniform(0.6, 1), rng.uniform(0, np.pi))


def broaden_psf(image, kernel):
    """
    Convolve an image, shape (ny, nx), with a kernel of unit sum, as a worse seeing would.

    The image is mirrored at its edges. White noise becomes less by the root of the kernel's summed squares.
    """
    half = [n // 2 for n in kernel.shape]
    padded = np.pad(image, [(n, n) for n in half], mode="symmetric")
    ny, nx = image.shape
    broad = convolve_periodic(padded, kernel)[half[0] : half[0] + ny, half[1] : half[1] + nx]
    return broad.astype(image.dtype)


def block_sum(image, factor):
    """
    Sum blocks of ``factor`` x ``factor`` pixels of an image, as a detector with larger pixels would.

    Rows and columns that do not fill a block are left out. An image smaller than a block raises ValueError.
    """
    ny, nx = (n // factor for n in image.shape)
    require(min(ny, nx) >= 1, f"factor {factor} exceeds the size of the image {image.shape}")
    blocks = image[: ny * factor, : nx * factor].reshape(ny, factor, nx, factor)
    return blocks.sum(axis=(1, 3))


def noise_gain(*kernels):
    r"""
    Factor by which convolutions, one after the other, change the standard deviation of white noise.

    .. math:: \sqrt{\sum (k_1 * k_2 * \ldots)^2}
    """
    size = sum(max(kernel.shape) for kernel in kernels)
    power = np.ones((size, size // 2 + 1))
    for kernel in kernels:
        power = power * np.abs(np.fft.rfft2(embed_kernel(kernel, (size, size)))) ** 2
    return float(np.sqrt(np.fft.irfft2(power, (size, size))[0, 0]))


def expose(scene, gain, read_noise, sky_level, rng):
    r"""
    Expose a scene on a detector: photon noise of scene and sky, and read noise.

    .. math:: y = \frac{P(g (x + b)) + N(0, r^2)}{g} - b

    with a Poisson variate P and the noise of `~astro_ddpm.noise.sigma_from_gain`.

    Parameters
    ----------
    scene : ndarray, shape (ny, nx)
        The scene :math:`x` without noise, in ADU; where it is negative it counts as zero in the photon noise.

    gain, read_noise, sky_level : float
        The gain :math:`g` in electron per ADU, the read noise :math:`r` in electron, and the sky :math:`b` in
        ADU, which is subtracted afterwards.

    rng : `numpy.random.Generator`
        The source of randomness.

    Returns
    -------
    data, sigma : ndarray, shape (ny, nx)
        The exposure and its noise (1 sigma) in ADU.

    Raises
    ------
    ValueError
        If ``gain`` is not positive, one of the others is negative, or there is no noise.
    """
    sigma = sigma_from_gain(scene, gain, read_noise, sky_level, smoothing=0)
    light = np.maximum(scene, 0.0)
    electrons = rng.poisson(gain * (light + sky_level)) + read_noise * rng.standard_normal(scene.shape)
    data = electrons / gain - sky_level + np.minimum(scene, 0.0)
    return data.astype(scene.dtype), sigma.astype(scene.dtype)


def random_crop(planes, size, rng):
    """
    Cut the same random square, ``size`` pixels wide, out of several planes, shape (ny, nx); return views.

    Planes that are smaller than the square raise ValueError.
    """
    ny, nx = planes[0].shape
    require(size <= min(ny, nx), f"size {size} exceeds the planes of shape {(ny, nx)}")
    top, left = rng.integers(ny - size + 1), rng.integers(nx - size + 1)
    return [plane[top : top + size, left : left + size] for plane in planes]


def add_exposure_noise(data, sigma, factor, noise):
    r"""
    Make an image as noisy as a shorter exposure, and return it with its noise.

    .. math:: y' = y + \sqrt{k^2 - 1} \, \sigma \epsilon, \qquad \sigma' = k \sigma

    ``noise`` is :math:`\epsilon`, of unit variance, and ``factor`` is :math:`k`; less than 1 raises
    ValueError.
    """
    require(factor >= 1, f"factor must be at least 1, not {factor}")
    return data + f32(np.sqrt(factor**2 - 1)) * sigma * noise, f32(factor) * sigma


def split_exposure(data, sigma, factor, noise):
    r"""
    Split one image into a noisy input and a target whose noises are independent.

    .. math:: y = d + k \sigma \epsilon, \qquad t = d - \sigma \epsilon / k

    With Gaussian noise of variance :math:`\sigma^2` in :math:`d`, the noises of y and t have the covariance
    :math:`\sigma^2 - \sigma^2 = 0` and the variances :math:`\sigma^2 (1 + k^2)` and :math:`\sigma^2 (1 +
    k^{-2})`; their ratio, the depth, is :math:`1 / k` (Pang et al. 2021, *Recorrupted-to-Recorrupted*). With
    the image itself as the target, a network would learn to keep the noise that both share.

    Parameters
    ----------
    data, sigma, noise : ndarray, shape (ny, nx)
        The image, its noise (1 sigma), and noise of unit variance that is independent of it.

    factor : float or ndarray, shape (ny, nx)
        The factor :math:`k`, positive.

    Returns
    -------
    data, sigma, target : ndarray, shape (ny, nx)
        The input :math:`y`, its noise, and the target :math:`t`.

    Raises
    ------
    ValueError
        If ``factor`` is not positive.
    """
    factor = f32(factor)
    require(np.all(factor > 0), f"factor must be positive, not {factor.min()}")
    step = sigma * noise
    return data + factor * step, np.sqrt(1 + factor**2) * sigma, data - step / factor


def random_holes(shape, rng, max_size=9):
    """
    Draw the pixels, shape (ny, nx), that a detector lost; they are False in the result.

    They are one to three bad columns, a trail, a saturated star with spikes, what lies beyond the edge of a
    detector that is turned against the image, single pixels, or patches of at most ``max_size`` pixels.
    """
    ny, nx = shape
    valid = np.ones(shape, bool)
    kind = rng.integers(6)
    if kind == 0:
        start, width = rng.integers(nx), rng.integers(1, 4)
        valid[:, start : start + width] = False
    elif kind == 1:
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3) * min(shape)
        y, x = np.mgrid[:ny, :nx] - np.reshape([(ny - 1) / 2, (nx - 1) / 2], (2, 1, 1))
        distance = x * np.sin(angle) - y * np.cos(angle) - offset
        valid[np.abs(distance) < rng.uniform(0.5, 2)] = False
    elif kind == 2:
        radius, centre = rng.uniform(2, max(max_size, 4) / 2), rng.uniform(0, shape)
        y, x = np.mgrid[:ny, :nx] - centre.reshape(2, 1, 1)
        spikes = np.minimum(np.abs(x), np.abs(y)) < 0.1 * radius
        valid[(np.hypot(x, y) < radius) | (spikes & (np.hypot(x, y) < 2.5 * radius))] = False
    elif kind == 3:
        angle, cut = rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.2)
        y, x = np.linspace(-1, 1, ny)[:, None], np.linspace(-1, 1, nx)
        across = x * np.cos(angle) + y * np.sin(angle)
        valid[across > np.quantile(across, 1 - cut)] = False
    elif kind == 4:
        valid[rng.random(shape) < log_uniform(rng, 3e-4, 0.03)] = False
    else:
        for _ in range(rng.integers(1, 6)):
            height, width = rng.integers(1, max_size + 1, 2)
            top, left = rng.integers(ny), rng.integers(nx)
            valid[top : top + height, left : left + width] = False
    return valid.T if ny == nx and rng.integers(2) else valid


def dihedral(image, code):
    """
    Flip and rotate images, shape (..., ny, nx), by quarter turns, without interpolation; return a view.

    ``code`` is one of the eight symmetries of the square, 0 to 7; 0 changes nothing.
    """
    turned = np.rot90(image, code % 4, axes=(-2, -1))
    return turned[..., ::-1] if code >= 4 else turned


def log_uniform(rng, low, high):
    """Draw a number between two positive ones whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _annulus(u, obstruction):
    """Diffraction of an annular aperture, of unit peak (Born & Wolf, section 8.6.2)."""
    u = np.maximum(u, f32(1e-3))
    field = special.j1(u) / u
    if obstruction > 0:
        field = field - obstruction * special.j1(obstruction * u) / u
    return (2 * field / (1 - obstruction**2)) ** 2


def _annulus_width(obstruction):
    """Full width at half maximum of `_annulus`."""
    u = np.linspace(0.5, 2, 1501)
    return 2 * np.interp(-0.5, -_annulus(u, obstruction), u)


@dataclasses.dataclass(frozen=True)
class PSF:
    """
    A point spread function: what a camera makes of a point source.

    Parameters
    ----------
    fwhm : float
        The full width at half maximum in pixels before integration over pixels; the geometric mean of those
        along both axes.

    kind : {"gaussian", "moffat", "airy"}, optional
        The profile of the core.

    beta, obstruction : float, optional
        The slope of the wings of a Moffat profile, and the central obstruction of an Airy pattern, as a share
        of the diameter.

    ratio, angle, coma : float, optional
        The axis ratio, the angle of the major axis from the x axis in radians, and how much farther the light
        reaches on one side, 0 to 0.5.

    spikes : tuple of float, optional
        The number of lines through the centre, their share of the flux, and the angle of the first.

    ring : tuple of float, optional
        The radius of a ring in units of ``fwhm``, and its share of the flux.

    offset : tuple of float, optional
        Where in the pixel, from its centre, a source of whole coordinates lies; y, x.
    """

    fwhm: float
    kind: str = "gaussian"
    beta: float = 3.0
    obstruction: float = 0.0
    ratio: float = 1.0
    angle: float = 0.0
    coma: float = 0.0
    spikes: tuple[float, float, float] = (0, 0.0, 0.0)
    ring: tuple[float, float] = (0.0, 0.0)
    offset: tuple[float, float] = (0.0, 0.0)

    @property
    def oversampling(self):
        """The number of sub-pixel positions per pixel and axis that `kernels` gives."""
        return 4 if self.fwhm < 2 else 2

    def profile(self, y, x):
        """
        Evaluate the surface brightness, not normalised, at positions from the source in pixels.

        ``y`` and ``x`` have the shapes (ny, 1) and (1, nx), the result (ny, nx), float32.
        """
        y, x = f32(y), f32(x)
        cos, sin = f32(np.cos(self.angle)), f32(np.sin(self.angle))
        u, v = x * cos + y * sin, y * cos - x * sin
        stretch = f32(np.sqrt(self.ratio) / self.fwhm)
        u, v = u * stretch, v * f32(stretch / self.ratio)
        square = u**2 + v**2
        if self.coma:
            r = np.sqrt(square)
            square = square * (1 - f32(self.coma) * u / (1 + r)) ** 2
        light = self._core(square)
        spread = light.sum()
        number, share, start = self.spikes
        for angle in start + np.pi * np.arange(number) / max(number, 1):
            cos, sin = f32(np.cos(angle) / self.fwhm), f32(np.sin(angle) / self.fwhm)
            line = np.exp(-4 * (y * cos - x * sin) ** 2) / (1 + np.abs(x * cos + y * sin)) ** 2
            light = light + line * (share * spread / number / line.sum())
        radius, share = self.ring
        if share:
            ring = np.exp(-8 * (np.sqrt(square) - f32(radius)) ** 2)
            light = light + ring * (share * spread / ring.sum())
        return light

    def _core(self, square):
        """Profile of unit width, of the squared radius."""
        if self.kind == "gaussian":
            return np.exp(f32(-4 * np.log(2)) * square)
        if self.kind == "moffat":
            return (1 + f32(4 * (2 ** (1 / self.beta) - 1)) * square) ** f32(-self.beta)
        if self.kind == "airy":
            width = f32(_annulus_width(self.obstruction))
            return _annulus(width * np.sqrt(square), self.obstruction)
        msg = f"kind must be 'gaussian', 'moffat' or 'airy', not {self.kind!r}"
        raise ValueError(msg)

    def kernels(self):
        r"""
        Integrate the PSF over pixels, for sources at all sub-pixel positions of a regular grid.

        The profile is sampled ``oversampling`` times per pixel and convolved with a pixel by multiplying its
        Fourier transform with :math:`\mathrm{sinc} f_x \, \mathrm{sinc} f_y`. This is exact for a PSF without
        power at frequencies above half the sampling. Far out the light falls smoothly to zero.

        Returns
        -------
        kernels : ndarray, shape (m, m, n, n), float32
            For a source i / m and j / m of a pixel above and to the right of pixel n // 2, the light in each
            pixel. Each kernel has unit sum.
        """
        m = self.oversampling
        n = 64 if m == 4 else 128
        position = scipy.fft.fftfreq(m * n, 1 / n).astype(np.float32)
        y, x = position[:, None] - f32(self.offset[0]), position - f32(self.offset[1])
        light = self.profile(y, x) * _taper(np.hypot(y, x), n / 2 - 1)
        pixel = np.sinc(scipy.fft.fftfreq(m * n, 1 / m))
        spectrum = scipy.fft.rfft2(light) * f32(pixel[:, None] * pixel[: m * n // 2 + 1])
        fine = scipy.fft.irfft2(spectrum)
        source = (m * (np.arange(n)[:, None] - n // 2) - np.arange(m)) % (m * n)
        kernels = fine[source][:, :, source].transpose(1, 3, 0, 2)
        return kernels / kernels.sum(axis=(-2, -1), keepdims=True)


def _taper(r, end):
    """Fall smoothly from 1 to 0 between 0.7 times a radius and that radius."""
    t = np.clip((f32(end) - r) / f32(0.3 * end), 0, 1)
    return t * t * (3 - 2 * t)


def random_psf(rng, fwhm_range=(1.0, 10.0)):
    """
    Draw the `PSF` of a camera: of the ground or of space, good or poor optics.

    It has a Gaussian, Moffat (beta 2 to 5) or Airy core; some are elliptical, have coma, spikes, or a ring.
    The full width at half maximum is log-uniform in ``fwhm_range``, in pixels.
    """
    return PSF(
        fwhm=log_uniform(rng, *fwhm_range),
        kind=str(rng.choice(["gaussian", "moffat", "airy"], p=[0.25, 0.5, 0.25])),
        beta=rng.uniform(2, 5),
        obstruction=rng.uniform(0, 0.5),
        ratio=rng.uniform(0.6, 1) if rng.random() < 0.3 else rng.uniform(0.9, 1),
        angle=rng.uniform(0, np.pi),
        coma=rng.uniform(0, 0.4) if rng.random() < 0.15 else 0.0,
        spikes=(int(rng.integers(2, 4)), log_uniform(rng, 0.003, 0.1), rng.uniform(0, np.pi))
        if rng.random() < 0.25
        else (0, 0.0, 0.0),
        ring=(rng.uniform(1.2, 4), log_uniform(rng, 0.003, 0.1)) if rng.random() < 0.15 else (0.0, 0.0),
        offset=tuple(rng.uniform(-0.5, 0.5, 2)),
    )


RESAMPLING = ("bilinear", "lanczos", "drizzle", "gaussian", "sharpened")


def resampling_kernel(kind, rng):
    """
    Draw the kernel, shape (n, n), by which a program that resamples an image correlates its noise.

    ``kind`` is one of ``RESAMPLING``: the interpolation of two neighbours, or of six with a Lanczos window,
    at a random sub-pixel position; drops of 0.6 to 2 pixels that fall on a grid at random; a smoothed
    image; or one with slightly anti-correlated noise.
    """
    if kind == "gaussian":
        return random_noise_kernel(rng)
    if kind == "sharpened":
        edge = -rng.uniform(0.02, 0.12)
        return np.outer([edge, 1, edge], [edge, 1, edge])
    phases = rng.uniform(0, 1, 2)
    if kind == "bilinear":
        rows = [np.array([1 - f, f]) for f in phases]
    elif kind == "lanczos":
        rows = [np.sinc(t) * np.sinc(t / 3) for t in (np.arange(-2, 4) - f for f in phases)]
    elif kind == "drizzle":
        drop = rng.uniform(0.6, 2)
        edges = np.arange(-2, 3)
        rows = [np.diff(np.clip(edges, f - drop / 2, f + drop / 2)) for f in phases]
    else:
        msg = f"kind must be one of {', '.join(RESAMPLING)}, not {kind!r}"
        raise ValueError(msg)
    return np.outer(*rows)


def sky_error(shape, image, sigma, rng):
    """
    Draw what a wrong estimate of the sky leaves in an image, shape (ny, nx), float32.

    It is a constant of -2 to 2 sigma (the median of ``sigma``), a gradient of up to 2 sigma from the middle
    to an edge, a bowl as deep as 2 sigma in proportion to the smoothed light of ``image``, or all of them.

    Added to the input and to the target alike it teaches networks to keep any sky.
    """
    kind = rng.integers(5)
    sky = np.zeros(shape, np.float32)
    if kind in (0, 1, 4):
        sky += f32(rng.uniform(-2, 2) * rng.uniform())
    if kind in (1, 2, 4):
        y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
        angle, bend = rng.uniform(0, 2 * np.pi), f32(rng.uniform(-0.5, 0.5))
        slope = x * f32(np.cos(angle)) + y[:, None] * f32(np.sin(angle))
        sky += f32(log_uniform(rng, 0.02, 1)) * (slope + bend * slope**2)
    if kind in (3, 4):
        width = int(log_uniform(rng, 5, max(min(shape) // 2, 6)))
        light = np.maximum(image, 0).astype(np.float32)
        for _ in range(2):
            light = ndimage.uniform_filter(light, width, mode="nearest")
        sky -= light * f32(rng.uniform(0, 2) / max(light.max(), 1e-20))
    return sky * f32(np.median(sigma))


def row_offsets(shape, rng, largest=0.3):
    """
    Draw rows or columns of an image of some shape that are a little off, in units of the noise, float32.

    The offsets are the same along each row, or each column, and at most ``largest``.
    """
    vertical = int(rng.integers(2))
    offsets = rng.standard_normal(shape[vertical]) * rng.uniform(0.02, largest / 2)
    if rng.random() < 0.5:  # a few only
        offsets *= rng.random(len(offsets)) < rng.uniform(0.02, 0.3)
    offsets = f32(np.clip(offsets, -largest, largest))
    return np.broadcast_to(offsets if vertical else offsets[:, None], shape)


def hot_pixels(shape, rng):
    """Draw a few hot pixels and short cosmic rays that nobody masked, in units of the noise, float32."""
    spikes = np.zeros(shape, np.float32)
    for _ in range(rng.integers(1, 5)):
        level = log_uniform(rng, 4, 50)
        y, x = rng.integers(shape[0]), rng.integers(shape[1])
        spikes[y, x] += level
        if rng.random() < 0.3:
            dy, dx = rng.integers(-1, 2, 2)
            for step in range(1, rng.integers(2, 5)):
                y, x = np.clip([y + dy, x + dx], 0, [shape[0] - 1, shape[1] - 1])
                spikes[y, x] += level * rng.uniform(0.2, 1) ** step
    return spikes


def saturated(z, rng):
    """
    Draw the level at which a detector saturates, and mark the pixels of a whitened image beyond it.

    The level is 20 to 2000 times the noise. No pixel is marked if that were more than a fifth of the image.
    """
    beyond = z > log_uniform(rng, 20, 2000)
    return beyond if beyond.mean() < 0.2 else np.zeros_like(beyond)
