"""Speed and memory of the codec, beside models of CompressAI: ``python -m tools.bench``."""
