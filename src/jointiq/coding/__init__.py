"""Images to ``.jiq`` files and back; models from files, and those that come with the project."""

from pathlib import Path

#: Suffixes of coded and of decoded images.
CODED, PICTURE = ".jiq", ".png"
#: Suffixes of models: exports, and state dicts as CompressAI has them.
EXPORT, PTH_TAR = ".safetensors", ".pth.tar"
#: A run's model, in its folder.
CHECKPOINT = Path("checkpoints") / "last.ckpt"
#: Steps of refinement (:mod:`jointiq.coding.refine`) by what people call them.
EFFORTS = {"fast": 0, "normal": 100, "high": 500}
