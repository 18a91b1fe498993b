"""What keeps a run: folder, lock, resume, status."""
