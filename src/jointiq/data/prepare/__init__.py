"""Patches cut in advance from folders of images."""
