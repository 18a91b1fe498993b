"""Probability models: the training likelihood of each and its exact integer twin, side by side."""
