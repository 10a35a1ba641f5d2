# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Images in units of their noise.
"""

import numpy as np

__all__ = ["largest_value", "unwhiten", "whiten"]


def whiten(data, sigma, origin=0.0):
    r"""
    Express an image in units of its noise.

    .. math:: z = (x - x_0) / \sigma

    Parameters
    ----------
    data : array_like, shape (..., ny, nx)
        The image :math:`x`.

    sigma : array_like, shape (..., ny, nx)
        Its noise (1 sigma), in the unit of ``data``, positive.

    origin : array_like, optional
        The image :math:`x_0` that becomes zero.

    Returns
    -------
    z : ndarray, shape (..., ny, nx)
        The whitened image, without unit.

    See Also
    --------
    unwhiten : The inverse.
    """
    return np.subtract(data, origin) / sigma


def unwhiten(z, sigma, origin=0.0):
    r"""
    Bring an image in units of the noise back to its own unit.

    .. math:: x = x_0 + \sigma z

    Parameters
    ----------
    z : array_like, shape (..., ny, nx)
        The whitened image.

    sigma : array_like, shape (..., ny, nx)
        The noise (1 sigma) in the unit of the result.

    origin : array_like, optional
        The image :math:`x_0` where ``z`` is zero.

    Returns
    -------
    data : ndarray, shape (..., ny, nx)
        The image in its own unit.

    See Also
    --------
    whiten : The inverse.
    """
    return np.add(origin, np.multiply(sigma, z))


def largest_value(dtype):
    """
    How large the values of an image may be: far from what would overflow on the way to a result.

    Parameters
    ----------
    dtype : `numpy.dtype`
        That of the image, float32 or float64.

    Returns
    -------
    value : float
        The largest value of a pixel. Its inverse is the smallest noise.
    """
    return 1e30 if dtype == np.float32 else 1e150
