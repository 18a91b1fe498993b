"""Precisions in which training steps are timed: float32, TF32, bfloat16, compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

# Imported late, by the functions: command lines list the modes without waiting for PyTorch.
if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Mode:
    """The precision of a training step.

    Attributes:
        tf32: matrix products and convolutions of float32 round their inputs to 10 bits (on GPUs that can).
        bf16: autocast, as ``trainer.precision=bf16-mixed`` does.
        compile: the network goes through ``torch.compile``, as ``optim.compile=true`` does.
    """

    tf32: bool = False
    bf16: bool = False
    compile: bool = False

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context of the forward pass."""
        import torch

        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16)


MODES = {
    "fp32": Mode(),
    "tf32": Mode(tf32=True),
    "bf16": Mode(tf32=True, bf16=True),
    "compiled": Mode(tf32=True, bf16=True, compile=True),
}
