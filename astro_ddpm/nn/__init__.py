# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Building blocks and networks, in PyTorch only.

Nothing here looks at a whole image at once: norms act on the channels of one pixel, attention gates on
one pixel, convolutions on a neighbourhood. A pixel's result therefore depends on the pixels within the
receptive field and on nothing else, so an image may be cut in overlapping tiles without changing it.
"""

from .blocks import AttentionGate, ChannelNorm, Downsample, ResidualBlock, Starlet, Upsample
from .embedding import SinusoidalEmbedding
from .raunet import AttentionUNet, GuidedUNet, RAUNet, WhitenedStem

__all__ = [
    "AttentionGate",
    "AttentionUNet",
    "ChannelNorm",
    "Downsample",
    "GuidedUNet",
    "RAUNet",
    "ResidualBlock",
    "SinusoidalEmbedding",
    "Starlet",
    "Upsample",
    "WhitenedStem",
]
