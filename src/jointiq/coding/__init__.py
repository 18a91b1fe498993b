"""Images to ``.jiq`` files and back: models from files, the models that come with the project, the codec's commands."""

#: How the names of coded and of decoded images end.
CODED, PICTURE = ".jiq", ".png"
#: Of models: those that ``src.export`` writes, and those in the layout of CompressAI's checkpoints.
EXPORT, PTH_TAR = ".safetensors", ".pth.tar"
