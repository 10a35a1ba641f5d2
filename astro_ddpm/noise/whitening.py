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

    ``data`` is the image :math:`x`, shape (..., ny, nx), ``sigma`` its noise in the same unit, positive, and
    ``origin`` the image :math:`x_0` that becomes zero. `unwhiten` is the inverse.
    """
    return np.subtract(data, origin) / sigma


def unwhiten(z, sigma, origin=0.0):
    r"""Bring an image in units of the noise back to its own unit, :math:`x = x_0 + \sigma z`."""
    return np.add(origin, np.multiply(sigma, z))


def largest_value(dtype):
    """
    Return how large the values of an image of a dtype may be; the inverse is the smallest noise.

    It is far from what would overflow on the way to a result.
    """
    return 1e30 if dtype == np.float32 else 1e150
