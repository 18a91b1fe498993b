"""Integers to bytes and back: scan order, binary decisions, rANS, container. Knows nothing of networks."""
