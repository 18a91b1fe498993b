"""Generalised divisive normalisation (Balle 2016): CompressAI's parameters, faster, less memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from compressai.layers import GDN as CompressAIGDN
from torch import Tensor

# Bytes of each channel normalised at a time on a CPU, 1024 pixels in float32: 192 channels of them stay in its caches,
# while whole maps would be read from memory for every operation.
_BYTES = 1 << 12


class GDN(CompressAIGDN):
    """y = x / sqrt(beta + gamma x^2) at each position, or x * sqrt(...) if ``inverse``: (B, C, H, W), same shape.

    Without gradients no map but the result is made, as at 4K each takes gigabytes; with ``inplace`` it then overwrites
    its input.
    """

    def __init__(self, in_channels: int, inverse: bool = False, inplace: bool = False) -> None:
        super().__init__(in_channels, inverse)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and (x.dtype is torch.float16 or torch.compiler.is_compiling()):
            # CompressAI's operations: powers of r leave the range of float16, and a compiler fuses them itself.
            return super().forward(x)
        beta, gamma = self.beta_reparam(self.beta), self.gamma_reparam(self.gamma)
        if torch.is_grad_enabled():
            y: Tensor = _Normalise.apply(x, beta, gamma, self.inverse)
            return y
        x = x if self.inplace else x.clone()
        # Under autocast the weights are wider than the maps.
        beta, gamma = beta.to(x.dtype), gamma.to(x.dtype)
        for (block,) in _blocks(x):
            square = block.square().flatten(-2)
            root = _root(square, beta, gamma, self.inverse, torch.empty_like(square))
            block.mul_(root.unflatten(-1, block.shape[-2:]))
        return x


class _Normalise(torch.autograd.Function):
    """x * r with r = n^p, n = beta + gamma x^2 and p = 1/2 if ``inverse``, else -1/2; gamma (C, C).

    Under autocast the maps are in bfloat16. The sums over all of their pixels, which are the gradients of the weights,
    have the weights' precision.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor, gamma: Tensor, inverse: bool) -> Tensor:
        root, y = torch.empty_like(x), torch.empty_like(x)
        narrow = beta.to(x.dtype), gamma.to(x.dtype)
        for x_, root_, y_ in _blocks(x, root, y):
            _root(x_.square().flatten(-2), *narrow, inverse, root_.flatten(-2))
            torch.mul(x_, root_, out=y_)
        ctx.save_for_backward(x, root, gamma)
        ctx.inverse = inverse
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, root, gamma = ctx.saved_tensors
        # dr/dn = p r / n: 1 / r for p = 1/2 and r^3 for p = -1/2, both times p.
        power = 0.5 if ctx.inverse else -0.5
        of_x, of_gamma, of_beta = torch.empty_like(x), torch.zeros_like(gamma), torch.zeros_like(gamma[0])
        transposed = gamma.to(x.dtype).T
        # Frozen weights need no gradient.
        wanted = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        for x_, root_, grad_, of_x_ in _blocks(x, root, grad, of_x):
            slope = grad_ * x_
            slope = slope.div_(root_) if ctx.inverse else slope.mul_(root_).mul_(root_).mul_(root_)
            slope = slope.flatten(-2)
            if wanted:
                of_gamma += _over_images(slope @ x_.square().flatten(-2).mT)
                of_beta += _over_images(slope.sum(-1, keepdim=True, dtype=of_beta.dtype))[:, 0]
            of_square = torch.matmul(transposed, slope, out=torch.empty_like(slope)).unflatten(-1, x_.shape[-2:])
            torch.mul(grad_, root_, out=of_x_).addcmul_(of_square, x_, value=2 * power)
        return of_x, of_beta * power if wanted else None, of_gamma * power if wanted else None, None


def _blocks(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same parts of some maps (B, C, H, W): on a CPU (C, rows, columns) of one image, elsewhere all."""
    batch, _, height, width = maps[0].shape
    if maps[0].device.type != "cpu" or torch.compiler.is_compiling():
        yield maps
        return
    pixels = _BYTES // maps[0].itemsize
    rows = max(1, pixels // max(1, width))
    for image in range(batch):
        for top in range(0, height, rows):
            for left in range(0, width, pixels):
                yield tuple(one[image, :, top : top + rows, left : left + pixels] for one in maps)


def _root(square: Tensor, beta: Tensor, gamma: Tensor, inverse: bool, out: Tensor) -> Tensor:
    """Write r of x^2, (..., C, pixels), into ``out``, and return it."""
    norm = torch.matmul(gamma, square, out=out).add_(beta[:, None])
    return norm.sqrt_() if inverse else norm.rsqrt_()


def _over_images(sums: Tensor) -> Tensor:
    return sums.sum(0) if sums.dim() > 2 else sums
