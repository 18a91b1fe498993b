"""Anchors: real image codecs to compare with."""
