"""SOAP against its definition (Vyas et al. 2025, Algorithm 3), written here axis by axis."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jointiq.training.soap import SOAP

BETA1, BETA2, LR, EPS = 0.9, 0.95, 0.01, 1e-8


def along(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """x multiplied by the transpose of a matrix along an axis."""
    return torch.tensordot(x, matrix, ([axis], [0])).movedim(-1, axis)


class Definition:
    """The algorithm for one weight of three axes; its mean is kept as it is, not in the bases."""

    def __init__(self, gradient: Tensor, frequency: int, axes: list[int]) -> None:
        self.axes, self.frequency, self.count = axes, frequency, 0
        self.statistics = [(1 - BETA2) * self.outer(gradient, axis) for axis in axes]
        self.bases = [torch.linalg.eigh(each)[1].flip(1) for each in self.statistics]
        self.mean, self.square = torch.zeros_like(gradient), torch.zeros_like(gradient)

    @staticmethod
    def outer(x: Tensor, axis: int) -> Tensor:
        others = [other for other in range(x.dim()) if other != axis]
        return torch.tensordot(x, x, (others, others))

    def turned(self, x: Tensor, back: bool = False) -> Tensor:
        for axis, basis in zip(self.axes, self.bases, strict=True):
            x = along(x, basis.T if back else basis, axis)
        return x

    def update(self, gradient: Tensor) -> Tensor:
        self.count += 1
        self.mean = BETA1 * self.mean + (1 - BETA1) * gradient
        self.square = BETA2 * self.square + (1 - BETA2) * self.turned(gradient) ** 2
        mean = self.turned(self.mean) / (1 - BETA1**self.count)
        step = self.turned(mean / ((self.square / (1 - BETA2**self.count)).sqrt() + EPS), back=True)
        for index, axis in enumerate(self.axes):
            self.statistics[index] = BETA2 * self.statistics[index] + (1 - BETA2) * self.outer(gradient, axis)
            if self.count % self.frequency == 0:
                product = self.statistics[index] @ self.bases[index]
                order = (self.bases[index] * product).sum(0).argsort(descending=True)
                self.bases[index] = torch.linalg.qr(product[:, order])[0]
                self.square = self.square.index_select(axis, order)
        return LR * step


@pytest.mark.parametrize(
    ("shape", "longest", "axes"),
    [
        ((5, 4, 3, 2), 9, [0, 1, 2]),
        ((5, 4, 3, 2), 4, [2]),
        ((6, 7, 1, 1), 6, [0]),
        ((4, 5, 1, 1), 9, [0, 2]),
    ],
)
def test_steps_are_those_of_the_definition(shape: tuple[int, ...], longest: int, axes: list[int]) -> None:
    torch.manual_seed(0)
    scales = torch.rand(shape, dtype=torch.float64) + 0.1
    weight = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = SOAP([weight], lr=LR, betas=(BETA1, BETA2), eps=EPS, frequency=3, longest=longest)
    definition, expected = None, torch.zeros(shape, dtype=torch.float64)
    for _ in range(12):
        weight.grad = scales * torch.randn(shape, dtype=torch.float64)
        # Its axes: outputs, positions of the kernel, inputs.
        seen = weight.grad.flatten(2).transpose(1, 2)
        optimizer.step()
        if definition is None:
            definition = Definition(seen, 3, axes)
        else:
            step = definition.update(seen)
            expected -= step.transpose(1, 2).reshape(shape)
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-6, atol=1e-9)
    assert weight.detach().abs().min() > 0


@pytest.mark.parametrize("shape", [(5,), (6, 7), (2, 3, 4)])
def test_what_is_no_kernel_is_stepped_by_adam(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours, adams = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    soap = SOAP([ours], lr=LR, betas=(0.9, 0.99), weight_decay=0.1)
    adam = torch.optim.AdamW([adams], lr=LR, betas=(0.9, 0.99), weight_decay=0.1)
    ours.grad = torch.ones(shape)
    soap.step()
    assert torch.equal(ours.detach(), torch.ones(shape))
    for _ in range(5):
        ours.grad = adams.grad = torch.randn(shape)
        soap.step()
        adam.step()
        torch.testing.assert_close(ours.detach(), adams.detach())
