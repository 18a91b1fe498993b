"""Values of a training's config that have a name: they are checked without waiting for PyTorch, which obeys them."""

from __future__ import annotations

#: Values of ``init_from`` that name no file: :mod:`jointiq.training.start.pca`, and the same where the model allows it.
PCA, AUTO = "pca", "auto"
NO_FILE = (None, PCA, AUTO)

DISTORTIONS = ("mse", "ms_ssim")
RATE_UNITS = ("nats", "bits")
#: The value of ``distortion.rate_positions`` that counts the rate of every position.
ALL_POSITIONS = "all"

#: Values of ``optim.compile``: no, yes, and torch's name for replaying whole GPU graphs.
COMPILE_MODES = (False, True, "reduce-overhead")

#: Pixels that one position of y covers, a side.
LATENT = 16
#: Smallest side of a training patch: four halvings of MS-SSIM, and of g_a, leave one pixel of it.
MIN_SIDE = 16
