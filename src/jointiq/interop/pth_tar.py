"""CompressAI's checkpoint file: ``*.pth.tar``, in spite of its name a bare state dict written by ``torch.save``.

This is what ``python -m compressai.utils.update_model`` writes and what CompressAI's model zoo downloads. The state
dict of our models says what it is the state of (``_extra_state``, the configuration as JSON in a byte tensor), so such
a file is complete, and it opens with ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import nn

from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.load import load_model
from jointiq.files import write_bytes
from jointiq.models.base import LearnedCodec
from jointiq.models.compressai_codec import CompressAICodec


def write_pth_tar(model: LearnedCodec, path: str | Path) -> bytes:
    """Write ``model`` to ``path`` and return the fingerprint of what a reader gets.

    The file holds the float weights; every reader derives the integers of the entropy model from them. For a model
    from a training checkpoint they are those of the model itself. A model from a ``.safetensors`` export keeps its
    integers as they were stored, and those derived anew may differ in last bits: then so does the fingerprint.

    Of CompressAI's own models, unless they have an enhancer, it holds what CompressAI's tools expect: the state dict of
    its class, with the tables of its coder.

    Raises:
        UserError: the file cannot be written.
    """
    model.update()
    source: nn.Module = model
    if isinstance(model, CompressAICodec) and model.enhancer is None:
        source = model.net
    state = {name: value.detach().cpu().contiguous() for name, value in source.state_dict().items()}
    written = io.BytesIO()
    torch.save(state, written)
    write_bytes(path, written.getvalue())
    return fingerprint(load_model(path))
