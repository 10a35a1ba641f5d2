# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The residual attention U-Net, alone and guided by a first estimate for the diffusion model.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import AttentionGate, ChannelNorm, Downsample, ResidualBlock, Starlet, Upsample, zero_init
from .embedding import SinusoidalEmbedding

__all__ = ["AttentionUNet", "GuidedUNet", "RAUNet", "WhitenedStem"]


Part = tuple[slice, slice]

LIMIT = 4.0  # of the noise, for what a filter may take away
ORIENTATIONS = {1: (0,), 2: (0, 2), 4: range(4), 8: range(8)}  # the codes of `turn`


def gram_filters(size: int) -> Tensor:
    r"""
    Products of the discrete orthonormal polynomials of two axes, apart from the constant.

    The polynomials are those of Gram (Savitzky & Golay 1964 smooth with them), orthonormal on ``size``
    equidistant points: :math:`\sum_x p_i(x) p_j(x) = \delta_{ij}`. As filters, shape (size**2 - 1, 1, size,
    size), their products measure the derivatives of an image, from low to high order along x, then y, with
    zero sum and unit noise gain. Those of high order see no smooth structure, however bright.
    """
    x = torch.linspace(-1, 1, size, dtype=torch.float64)
    axis = torch.linalg.qr(torch.stack([x**order for order in range(size)], dim=1)).Q.T
    filters = torch.einsum("iy,jx->ijyx", axis, axis).reshape(size**2, 1, size, size)
    return filters[1:].float()


def arcsinh(x: Tensor) -> Tensor:
    r"""
    Inverse hyperbolic sine.

    .. math:: \mathrm{arcsinh}\, x
              = \mathrm{sgn}\, x \, \ln\left(1 + |x| + \frac{x^2}{1 + \sqrt{1 + x^2}}\right)

    That of PyTorch takes a tenth of the time of a network on CPUs; here it serves for the gradient only.
    """
    if torch.is_grad_enabled():
        return torch.asinh(x)
    y = x.square().add_(1).sqrt_().add_(1)
    torch.div(x, y, out=y)
    return torch.addcmul(x.abs(), x, y, out=y).log1p_().copysign_(x)


class WhitenedStem(nn.Module):
    """
    First features of an image in units of its noise.

    Whitened images span from a few tenths (sky) to ten thousand (cores). A bank of linear filters sees that
    range uncompressed, so that noise of one sigma on top of a bright core is not lost; ``arcsinh`` then
    compresses image and filter outputs. The filters start as ``gram_filters`` and are trained.

    The features may belong to square patches of pixels rather than to single ones. No pixel is lost: all
    those of a patch are features of it.

    Parameters
    ----------
    patch, margin : int, optional
        The width of the patches, and how far beyond a patch the filters reach, in pixels.
    """

    def __init__(self, patch: int = 1, margin: int = 2):
        super().__init__()
        size = patch + 2 * margin
        filters = gram_filters(size)
        self.patch = patch
        self.bank = nn.Conv2d(1, len(filters), size, stride=patch, padding=margin, bias=False)
        self.bank.weight = nn.Parameter(filters)
        self.channels = len(filters) + 2 * patch**2
        self.receptive_radius = margin

    def measure(self, z: Tensor) -> Tensor:
        """Filter whitened images, shape (batch, 1, ny, nx); the lengths of the result are rounded up."""
        image = F.pixel_shuffle(to_patches(z, self.patch), self.patch)  # with whole patches
        with torch.autocast(z.device.type, enabled=False):  # bfloat16 is rounder than the noise on a core
            return self.bank(image)

    def forward(self, z: Tensor, valid: Tensor, measured: Tensor | None = None) -> Tensor:
        """
        Return features: ``arcsinh`` of image and filter outputs, and the validity.

        Parameters
        ----------
        z, valid : Tensor, shape (batch, 1, ny, nx)
            The image divided by its noise, and 1 where a pixel was measured, 0 where it was filled.

        measured : Tensor, shape (batch, n, ny / patch, nx / patch), optional
            The output of `measure`, if it is known.
        """
        measured = self.measure(z) if measured is None else measured
        z, valid = to_patches(z, self.patch), to_patches(valid, self.patch)
        with torch.autocast(z.device.type, enabled=False):
            return torch.cat([arcsinh(z), arcsinh(measured), valid], dim=1)


