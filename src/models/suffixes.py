"""How the names of model files end; what a file is taken for follows from it."""

#: Of an export (:mod:`src.models.export`).
EXPORT = ".safetensors"
#: Of CompressAI's checkpoint files (:mod:`src.interop.pth_tar`).
PTH_TAR = ".pth.tar"
