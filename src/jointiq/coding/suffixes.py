"""How the names of model files end; what a file is taken for follows from it."""

#: Of an export (:mod:`jointiq.coding.export`).
EXPORT = ".safetensors"
#: Of CompressAI's checkpoint files (:mod:`jointiq.interop.pth_tar`).
PTH_TAR = ".pth.tar"
