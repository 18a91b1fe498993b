"""The commands of ``python -m src.codec``: files and folders, progress, summaries."""
