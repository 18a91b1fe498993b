"""The identity of a trained model: two models with equal fingerprints decode a file to the same picture."""

from __future__ import annotations

import hashlib
import json

from jointiq.models.base import LearnedCodec


def fingerprint(model: LearnedCodec) -> bytes:
    """Return the SHA-256 over all that a decoder uses: config, integers of the entropy model, and weights (float32) of
    g_s and the enhancer; for models that code on floats, all weights.

    Cached in the model until its weights change.
    """
    identity: bytes | None = model.derived.get("fingerprint")
    if identity is None:
        model.update()
        digest = hashlib.sha256(json.dumps(model.config, sort_keys=True).encode())
        for name, tensor in sorted(model.integer_tensors().items()):
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        for name, tensor in sorted(model.weights().items()):
            if model.is_decoder(name):
                digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
        identity = model.derived["fingerprint"] = digest.digest()
    return identity
