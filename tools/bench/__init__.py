"""Speed and memory of the codec, beside CompressAI's ``mbt2018``: ``python -m tools.bench``."""
