"""Plots and picture grids."""
