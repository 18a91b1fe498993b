"""Weights & Biases: logger, pictures, RD points, the closing run of a sweep and the workspace."""
