"""A worker process with small random models, which decodes files under limits of time and memory."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import resource
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jointiq.coding.image_codec import decode_latents, encode_image
from jointiq.errors import UserError
from jointiq.models import build_model
from jointiq.models.jointiq import JointIQNet
from tools.fuzzing.damage import damaged_file

# For one file, in seconds (a valid one takes a few hundredths) and bytes beyond what the loaded worker holds.
TIME_LIMIT = 60.0
MEMORY_LIMIT = 2 << 30

CONFIGS: tuple[dict[str, Any], ...] = (
    {"N": 6, "M": 8, "min_known": 8},
    {"N": 6, "M": 8, "G": 1, "scan": "raster", "global_context": False, "mprm": False},
)
SIZES = ((1, 1), (17, 65), (70, 90))
#: Outcomes of a damaged file that are no failure.
CLEAN = ("error", "exact")


def busy_model(config: dict[str, Any]) -> JointIQNet:
    """Return a small random model, scaled so that its latents are not all zero."""
    torch.manual_seed(0)
    model = build_model({"name": "jointiq", **config}).eval()
    x = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        for layer, name in ((model.g_a.convs[-1], "y"), (model.entropy_model.h_a.convs[-1], "z")):
            layer.weight.mul_(3 / model.analyse(x)[name].std())
        model.entropy_model.z_prior.log_sigma.fill_(math.log(3))
        model.entropy_model.estimator.preliminary.bias[-model.entropy_model.G * model.config["M"] :] += math.log(3)
        if model.entropy_model.global_context is not None:
            model.entropy_model.global_context.psi.normal_(0, 2)
    return model


def digest(latents: dict[str, torch.Tensor]) -> str:
    """Return a hash of decoded latents."""
    return hashlib.sha256(b"".join(latent.numpy().tobytes() for latent in latents.values())).hexdigest()


def work(connection: Connection) -> None:
    """Run the worker: send its valid files, then answer each file with ``error``, ``exact`` or the failure."""
    torch.set_num_threads(1)
    models = [busy_model(config) for config in CONFIGS]
    rng = np.random.default_rng(0)
    files, known = [], set()
    for model in models:
        for height, width in SIZES:
            image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
            encoded = encode_image(model, image, estimate=False)
            files.append(encoded.data)
            known.add(digest(encoded.latents))
        # The last, largest file: not all zero, or the damage would meet nothing.
        assert (encoded.latents["y"].abs() > 1).double().mean() > 0.05 and (encoded.latents["z"] != 0).any()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    connection.send(files)
    while (data := connection.recv()) is not None:
        outcomes = {_outcome(model, data, known) for model in models}
        connection.send(next((outcome for outcome in outcomes if outcome not in CLEAN), max(outcomes)))


def _outcome(model: JointIQNet, data: bytes, known: set[str]) -> str:
    try:
        latents, _ = decode_latents(model, data)
    except UserError:
        return "error"
    except Exception as error:  # noqa: BLE001  (anything else is what is looked for)
        return f"{type(error).__name__}: {error}"
    return "exact" if digest(latents) in known else "wrong latents"


class Worker:
    """A worker process; ``files`` are the valid files it can decode."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self.files: list[bytes] = self._connection.recv()

    def decode(self, data: bytes) -> str:
        """Decode one file; return one of ``CLEAN``, or the failure in words."""
        try:
            self._connection.send(data)
            if not self._connection.poll(TIME_LIMIT):
                return f"hang: no answer in {TIME_LIMIT:.0f} s"
            outcome: str = self._connection.recv()
            return outcome
        except (EOFError, OSError):
            self._process.join(5)
            return f"crash: exit code {self._process.exitcode}"

    def stop(self) -> None:
        """End the process, whatever state it is in."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def fuzz(count: int, seed: int) -> Iterator[tuple[int, bytes, str]]:
    """Decode ``count`` damaged files; yield number, file and outcome of each."""
    worker = Worker()
    try:
        for index in range(count):
            data = damaged_file(worker.files, seed, index)
            outcome = worker.decode(data)
            yield index, data, outcome
            if outcome.startswith(("hang", "crash")):
                worker.stop()
                worker = Worker()
    finally:
        worker.stop()
