"""A GPU that is pretended: its tensors say that they are on ``cuda:0``, and compute on the CPU.

Operations refuse what a GPU refuses, tensors of both devices in one. So code that would fail there fails here, and what
it gives can be compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda:0")
_CPU = torch.device("cpu")
#: They take tensors of both: copies, and indexing by tensors of the CPU.
_BOTH = ("copy_", "_to_copy", "index", "index_put_", "index_put", "_index_put_impl_", "lift_fresh")


class OnGpu(Tensor):
    """A tensor of the pretended GPU; ``inner`` is the one that computes."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=GPU,
        )  # fmt: skip
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.inner.tolist()


class _Mode(TorchDispatchMode):
    """Catches what makes tensors of the GPU from nothing, or from those of the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    on_gpu = [one for one in tensors if isinstance(one, OnGpu)]
    # A CPU's single number goes with anything.
    on_cpu = [one for one in tensors if not isinstance(one, OnGpu) and one.dim() > 0]
    name = func._schema.name.partition("::")[2]
    if on_gpu and on_cpu and name not in _BOTH:
        raise RuntimeError(f"{name}: tensors of the CPU and of the GPU")
    given = kwargs.get("device")
    device = given if given is not None else GPU if on_gpu else _CPU
    if name == "copy_":
        device = args[0].device
    if given is not None:
        kwargs = {**kwargs, "device": _CPU}
    inner = tree_map(lambda one: one.inner if isinstance(one, OnGpu) else one, (args, kwargs))
    result = func(*inner[0], **inner[1])
    if func._schema.is_mutable:
        # What was written into is what is returned.
        written = [
            kwargs[one.name] if one.name in kwargs else args[place]
            for place, one in enumerate(func._schema.arguments)
            if one.alias_info is not None and one.alias_info.is_write
        ]
        return None if result is None else written[0] if len(written) == 1 else tuple(written)
    if torch.device(device).type == "cpu":
        return result
    return tree_map(lambda one: OnGpu(one) if isinstance(one, Tensor) else one, result)


@contextlib.contextmanager
def pretended_gpu() -> Iterator[None]:
    """While this context lasts, ``cuda:0`` is the pretended GPU. Autograd and inference mode do not know it."""
    with pytest.MonkeyPatch.context() as patch, _Mode():
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        torch._C._ensureCUDADeviceGuardSet()
        # Lists become tensors of the CPU first, and modules that are moved get new parameters.
        switches = (
            (torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors()),
            (
                torch.__future__.set_overwrite_module_params_on_conversion,
                torch.__future__.get_overwrite_module_params_on_conversion(),
            ),
        )
        for switch, _ in switches:
            switch(True)
        try:
            yield
        finally:
            for switch, before in switches:
                switch(before)
