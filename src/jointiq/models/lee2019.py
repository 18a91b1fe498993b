"""The hybrid model of Lee, Cho, Beack: "Context-adaptive Entropy Model for End-to-end Optimized Image Compression".

ICLR 2019, appendix 6.1: for high rates. The base model of the paper is
:class:`jointiq.models.jointiq.JointIQNet` without its additions (conf/experiment/lee2019.yaml).

    x --> g_a --> y --> entropy model --> y_hat --> g_s --> x_mid
                        M1 channels with contexts, M2 with scales from z_hat alone
                        (jointiq.entropy_models.hybrid)
"""

from __future__ import annotations

from dataclasses import dataclass

from compressai.registry import register_model

from jointiq.entropy_models.hybrid import HybridSettings
from jointiq.models.jointiq import JointIQNet
from jointiq.parts import Settings, at_least


@dataclass(frozen=True)
class Lee2019HybridSettings(Settings):
    """Settings of :class:`Lee2019Hybrid`, beside those of its entropy model, which divides y.

    Attributes:
        N: channels of the transforms.
    """

    N: int = at_least(1)


@register_model("lee2019_hybrid")
class Lee2019Hybrid(JointIQNet):
    """JointIQ-Net's transforms with the hybrid entropy model; ``y`` is y1 and y2 along the channels."""

    SETTINGS = Lee2019HybridSettings
    OWN_ENTROPY_MODEL = "hybrid"
    SWAPS_ENTROPY_MODEL = False

    entropy_settings: HybridSettings

    @property
    def channels(self) -> int:
        return self.entropy_settings.M1 + self.entropy_settings.M2

    def trunk_settings(self) -> list[str]:
        return [*super().trunk_settings(), "M1", "M2"]
