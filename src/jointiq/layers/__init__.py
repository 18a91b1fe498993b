"""Building blocks, named as in the papers."""
