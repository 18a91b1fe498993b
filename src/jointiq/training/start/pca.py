"""Initialise g_a and g_s with principal components (``init_from=pca``; our choice, for short trainings).

``init_from=auto`` does so for all models with these transforms; the others start from random weights.

    image --2x2 blocks, principal components--> GDN --2x2 blocks, principal components--> GDN ... --> y
    image <--------- the transposed ----------- IGDN <-------- the transposed ----------- IGDN ... <-- y_hat

From random weights, g_a and g_s take tens of thousands of steps to learn what any block transform does: keep the
colours, separate the frequencies, and give y a range that survives rounding. Here each convolution of g_a starts with
the principal components of the 2x2 blocks of its input, measured on training patches, in four of its 25 taps. The layer
of g_s that inverts it starts with their transpose. GDN is near the identity at that range. All weights are trained.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from compressai.models import CompressionModel
from torch import Tensor, nn

from jointiq.errors import ConfigError
from jointiq.layers.transforms import AnalysisTransform, SynthesisTransform
from jointiq.training.validation import PCA

#: Pixels of the training patches that the components are measured on.
PIXELS = 3 << 20

# The taps of a 5x5 kernel of stride 2 that see the block itself: rows and columns 2 and 3.
_BLOCK = slice(2, 4)
# Keeps the mean of a block the same from level to level; orthonormal components would double it, beyond the range where
# GDN is nearly the identity.
_GAIN = 0.5
# Range of y at a lambda of 0.06, found by trial. At others it is scaled so that the square of the quantisation step,
# relative to this range, is proportional to lambda / (1 - lambda).
_RANGE, _RANGE_AT = 3.0, 0.06
# Share of the random weights that stays, in channels with a component and in those without.
_RANDOM, _RANDOM_UNUSED = 0.01, 0.5


def has_the_transforms(net: CompressionModel) -> bool:
    """Return whether ``net`` has the transforms of Lee 2019, for which the initialisation is made."""
    # The last stages of the coarse-to-fine model use a subclass of the synthesis transform, which does not count.
    return (
        isinstance(getattr(net, "g_a", None), AnalysisTransform)
        and type(getattr(net, "g_s", None)) is SynthesisTransform
    )


def start_from_components(net: CompressionModel, patches: Tensor, lmbda: float) -> str:
    """Initialise the convolutions of ``net.g_a`` and ``net.g_s``; everything else of ``net`` stays the same.

    Args:
        net: a model with the transforms of Lee 2019 (JointIQ-Net and its relatives), newly built.
        patches: training patches (B, 3, H, W) uint8; their sides are cut to a multiple of 16.
        lmbda: balance of rate and distortion, which decides the range of y.

    Returns:
        What was done, as a line to show.

    Raises:
        ConfigError: a model with other transforms.
    """
    if not has_the_transforms(net):
        raise ConfigError("init_from", PCA, "null or a checkpoint; this model's transforms are not those of Lee 2019")
    g_a, g_s = net.g_a, net.g_s
    assert isinstance(g_a, AnalysisTransform) and isinstance(g_s, SynthesisTransform)
    odds = math.sqrt(lmbda / (1 - lmbda) / (_RANGE_AT / (1 - _RANGE_AT)))
    levels = len(g_a.convs)
    # The last level restores the range that the gains of the others reduce.
    gains = [_GAIN] * (levels - 1) + [_RANGE / odds / _GAIN ** (levels - 1)]
    with torch.no_grad():
        whole = [side - side % 2**levels for side in patches.shape[-2:]]
        features = 2 * (patches[..., : whole[0], : whole[1]].float() / 255) - 1
        used = features.shape[1]
        for conv, gdn, deconv, gain in zip(g_a.convs, g_a.gdns, reversed(g_s.deconvs), gains, strict=True):
            assert isinstance(conv, nn.Conv2d) and isinstance(deconv, nn.ConvTranspose2d)
            used = _initialise_pair(conv, deconv, features, used, gain)
            features = gdn(conv(features))
    return f"g_a and g_s start from the principal components of {len(patches)} training patches"


def _initialise_pair(conv: nn.Conv2d, deconv: nn.ConvTranspose2d, features: Tensor, used: int, gain: float) -> int:
    """Initialise a layer of g_a from the components of its input, and the layer of g_s that inverts it.

    The components are those of the first ``used`` channels of the input. The others are random mixtures of what these
    hold already, so a component spent on them would be lost for the image. Returns how many channels of the output are
    components.
    """
    weight, inverse = conv.weight, deconv.weight
    components = _components(features[:, :used], len(weight))
    count = len(components)
    weight[:count] *= _RANDOM
    weight[count:] *= _RANDOM_UNUSED
    weight[:count, :used, _BLOCK, _BLOCK] += gain * components
    inverse *= _RANDOM * min(1, _GAIN / gain)
    inverse[:count, :used, _BLOCK, _BLOCK] += components / gain
    for bias in (conv.bias, deconv.bias):
        assert bias is not None
        bias.zero_()
    return count


def _components(features: Tensor, most: int) -> Tensor:
    """Return the principal components of the 2x2 blocks of (B, C, H, W), largest first: (count, C, 2, 2), orthonormal.

    ``count`` is the smaller of 4 C and ``most``.
    """
    channels = features.shape[1]
    blocks = F.pixel_unshuffle(features, 2).transpose(0, 1).flatten(1)
    _, vectors = torch.linalg.eigh(blocks @ blocks.T)
    return vectors.flip(1)[:, :most].T.reshape(-1, channels, 2, 2)
