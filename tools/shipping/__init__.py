"""Trained models made ready to come with the repository: exported, measured, listed, described."""
