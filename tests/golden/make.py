"""Make golden files: a small model, files coded with it, and the latents they must decode to.

    python -m tests.golden.make NAME

makes those of one model, which is for a model that has none. Only a new format version is a reason to make others anew:
the files in this folder prove that old files stay readable.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import sys
from pathlib import Path

import numpy as np
import torch

from jointiq.bitstream.container import VERSION_WITH_QUALITY
from jointiq.coding.export import write_export
from jointiq.coding.image_codec import encode_image
from jointiq.coding.load import load_model
from tests.conftest import make_living, photo

FOLDER = Path(__file__).parent
COMMON = {"N": 8, "M": 8, "K": 7, "min_known": 30, "estimator_width": 2, "mprm_width": 2}
TINY_GRDN = {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4}
MODELS = {
    "full": {"scan": "wavefront", "G": 3, "enhancer": TINY_GRDN},
    "plain": {"scan": "raster", "G": 1, "global_context": False, "mprm": False, "hyper_exp": True},
    "quarters": {"scan": "quarters", "M": 11, "G": 3, "K": 5, "min_known": 8, "estimator_width": 1},
    "rates": {"scan": "quarters", "G": 3, "global_context": False, "mprm": False, "rates": "continuous", "levels": 4},
}
SIZES = ((1, 1), (17, 65), (90, 141))
#: Of the files of a model for all rates, in the order of the sizes.
QUALITIES = (1, 41.7, 80)


def digest(latent: torch.Tensor) -> str:
    """SHA-256 of a latent as little-endian int32 in (channel, row, column) order."""
    return hashlib.sha256(latent.numpy().astype("<i4").tobytes()).hexdigest()


def main(name: str) -> None:
    """Write one export and one ``.jiq`` file a size for a model, and what they hold."""
    export = FOLDER / f"{name}.safetensors"
    identity = write_export(make_living(seed=3, **{**COMMON, **MODELS[name]}), export, half=True)
    model = load_model(export)
    made = {}
    for (height, width), quality in zip(SIZES, QUALITIES, strict=True):
        encoded = encode_image(model if model.quality is None else model.at(quality), photo(height, width))
        assert height == 1 or (encoded.latents["y"].abs() > 1).double().mean() > 0.05
        file = f"{name}-{width}x{height}.jiq"
        (FOLDER / file).write_bytes(encoded.data)
        made[file] = {
            "model": name,
            "fingerprint": identity.hex(),
            "size": [height, width],
            **({} if model.quality is None else {"quality": quality}),
            "y_hat": digest(encoded.latents["y"]),
            "z_hat": digest(encoded.latents["z"]),
            "y_hat_first": encoded.latents["y"][:, 0, 0].tolist(),
            "file": hashlib.sha256(encoded.data).hexdigest(),
        }
    # The last, largest file: its latents themselves, to show where a difference is.
    values = {"y_hat": encoded.latents["y"], "z_hat": encoded.latents["z"]}
    np.savez_compressed(FOLDER / f"{name}.npz", **{key: value.numpy().astype("<i4") for key, value in values.items()})
    (FOLDER / f"{name}.safetensors.xz").write_bytes(lzma.compress(export.read_bytes(), preset=9))
    export.unlink()
    listed = FOLDER / "expected.json"
    files = json.loads(listed.read_text())["files"] | made
    listed.write_text(json.dumps({"format_version": VERSION_WITH_QUALITY, "files": files}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
