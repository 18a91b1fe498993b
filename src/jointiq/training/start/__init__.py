"""Initial weights: those of another model, or principal components."""
