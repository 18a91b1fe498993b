"""Start g_a and g_s as a transform that codes images already (``init_from=pca``; our choice, for short trainings).

With ``init_from=auto`` so do the models that can, and all others start from random weights.

    image --2x2 blocks, principal components--> GDN --2x2 blocks, principal components--> GDN ... --> y
    image <--------- the transposed ----------- IGDN <-------- the transposed ----------- IGDN ... <-- y_hat

Random transforms spend their first tens of thousands of steps on learning what any block transform does: to keep the
colours, to separate frequencies, to give y a range that rounding leaves something of. Here each convolution starts with
the principal components of the 2x2 blocks of what reaches it, measured on training patches, in four of its 25 taps, and
the layer of g_s that undoes it with the transposed. GDN is near the identity at that range. All weights are trained.
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
# A block's mean keeps its size from level to level; orthonormal components would double it, beyond the range where GDN
# is nearly the identity.
_GAIN = 0.5
# Range of y: rounding to integers is then a quantiser whose step suits the balance of rate and distortion (its square
# is in proportion to lambda / (1 - lambda)); found by trial at lambda 0.06.
_RANGE, _RANGE_AT = 3.0, 0.06
# Share of the random weights that stays: enough for the channels without a component to be used.
_RANDOM, _RANDOM_UNUSED = 0.01, 0.5


def has_the_transforms(net: CompressionModel) -> bool:
    """Whether ``net`` has the transforms of Lee 2019, which can start so."""
    # The features of the coarse-to-fine model's last stages are made by a class of their own.
    return (
        isinstance(getattr(net, "g_a", None), AnalysisTransform)
        and type(getattr(net, "g_s", None)) is SynthesisTransform
    )


def start_from_components(net: CompressionModel, patches: Tensor, lmbda: float) -> str:
    """Set the convolutions of ``net.g_a`` and ``net.g_s``; everything else of ``net`` stays as it is.

    Args:
        net: a model with the transforms of Lee 2019 (JointIQ-Net and its relatives), newly built.
        patches: training patches (B, 3, H, W) uint8; what their sides have beyond a multiple of 16 is left out.
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
    # What the gains below one of the other levels took away, the last one gives back.
    gains = [_GAIN] * (levels - 1) + [_RANGE / odds / _GAIN ** (levels - 1)]
    with torch.no_grad():
        whole = [side - side % 2**levels for side in patches.shape[-2:]]
        features = 2 * (patches[..., : whole[0], : whole[1]].float() / 255) - 1
        for conv, gdn, deconv, gain in zip(g_a.convs, g_a.gdns, reversed(g_s.deconvs), gains, strict=True):
            assert isinstance(conv, nn.Conv2d) and isinstance(deconv, nn.ConvTranspose2d)
            _set(conv, deconv, features, gain)
            features = gdn(conv(features))
    return f"g_a and g_s start from the principal components of {len(patches)} training patches"


def _set(conv: nn.Conv2d, deconv: nn.ConvTranspose2d, features: Tensor, gain: float) -> None:
    """Start a layer of g_a from the components of ``features``, and the layer of g_s that undoes it."""
    weight, undoing = conv.weight, deconv.weight
    components = _components(features, len(weight))
    count = len(components)
    weight[:count] *= _RANDOM
    weight[count:] *= _RANDOM_UNUSED
    weight[:count, :, _BLOCK, _BLOCK] += gain * components
    undoing *= _RANDOM * min(1, _GAIN / gain)
    undoing[:count, :, _BLOCK, _BLOCK] += components / gain
    for bias in (conv.bias, deconv.bias):
        assert bias is not None
        bias.zero_()


def _components(features: Tensor, most: int) -> Tensor:
    """The principal components of the 2x2 blocks of (B, C, H, W), largest first: (count, C, 2, 2), orthonormal.

    ``count`` is 4 C or ``most``, whichever is less.
    """
    channels = features.shape[1]
    blocks = F.pixel_unshuffle(features, 2).transpose(0, 1).flatten(1)
    _, vectors = torch.linalg.eigh(blocks @ blocks.T)
    return vectors.flip(1)[:, :most].T.reshape(-1, channels, 2, 2)
