"""Which model codes a file: the one of ``--checkpoint``, or one that comes with the repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jointiq.bitstream.container import Container
from jointiq.coding import shipped
from jointiq.coding.shipped import ShippedModel
from jointiq.errors import BitstreamError
from jointiq.runtime import pick_device

if TYPE_CHECKING:
    from jointiq.models.base import LearnedCodec


def encoder_model(checkpoint: str | None, quality: int | None, device: str) -> LearnedCodec:
    """The model to encode with: of the checkpoint, or else the shipped one of the quality (None: the default).

    Raises:
        UserError: there is no such model, or it cannot be used.
    """
    if checkpoint is None:
        model = shipped.of_quality(quality)
        return shipped.load_shipped(model, pick_device(device))
    from jointiq.coding.load import load_model

    return load_model(checkpoint, pick_device(device))


class DecoderModels:
    """The models that files are decoded with: of the checkpoint, or else the shipped one that each file names.

    Every model is loaded once, the checkpoint's at the start.

    Raises:
        UserError: the checkpoint cannot be used.
    """

    def __init__(self, checkpoint: str | None, device: str) -> None:
        from jointiq.coding.load import load_model

        self._device = pick_device(device)
        self._given = None if checkpoint is None else load_model(checkpoint, self._device)
        self._loaded: dict[bytes, LearnedCodec] = {}

    def of(self, data: bytes) -> LearnedCodec:
        """The model for a whole ``.jiq`` file.

        Raises:
            BitstreamError: the file is damaged, or was written by a model that is not shipped.
            ModelError: the shipped models cannot be used.
        """
        if self._given is not None:
            return self._given
        start = Container.unpack(data).fingerprint
        if start not in self._loaded:
            self._loaded[start] = shipped.load_shipped(_named(start), self._device)
        return self._loaded[start]


def _named(start: bytes) -> ShippedModel:
    found = shipped.of_fingerprint(start)
    if found is not None:
        return found
    names = ", ".join(f"{model.name} {model.fingerprint[: len(start)].hex()}" for model in shipped.shipped_models())
    among = f"none of the shipped ones ({names})" if names else f"not at hand: {shipped.none_shipped()}"
    raise BitstreamError(f"the file was written by the model {start.hex()}, {among}; name its model with --checkpoint")
