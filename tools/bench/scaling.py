"""Time and peak memory of our codec against the size of the image, each measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from jointiq.coding.image_codec import decode_image, encode_image
from jointiq.data.images import read_image, write_png
from jointiq.errors import UserError
from jointiq.evaluation.stopwatch import Moment, forget_peak, peak_bytes, resident_bytes
from jointiq.layers.padding import Size
from jointiq.models import build_model
from jointiq.models.jointiq import JointIQNet
from tools.bench import codec
from tools.bench.contenders import JointIQContender
from tools.bench.synthetic_latents import Latents, find_scale, fitted_jointiq, make_latents

# (height, width): the square ones first, then up to 4K.
SIZES: tuple[Size, ...] = ((256, 256), (512, 512), (512, 768), (1024, 1536), (1080, 1920), (2160, 3840))
QUICK_SIZES: tuple[Size, ...] = ((64, 64), (128, 192))
WARM_UP_SIZE = (64, 64)
# Up to here a run is short enough to be repeated.
REPEAT_PIXELS = 512 * 768
REPEATS = 3
ACTIONS = ("encode", "decode")


def measure_sizes(sizes: Sequence[Size], step: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return one entry a size; ``step``, the progress callback, is called before each of :data:`ACTIONS`.

    Raises:
        UserError: a measuring process failed; its own message is above.
    """
    scale = find_scale(codec.CHANNELS, codec.CHANNELS)
    with tempfile.TemporaryDirectory(prefix="jointiq-bench-") as name:
        folder = Path(name)
        model = fitted_jointiq(codec.model_config(), scale)
        torch.save({"config": model.config, "state": model.state_dict()}, folder / "model.pt")
        del model
        return [_measure(folder, size, scale, step) for size in sizes]


def _measure(folder: Path, size: Size, scale: float, step: Callable[[str], None]) -> dict[str, Any]:
    height, width = size
    latents = make_latents(size, codec.CHANNELS, codec.CHANNELS, scale)
    torch.save({"y": latents.y, "z": latents.z}, folder / "latents.pt")
    write_png(folder / "image.png", codec.photograph(size))
    megapixels = height * width / 1e6
    entry: dict[str, Any] = {"height": height, "width": width, "megapixels": megapixels}
    for action in ACTIONS:
        step(f"{width}x{height}: {action}")
        # The libraries' warnings were already shown by this process.
        command = [sys.executable, "-W", "ignore", "-m", "tools.bench.scaling", action, str(folder)]
        child = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        if child.returncode:
            raise UserError(f"measuring {action} at {width}x{height} failed with exit code {child.returncode}")
        measured = json.loads(child.stdout)
        entry[f"{action}_seconds"] = measured["seconds"]
        entry[f"{action}_seconds_per_megapixel"] = measured["seconds"] / megapixels
        entry[f"{action}_peak_memory_bytes"] = measured["peak_bytes"]
        entry[f"{action}_base_memory_bytes"] = measured["base_bytes"]
        entry[f"{action}_memory_bytes_per_megapixel"] = (measured["peak_bytes"] - measured["base_bytes"]) / megapixels
    entry["bpp"] = 8 * (folder / "image.jiq").stat().st_size / (height * width)
    return entry


def measure_here(action: str, folder: Path) -> dict[str, float]:
    """Encode or decode in this process; return median seconds, peak memory, and memory before the image was read.

    ``folder`` holds the model, latents and image; an encode leaves the file there that a decode reads.
    """
    torch.set_num_threads(1)
    stored = torch.load(folder / "model.pt", weights_only=True)
    model = build_model(stored["config"]).eval()
    assert isinstance(model, JointIQNet)
    model.load_state_dict(stored["state"])
    del stored
    decode_image(model, encode_image(model, codec.photograph(WARM_UP_SIZE), estimate=False).data)
    forget_peak()
    base = resident_bytes()
    image = read_image(folder / "image.png")
    repeats = REPEATS if image.shape[0] * image.shape[1] <= REPEAT_PIXELS else 1
    if action == "encode":
        contender = JointIQContender(model, image, Latents(**torch.load(folder / "latents.pt", weights_only=True)))
        seconds = [contender.encode().wall for _ in range(repeats)]
        peak = peak_bytes()
        (folder / "image.jiq").write_bytes(contender.data)
    else:
        data = (folder / "image.jiq").read_bytes()
        seconds = []
        for _ in range(repeats):
            began = Moment.now()
            decoded = decode_image(model, data)
            seconds.append((Moment.now() - began).wall)
        peak = peak_bytes()
        # Read last, because a decoder does not hold them in memory.
        latents = torch.load(folder / "latents.pt", weights_only=True)
        if not torch.equal(decoded.latents["y"], latents["y"][0].long()):
            raise RuntimeError("other latents came back than were encoded")
    return {"seconds": median(seconds), "peak_bytes": peak, "base_bytes": base}


if __name__ == "__main__":
    print(json.dumps(measure_here(sys.argv[1], Path(sys.argv[2]))))
