# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Residual blocks, attention gates and changes of resolution.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AttentionGate", "ChannelNorm", "Downsample", "ResidualBlock", "Starlet", "Upsample"]


def zero_init(layer: nn.Module) -> nn.Module:
    """Set the parameters of ``layer`` to zero and return it."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _reusable(x: Tensor, other: Tensor) -> Tensor | None:
    """Return ``x`` to be overwritten by a function of both if no gradient needs it: new memory is slow."""
    return None if torch.is_grad_enabled() or x.dtype != other.dtype else x


class ChannelNorm(nn.Module):
    r"""
    Root-mean-square norm over the channels of each pixel.

    .. math:: y_c = g_c \, x_c \Big/ \sqrt{\tfrac{1}{C} \sum_{c'} x_{c'}^2 + \epsilon}

    (Zhang & Sennrich 2019, *Root Mean Square Layer Normalization*, equation 4, applied pixel by pixel.)
    No statistic is shared between pixels, unlike in group or instance norms.

    Parameters
    ----------
    channels : int
        The number of channels.

    eps : float, optional
        Added to the mean square.
    """

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised ``x``, shape (batch, channels, ny, nx)."""
        dtype = torch.promote_types(x.dtype, torch.float32)  # sums of bfloat16 are too round
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=dtype)
        y = x * torch.rsqrt(norm.square() / x.shape[1] + self.eps).to(x.dtype)
        return torch.mul(y, self.gain.to(x.dtype)[:, None, None], out=_reusable(y, x))


class ResidualBlock(nn.Module):
    """
    Two 3x3 convolutions with pre-activation, around which the input is carried unchanged.

    ``skip(x) + conv(silu(film(norm(conv(silu(norm(x)))))))`` where ``film`` multiplies and shifts the
    channels by functions of a conditioning vector (He et al. 2016, *Identity Mappings in Deep Residual
    Networks*; Perez et al. 2018, *FiLM*). The last convolution starts at zero, so that the block starts
    as the identity (or as the 1x1 projection where the number of channels changes).

    Parameters
    ----------
    in_channels, out_channels : int
        The number of channels before and after.

    embedding_channels : int, optional
        The length of the conditioning vector; 0 for none.

    dropout : float, optional
        The probability with which a channel of a pixel is dropped before the last convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, embedding_channels: int = 0, dropout: float = 0.0
    ):
        super().__init__()
        self.norm1 = ChannelNorm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = ChannelNorm(out_channels)
        self.film = zero_init(nn.Linear(embedding_channels, 2 * out_channels)) if embedding_channels else None
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Return new features, shape (batch, out_channels, ny, nx), of ``x`` and the conditioning vectors."""
        inplace = not torch.is_grad_enabled()
        h = self.norm2(self.conv1(F.silu(self.norm1(x), inplace)))
        if self.film is not None:
            scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, h, 1 + scale, out=_reusable(h, scale))
        h = self.conv2(self.dropout(F.silu(h, inplace)))
        return torch.add(self.skip(x), h, out=_reusable(h, x))


class AttentionGate(nn.Module):
    r"""
    Additive attention gate: decides pixel by pixel how much of a skip connection to let through.

    .. math:: \alpha = \mathrm{sigmoid}(\psi^T \mathrm{silu}(W_x x + W_g g)), \qquad y = \alpha x

    (Oktay et al. 2018, *Attention U-Net*, equations 1 and 2, with all maps 1x1 convolutions at the
    resolution of the skip connection, so that the gate is local.)

    Parameters
    ----------
    channels : int
        The channels of the skip connection and of the gating features.
    """

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(channels // 2, 1)
        self.skip = nn.Conv2d(channels, hidden, 1)
        self.gate = nn.Conv2d(channels, hidden, 1, bias=False)
        self.psi = nn.Conv2d(hidden, 1, 1)

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """Return ``skip`` weighted by the gate; all shapes are (batch, channels, ny, nx)."""
        return skip * torch.sigmoid(self.psi(F.silu(self.skip(skip) + self.gate(gate))))


class Downsample(nn.Conv2d):
    """Halve the resolution by a 2x2 convolution of stride 2 from ``in_channels`` to ``out_channels``."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 2, stride=2)


class Upsample(nn.Module):
    """Double the resolution: a 1x1 convolution, then each pixel becomes 2x2 equal ones."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of shape (batch, out_channels, 2 ny, 2 nx)."""
        return F.interpolate(self.project(x), scale_factor=2, mode="nearest")


class Starlet(nn.Module):
    r"""
    The starlet transform: an image as a sum of planes, each with the structure of one scale.

    .. math:: c_{j+1} = h_j * c_j, \qquad w_j = c_j - c_{j+1}, \qquad c_0 = \sum_{j < J} w_j + c_J

    with :math:`h_j` the B3-spline (1, 4, 6, 4, 1) / 16 along both axes, its elements :math:`2^j` pixels
    apart (Starck & Murtagh 2006, *Astronomical Image and Data Analysis*, section 2.3). Each plane is divided
    by the standard deviation that it has in an image of white noise of unit variance. Beyond the edges the
    image counts as zero, as in the convolutions of the networks.

    Parameters
    ----------
    scales : int
        The number :math:`J` of planes beside the last, smooth one.
    """

    noise: Tensor
    spline: Tensor

    def __init__(self, scales: int):
        super().__init__()
        self.scales = scales
        spline = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("spline", torch.outer(spline, spline)[None, None], persistent=False)
        size = 2 ** (scales + 2) + 1  # wide enough for the response to one pixel
        pixel = torch.zeros(1, 1, size, size)
        pixel[..., size // 2, size // 2] = 1
        self.register_buffer("noise", torch.ones(scales + 1, 1, 1), persistent=False)
        self.noise = self(pixel).square().sum((-2, -1), keepdim=True)[0].sqrt()

    def forward(self, x: Tensor) -> Tensor:
        """
        Return the planes of images, shape (batch, 1, ny, nx), from fine to coarse, the smooth one last.

        They have the shape (batch, scales + 1, ny, nx) and are in units of their noise.
        """
        planes = []
        for step in (2**j for j in range(self.scales)):
            smooth = F.conv2d(x, self.spline.to(x.dtype), padding=2 * step, dilation=step)
            planes.append(x - smooth)
            x = smooth
        return torch.cat([*planes, x], dim=1) / self.noise.to(x.dtype)
