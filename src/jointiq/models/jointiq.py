"""JointIQ-Net: image compression I and quality enhancement Q, trained jointly.

Lee, Cho, Kim: "An End-to-End Joint Learning Scheme of Image Compression and Quality Enhancement with Improved Entropy
Minimization", 2019. Without its additions (G = 1, no global context, no MPRM, no enhancer) it is the base model of Lee,
Cho, Beack: "Context-adaptive Entropy Model for End-to-end Optimized Image Compression", ICLR 2019.

                              I                                      Q
    x --> g_a --> y --> entropy model --> y_hat --> g_s --> x_mid --> GRDN --> x_hat
                        h_a, h_s, c', c'', c''', f, MPRM
                        (jointiq.entropy_models.context)

Images are [0, 1] at the API and [-1, 1] in the networks. I hands x_mid to Q neither clamped nor rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from compressai.registry import register_model
from torch import nn

from jointiq.bitstream.container import DEFAULT_QUALITY
from jointiq.enhancers import build_enhancer
from jointiq.layers.gains import TransformGains
from jointiq.layers.transforms import AnalysisTransform, SynthesisTransform
from jointiq.models.integer_codec import IntegerCodec
from jointiq.parts import Settings, at_least, one_of

CONTINUOUS = "continuous"
RATES = ("one", CONTINUOUS)


@dataclass(frozen=True)
class JointIQSettings(Settings):
    """Settings of :class:`JointIQNet`, beside those of its entropy model.

    Attributes:
        N, M: channels of the transforms and of y (Table 1).
        rates: ``one``, or ``continuous``: one model for all rates (:mod:`jointiq.layers.gains`; ours).
        levels: qualities, evenly spaced, whose gains are trained; between them they are interpolated.
    """

    N: int = at_least(1)
    M: int = at_least(1)
    rates: str = one_of(RATES, default="one", added_later=True, staged=True)
    levels: int = at_least(2, default=16, added_later=True, staged=True)


@register_model("jointiq")
class JointIQNet(IntegerCodec):
    """JointIQ-Net and, with parts of its entropy model switched off, its ablations."""

    SETTINGS: ClassVar[type[Settings]] = JointIQSettings
    OWN_ENTROPY_MODEL = "context"
    #: Classes of g_a and g_s, made from (N, M): (B, 3, H, W) -> (B, M, ceil(H / 16), ceil(W / 16)) and back.
    ANALYSIS: ClassVar[type[nn.Module]] = AnalysisTransform
    SYNTHESIS: ClassVar[type[nn.Module]] = SynthesisTransform

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        N, M = self.config["N"], self.channels
        self.g_a = self.ANALYSIS(N, M)
        self.g_s = self.SYNTHESIS(N, M)
        levels = self.levels
        self.entropy_model = self.build_entropy_model(N, M, levels)
        if levels is not None:
            self.gain_a, self.gain_s = TransformGains(levels, N, M, rising=1), TransformGains(levels, N, M, rising=-1)
            self.quality = DEFAULT_QUALITY
        self.enhancer = build_enhancer(self.config["enhancer"])
        # The layout in which convolutions run a third faster on CPUs, and fastest on tensor cores.
        self.to(memory_format=torch.channels_last)

    @property
    def levels(self) -> int | None:
        """Levels of the gains of a model of all rates; None: one rate."""
        settings = self.settings
        return settings.levels if isinstance(settings, JointIQSettings) and settings.rates == CONTINUOUS else None

    @property
    def channels(self) -> int:
        """Channels of y."""
        M: int = self.config["M"]
        return M
