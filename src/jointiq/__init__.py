"""JointIQ-Net: learned image compression and quality enhancement, trained jointly, coded to real files.

    model = jointiq.load("jointiq-mse")      # a model that comes with the package, or the path of one
    data = jointiq.encode(model, image)      # a PIL image or a (H, W, 3) uint8 array -> the bytes of a .jiq file
    picture = jointiq.decode(data)           # -> a PIL image

docs/python.md shows them at work.
"""

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jointiq.coding.api import decode, encode, load

__all__ = ["decode", "encode", "load"]


def __getattr__(name: str) -> Any:
    # Not imported before it is used: PyTorch takes seconds, and the light commands do without it.
    if name in __all__:
        from jointiq.errors import ignore_import_warnings

        with warnings.catch_warnings():
            ignore_import_warnings()
            from jointiq.coding import api
        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
