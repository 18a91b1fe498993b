"""All of Weights & Biases; configs name it by ``_target_``."""
