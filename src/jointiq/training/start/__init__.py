"""Where weights start: another model, or principal components."""
