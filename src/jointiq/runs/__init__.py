"""A run on disk: its name and folder, lock, status, RD point, and how it is resumed."""
