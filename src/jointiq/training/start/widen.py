"""Start a model from a narrower one (``init_from=`` with a larger ``model.N`` or ``model.M``; ours).

Each layer computes for its old outputs what it did, whatever the new channels hold (after Net2Net, Chen et al. 2016):

    old outputs <-- old inputs: the weights there      new outputs <-- all inputs: random weights
    old outputs <-- new inputs: zero

New channels of y would mostly be rounded to zero then, without a gradient for the weights of g_s that read them. So
they begin as the principal components of what the old ones leave of the features that the last layer of g_a reads.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jointiq.layers.gains import Gains
from jointiq.models.base import LearnedCodec

# Patches in a forward pass.
_AT_ONCE = 8


@torch.no_grad()
def widen(net: LearnedCodec, source: LearnedCodec, parts: Iterable[str], patches: Tensor) -> None:
    """Load some parts of ``source`` into the wider ``net``, a newly built model.

    Args:
        parts: names of submodules of ``net`` in which every axis of a weight is N or M; what ``source`` lacks of them
            stays as it is.
        patches: training patches (B, 3, H, W) uint8, for new channels of y.
    """
    theirs = source.state_dict()
    for part in parts:
        for name, module in net.get_submodule(part).named_modules(prefix=part):
            for key, weight in module.named_parameters(recurse=False):
                if f"{name}.{key}" in theirs:
                    _fill(module, weight, theirs[f"{name}.{key}"])
    net.forget()
    old = source.config["M"]
    if net.config["M"] > old:
        _start_new_latents(net, old, patches)


def _fill(module: nn.Module, weight: Tensor, old: Tensor) -> None:
    """Put a weight into the first places of a larger one of the same layer."""
    # Of one rate: the same at every level of a model of all rates.
    old = old.expand(*weight.shape[: weight.dim() - old.dim()], *old.shape)
    block = tuple(slice(side) for side in old.shape)
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and weight.dim() == 4:
        outputs = 1 if isinstance(module, nn.ConvTranspose2d) else 0
        weight.narrow(outputs, 0, old.shape[outputs]).zero_()
    if isinstance(module, Gains):
        weight[:, old.shape[1] :] = old.mean(1, keepdim=True)
    weight[block] = old


def _start_new_latents(net: LearnedCodec, old: int, patches: Tensor) -> None:
    """Set the filters of the channels of y from ``old`` on."""
    last = net.g_a.convs[-1]
    filters = last.weight.flatten(1).double()
    known = filters[:old]
    covariance = _input_covariance(net.g_a, last, patches)
    cross = covariance @ known.T
    variances = known @ cross
    # The inputs as the old channels tell them, by least squares; what is left is not seen by these.
    tiny = 1e-9 * variances.diagonal().mean() * torch.eye(old, dtype=torch.float64)
    predict = torch.linalg.solve(variances + tiny, cross.T).T
    _, components = torch.linalg.eigh(covariance - predict @ cross.T)
    new = components.flip(1).T[: len(filters) - old]
    new = new - (new @ predict) @ known
    # As strong as the weaker ones of the old.
    deviations = (new @ covariance * new).sum(1).clamp(min=0).sqrt()
    strength = variances.diagonal().sqrt().quantile(0.25) / deviations.mean().clamp(min=1e-9)
    last.weight[old : old + len(new)] = (strength * new).view(-1, *last.weight.shape[1:]).float()


def _input_covariance(g_a: nn.Module, last: nn.Conv2d, patches: Tensor) -> Tensor:
    """Return the covariance, float64, of the inputs that a filter of the layer ``last`` of g_a sees at one position."""
    entries = last.weight[0].numel()
    products = torch.zeros(entries, entries, dtype=torch.float64)
    sums, count = torch.zeros(entries, dtype=torch.float64), 0
    padding = (last.kernel_size[0] // 2, last.kernel_size[1] // 2)
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for some in patches.split(_AT_ONCE):
        g_a(2 * (some.float() / 255) - 1)
        columns = F.unfold(seen.pop(), last.kernel_size, padding=padding, stride=last.stride)
        inputs = columns.transpose(0, 1).flatten(1).double()
        products, sums, count = products + inputs @ inputs.T, sums + inputs.sum(1), count + inputs.shape[1]
    hook.remove()
    mean = sums / count
    return products / count - mean[:, None] * mean