class AttentionUNet(nn.Module):
    """
    U-Net of residual blocks whose skip connections pass attention gates.

    Images of any size are accepted: the features are padded at the bottom and right edges to a multiple
    of the coarsest pixel and cropped again.

    Parameters
    ----------
    in_channels : int
        The channels of the input.

    channels : sequence of int, optional
        The channels at each resolution, from fine to coarse.

    embedding_channels : int, optional
        The length of the conditioning vector of every block; 0 for none.

    dropout : float, optional
        The dropout of the two coarsest resolutions.

    Raises
    ------
    ValueError
        If ``channels`` is empty.
    """

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, ...] = (32, 64, 96, 128),
        embedding_channels: int = 0,
        dropout: float = 0.0,
    ):
        super().__init__()
        if not channels:
            msg = "channels must hold at least one number"
            raise ValueError(msg)
        finer, coarser = channels[:-1], channels[1:]
        levels = len(channels)

        def block(width_in: int, width_out: int, level: int) -> ResidualBlock:
            rate = dropout if level >= levels - 2 else 0.0
            return ResidualBlock(width_in, width_out, embedding_channels, rate)

        self.stride = 2 ** (levels - 1)
        # in pixels of the image: the first convolution, two blocks of each finer resolution, the one in the
        # middle, and the width of a coarse pixel
        self.receptive_radius = 1 + 4 * (self.stride - 1) + 2 * self.stride + self.stride - 1
        self.stem = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(block(c, c, level) for level, c in enumerate(finer))
        self.down = nn.ModuleList(map(Downsample, finer, coarser))
        self.middle = block(channels[-1], channels[-1], levels - 1)
        self.up = nn.ModuleList(map(Upsample, coarser, finer))
        self.gates = nn.ModuleList(map(AttentionGate, finer))
        self.up_blocks = nn.ModuleList(block(2 * c, c, level) for level, c in enumerate(finer))

    def forward(self, x: Tensor, embedding: Tensor | None = None, core: Part | None = None) -> Tensor:
        """Return features at full resolution, shape (batch, channels[0], ny, nx), of images and vectors."""
        return self.refine(self.stem(x), embedding, core)

    def refine(self, h: Tensor, embedding: Tensor | None = None, core: Part | None = None) -> Tensor:
        """
        Return what `forward` does from the output of ``stem``, or a part (y, x) of that.

        The halo round a part matters at the coarse resolutions. On the way up it is cut off as soon as it
        does not matter any more, which saves a fifth of the time of a tile.
        """
        ny, nx = h.shape[-2:]
        core = core or (slice(0, ny), slice(0, nx))
        missing = (0, -nx % self.stride, 0, -ny % self.stride)
        if any(missing):  # a compiled network cannot pad
            h = F.pad(h, missing, mode="replicate")
        skips = []
        for block, down in zip(self.down_blocks, self.down, strict=True):
            h = block(h, embedding)
            skips.append(h)
            h = down(h)
        parts = [core]
        for skip in skips:  # two convolutions of a block, and the half of that at the next resolution
            y, x = (
                slice(max(part.start - 2, 0) // 2, (min(part.stop + 2, length) + 1) // 2)
                for part, length in zip(parts[-1], skip.shape[-2:], strict=True)
            )
            parts.append((y, x))
        h, origin = self.middle(h, embedding), (0, 0)
        for block, up, gate in zip(self.up_blocks[::-1], self.up[::-1], self.gates[::-1], strict=True):
            y, x = parts.pop()
            h = up(h[..., *_moved((y, x), origin)])
            skip = skips.pop()[..., 2 * y.start : 2 * y.stop, 2 * x.start : 2 * x.stop]
            h = torch.cat([h, gate(skip, h)], dim=1)
            h, origin = block(h, embedding), (2 * y.start, 2 * x.start)
        return h[..., *_moved(core, origin)]


def _moved(part: Part, origin: tuple[int, int]) -> Part:
    """Return a part (y, x) of an array as that of a part of it which begins at an origin."""
    y, x = (slice(p.start - first, p.stop - first) for p, first in zip(part, origin, strict=True))
    return y, x


class Head(nn.Sequential):
    """Norm, activation and a 3x3 convolution that starts at zero; patches of features become pixels."""

    def __init__(self, in_channels: int, out_channels: int, patch: int = 1):
        super().__init__(
            ChannelNorm(in_channels),
            nn.SiLU(),
            zero_init(nn.Conv2d(in_channels, out_channels * patch**2, 3, padding=1)),
            nn.PixelShuffle(patch),
        )


def to_patches(planes: Tensor, width: int) -> Tensor:
    """
    Gather square patches of pixels in the channels: (b, n, ny, nx) becomes (b, n w**2, ny / w, nx / w).

    Zeros fill the last patches at the bottom and right edges.
    """
    missing = (0, -planes.shape[-1] % width, 0, -planes.shape[-2] % width)
    if any(missing):  # a compiled network cannot pad
        planes = F.pad(planes, missing)
    return F.pixel_unshuffle(planes, width)


def turn(planes: Tensor, code: int) -> Tensor:
    """Return planes, shape (..., ny, nx), after ``code % 4`` quarter turns, and mirrored from code 4 on."""
    turned = torch.rot90(planes, code % 4, (-2, -1))
    return turned.flip(-1) if code >= 4 else turned


def turn_part(part: Part, shape: tuple[int, int], code: int) -> Part:
    """Return where a part (y, x) of planes of a shape (ny, nx) is after `turn`."""
    (y, x), (ny, nx) = part, shape
    for _ in range(code % 4):
        y, x, ny, nx = slice(nx - x.stop, nx - x.start), y, nx, ny
    return (y, slice(nx - x.stop, nx - x.start)) if code >= 4 else (y, x)


def turn_back(planes: Tensor, code: int) -> Tensor:
    """Undo `turn`."""
    return torch.rot90(planes.flip(-1) if code >= 4 else planes, -(code % 4), (-2, -1))


class PatchNetwork(nn.Module):
    """What the networks have in common: a stem, a U-Net and a head see the image in patches."""

    stem: WhitenedStem
    unet: AttentionUNet

    @property
    def stride(self) -> int:
        """The width of the coarsest pixels, in pixels of the image."""
        return self.stem.patch * self.unet.stride

    @property
    def receptive_radius(self) -> int:
        """How many pixels away, along an axis, a pixel of the image can matter."""
        patch = self.stem.patch
        return patch * (self.unet.receptive_radius + 1) + patch - 1 + self.stem.receptive_radius

    def _parts(self, core: Part | None, z: Tensor) -> tuple[Part, Part, Part]:
        """Return a part (y, x) of an image, that of the features it needs, and where it is in the latter."""
        core = core or (slice(0, z.shape[-2]), slice(0, z.shape[-1]))
        patch, lengths = self.stem.patch, (-(-length // self.stem.patch) for length in z.shape[-2:])
        y, x = (
            slice(max(part.start // patch - 1, 0), min(-(-part.stop // patch) + 1, length))
            for part, length in zip(core, lengths, strict=True)
        )
        return core, (y, x), _moved(core, (patch * y.start, patch * x.start))


class RAUNet(PatchNetwork):
    r"""
    Residual attention U-Net: mean and standard deviation of the whitened residual.

    With the image :math:`y`, its noise :math:`\sigma` and the noise-free scene :math:`x`, the network
    sees :math:`z = y / \sigma` and estimates mean :math:`m` and standard deviation :math:`s` of
    :math:`r = (x - y) / \sigma` given :math:`z`.

    Each pixel is blended with what its surroundings predict. If they predict the value :math:`p` with the
    variance :math:`v`, both in units of the noise, Bayes' rule for Gaussians gives

    .. math:: m = \frac{p - z}{1 + v}, \qquad s^2 = \frac{v}{1 + v} .

    A pixel that nothing predicts stays as it was measured, and :math:`s` is never above 1. A pixel that
    was not measured gets :math:`m = p - z` and :math:`s^2 = v`. The prediction filters the image:

    .. math:: p - z = [a]_{2b} + \sum_j g_j \, [w_j]_b

    where :math:`w_j` are the starlet planes of :math:`z` and the outputs of the filters of the stem, and
    :math:`[x]_b` limits :math:`x` to :math:`\pm b`. Noise is rarely beyond these limits, the structure of a
    bright core is, so no core is thrown far. The U-Net gives the offset :math:`a`, which is not limited where
    nothing was measured, the gains :math:`g_j`, and :math:`v`.

    Parameters
    ----------
    channels : sequence of int, optional
        The channels at each resolution, from fine to coarse.

    dropout : float, optional
        The dropout of the two coarsest resolutions.

    patch : int, optional
        The width in pixels of the patches that the finest features belong to: with 2 hardly anything is lost,
        and most of the time is saved. Above 1 only the starlet planes are filtered.

    Attributes
    ----------
    joint : bool
        Whether :math:`v` learns from the loss of the mean too; by default only from that of the width.
    """

    joint = False

    def __init__(self, channels: tuple[int, ...] = (32, 64, 96, 128), dropout: float = 0.0, patch: int = 1):
        super().__init__()
        self.config: dict[str, Any] = {"channels": list(channels), "dropout": dropout, "patch": patch}
        self.stem = WhitenedStem(patch)
        self.unet = AttentionUNet(self.stem.channels, tuple(channels), dropout=dropout)
        self.starlet = Starlet(self.stride.bit_length())
        planes = self.starlet.scales + (self.stem.bank.out_channels if patch == 1 else 0)
        self.mean_head = Head(channels[0], 1 + planes, patch)
        self.std_head = Head(channels[0], 1, patch)

    def forward(self, z: Tensor, valid: Tensor, core: Part | None = None) -> tuple[Tensor, Tensor]:
        """
        Return mean and standard deviation of the residual, shape (batch, 1, ny, nx), in units of the noise.

        ``z`` and ``valid`` are as for `WhitenedStem.forward`. Only a part (y, x) may be wanted, ``core``.
        """
        core, needed, inner = self._parts(core, z)
        measured = self.stem.measure(z)
        features = self.unet(self.stem(z, valid, measured), core=needed)
        heads = self.mean_head(features), self.std_head(features)
        weights, log_std = (head[..., *inner].to(z.dtype) for head in heads)
        with torch.autocast(z.device.type, enabled=False):
            variance = torch.exp(2 * log_std - 2)
            filtered = [self.starlet(z)[:, :-1]] + ([measured] if self.stem.patch == 1 else [])
            planes = torch.cat([plane[..., *core] for plane in filtered], dim=1)
            valid = valid[..., *core]
            blend = 1 / (1 + valid * variance)
            step = self._step(planes, valid, weights)
            return (blend if self.joint else blend.detach()) * step, torch.sqrt(variance * blend)

    def _step(self, planes: Tensor, valid: Tensor, weights: Tensor) -> Tensor:
        """Return how far the prediction is from the image, from its offset and gains."""
        offset, gains = weights[:, :1], weights[:, 1:]
        offset = torch.where(valid > 0, offset.clamp(-2 * LIMIT, 2 * LIMIT), offset)
        return offset + (gains * planes.clamp(-LIMIT, LIMIT)).sum(dim=1, keepdim=True)

    def estimate(
        self, z: Tensor, valid: Tensor, orientations: int = 2, core: Part | None = None
    ) -> tuple[Tensor, Tensor]:
        """
        Average the estimates from the image in several orientations.

        This lowers the error that the network itself makes, and what results turns with the image.

        Parameters
        ----------
        z, valid, core : Tensor, Tensor, tuple of slice
            As for `forward`.

        orientations : {1, 2, 4, 8}, optional
            The image as it is, also turned by half a turn, by quarter turns, and mirrored too.

        Returns
        -------
        mean, std : Tensor, shape (batch, 1, ny, nx)
            The mean of the means, and the root mean square of the standard deviations.

        Raises
        ------
        ValueError
            If ``orientations`` is none of these numbers.
        """
        if orientations not in ORIENTATIONS:
            msg = f"orientations must be one of {', '.join(map(str, ORIENTATIONS))}, not {orientations}"
            raise ValueError(msg)
        mean = variance = torch.zeros_like(z if core is None else z[..., *core])
        shape = z.shape[-2], z.shape[-1]
        for code in ORIENTATIONS[orientations]:
            part = core and turn_part(core, shape, code)
            estimate = self(turn(z, code), turn(valid, code), part)
            turned_mean, turned_std = (turn_back(plane, code) for plane in estimate)
            mean = mean + turned_mean / orientations
            variance = variance + turned_std.square() / orientations
        return mean, variance.sqrt()


class GuidedUNet(PatchNetwork):
    r"""
    The network inside the denoiser: a residual attention U-Net guided by image and first estimate.

    Its output is

    .. math:: F = a + \sum_j g_j w_j ,

    where :math:`w_j` are the starlet planes of the noised residual. The U-Net gives offset and gains of every
    pixel. With an offset of zero this is a linear filter whose strength at each scale changes from place to
    place, the exact denoiser of a Gaussian whose correlations change slowly.

    Parameters
    ----------
    channels, dropout, patch : sequence of int, float, int, optional
        As for `RAUNet`.

    embedding_channels : int, optional
        The length of the conditioning vector.
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (32, 64, 96, 128),
        embedding_channels: int = 128,
        dropout: float = 0.0,
        patch: int = 1,
    ):
        super().__init__()
        self.config: dict[str, Any] = {"channels": list(channels), "embedding_channels": embedding_channels}
        self.config |= {"dropout": dropout, "patch": patch}
        self.stem = WhitenedStem(patch)
        in_channels = self.stem.channels + 3 * patch**2
        self.unet = AttentionUNet(in_channels, tuple(channels), embedding_channels, dropout)
        self.starlet = Starlet(self.stride.bit_length())
        self.head = Head(channels[0], 2 + self.starlet.scales, patch)
        self.scalars = SinusoidalEmbedding(embedding_channels // 2)
        self.mlp = nn.Sequential(
            nn.Linear(2 * (embedding_channels // 2), embedding_channels),
            nn.SiLU(),
            nn.Linear(embedding_channels, embedding_channels),
            nn.SiLU(),
        )

    def encode(self, z: Tensor, valid: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """
        Return the planes that guide the network, shape (batch, n, ny / patch, nx / patch); once per image.

        ``z`` and ``valid`` are image and validity, ``mean`` and ``std`` the output of a `RAUNet` for them.
        """
        estimate = (to_patches(plane, self.stem.patch) for plane in (mean, torch.log(std)))
        return torch.cat([self.stem(z, valid), *estimate], dim=1)

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        guide: Tensor,
        noise_ratio: Tensor,
        core: Part | None = None,
    ) -> Tensor:
        """
        Evaluate the network.

        Parameters
        ----------
        x : Tensor, shape (batch, 1, ny, nx)
            The noised residual, scaled to unit variance.

        noise_level, noise_ratio : Tensor, shape (batch,)
            The noise level as the denoiser encodes it, of order one, and the noise of the exposure to draw,
            in units of the noise of the image.

        guide : Tensor, shape (batch or 1, n, ny / patch, nx / patch)
            The output of `encode`; that of one image serves a batch.

        core : tuple of slice, optional
            The part (y, x) that is wanted; all by default.

        Returns
        -------
        y : Tensor, shape (batch, 1, ny, nx)
            The output, of order one.
        """
        scalars = torch.cat([self.scalars(noise_level), self.scalars(torch.log(noise_ratio) / 4)], dim=1)
        stem, planes, (core, needed, inner) = self.unet.stem, guide.shape[1], self._parts(core, x)
        features = F.conv2d(guide, stem.weight[:, :planes], stem.bias, padding=1)  # once for all draws
        noised = to_patches(x, self.stem.patch)
        features = features + F.conv2d(noised, stem.weight[:, planes:], padding=1)
        output = self.head(self.unet.refine(features, self.mlp(scalars), needed))[..., *inner]
        offset, gains = output[:, :1], output[:, 1:]
        return offset + (gains * self.starlet(x)[..., *core]).sum(dim=1, keepdim=True)
