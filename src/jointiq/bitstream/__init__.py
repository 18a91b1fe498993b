"""Integers to bytes and back: scan order, binarisation, rANS, container. No networks here."""
